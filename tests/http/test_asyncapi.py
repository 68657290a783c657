"""The AsyncAPI document: what of a service's events it says, in which words, and that others can read it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from ropewalk import Event, Service, subscribe
from ropewalk.event import Message
from ropewalk.http.asyncapi import document
from ropewalk.service import describe


class Colour(msgspec.Struct, frozen=True, tag="colour"):
    name: str


class Scent(msgspec.Struct, frozen=True, tag="scent"):
    strength: int


class Sown(Event, topic="garden.sown"):
    """Something was sown."""

    bed: int
    where: tuple[int, int] = (0, 0)
    discriminator: str = ""


class SownNow(Event, topic="garden.sown", version=2):
    bed: str


class Bloomed(Event, topic="garden.bloomed"):
    """Something has come into flower."""

    signs: list[Colour | Scent]
    main: Colour = Colour("green")


class Garden(Service, name="garden", version="2.1.0"):
    """Grows."""


class Bees(Service, name="bees", version="1.0.0"):
    """Fly."""

    @subscribe(Bloomed)
    async def visit(self, event: Bloomed) -> None:
        """Go there.

        When it is warm.
        """


class Stones(Service, name="stones"):
    """Do nothing."""


def of(*services: type[Service], title: str = "") -> dict[str, Any]:
    return document([describe(each) for each in services], title)


def errors(whole: dict[str, Any], type: str, message: bytes) -> list[str]:
    """What is wrong with a message by the document's schema for it."""
    registry = Registry().with_resource("", Resource(whole, DRAFT7))
    payload = whole["components"]["messages"][type]["payload"]
    # Beneath the document, so that "#/components/..." is found.
    schema = {**payload, "components": whole["components"]}
    return [error.message for error in Draft7Validator(schema, registry=registry).iter_errors(json.loads(message))]


def sent(event: Event) -> bytes:
    data = msgspec.Raw(msgspec.json.encode(event))
    return Message("id-1", event.topic, event.version, "key", "garden", 1_800_000_000.0, data).encoded()


# -- what it says


def test_what_is_subscribed_to_is_received():
    assert {
        "bees.visit": {
            "action": "receive",
            "channel": {"$ref": "#/channels/garden.bloomed"},
            "messages": [{"$ref": "#/channels/garden.bloomed/messages/v1"}],
            "tags": [{"name": "bees"}],
            "summary": "Go there.",
            "description": "When it is warm.",
        }
    } == of(Bees)["operations"]


def test_what_has_the_services_name_before_its_topic_is_sent_in_all_versions():
    whole = of(Garden)

    assert {"garden.bloomed.publish": ["v1"], "garden.sown.publish": ["v1", "v2"]} == {
        name: [message["$ref"].rpartition("/")[2] for message in operation["messages"]]
        for name, operation in whole["operations"].items()
    }
    assert {"send"} == {operation["action"] for operation in whole["operations"].values()}
    assert {
        "address": "garden.sown",
        "messages": {
            "v1": {"$ref": "#/components/messages/garden.sown.v1"},
            "v2": {"$ref": "#/components/messages/garden.sown.v2"},
        },
    } == whole["channels"]["garden.sown"]


def test_several_services_share_a_document():
    whole = of(Garden, Bees, title="meadow")

    assert {"title": "meadow", "version": "1.0.0, 2.1.0", "description": "garden: Grows.\nbees: Fly."} == whole["info"]
    assert ["bees.visit", "garden.bloomed.publish", "garden.sown.publish"] == list(whole["operations"])


def test_a_message_says_what_it_is():
    message = of(Garden)["components"]["messages"]["garden.sown.v1"]

    assert ("garden.sown.v1", "Sown", "Something was sown.", "application/cloudevents+json") == tuple(
        message[each] for each in ("name", "title", "summary", "contentType")
    )


def test_a_service_without_events_has_an_empty_document():
    whole = of(Stones)

    assert ({}, {}, {"title": "stones", "version": "1.0.0", "description": "Do nothing."}) == (
        whole["channels"],
        whole["operations"],
        whole["info"],
    )


def test_it_is_the_same_each_time():
    assert json.dumps(of(Garden, Bees)) == json.dumps(of(Garden, Bees))


# -- that it is right


@pytest.mark.parametrize(
    "event",
    [
        Sown(bed=3, where=(1, 2)),
        SownNow(bed="roses"),
        Bloomed(signs=[Colour("red"), Scent(3)]),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_is_really_sent_is_as_the_document_says(event: Event):
    assert [] == errors(of(Garden), f"{event.topic}.v{event.version}", sent(event))


def test_what_is_not_so_is_not_valid():
    whole = of(Garden)
    wrong = sent(Sown(bed=3)).replace(b'"bed":3', b'"bed":"three"')

    assert ["'three' is not of type 'integer'"] == errors(whole, "garden.sown.v1", wrong)
    assert ["'garden.sown.v2' was expected"] == errors(
        whole, "garden.sown.v2", sent(SownNow(bed="a")).replace(b".v2", b".v3")
    )


def test_schemas_are_in_the_words_of_draft_07():
    schemas = of(Garden)["components"]["schemas"]

    assert {
        "type": "array",
        "items": [{"type": "integer"}, {"type": "integer"}],
        "minItems": 2,
        "maxItems": 2,
        "default": [0, 0],
    } == schemas["Sown"]["properties"]["where"]
    assert {"type": "string", "default": ""} == schemas["Sown"]["properties"]["discriminator"]
    assert {"default": {"type": "colour", "name": "green"}, "allOf": [{"$ref": "#/components/schemas/Colour"}]} == (
        schemas["Bloomed"]["properties"]["main"]
    )
    assert ["anyOf"] == list(schemas["Bloomed"]["properties"]["signs"]["items"])
    for schema in schemas.values():
        Draft7Validator.check_schema(schema)


def test_all_that_is_referred_to_is_there():
    whole = of(Garden, Bees)

    for reference in references(whole):
        found: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from references(inner)


@pytest.fixture(scope="session")
def official() -> dict[str, Any]:
    """The schema of AsyncAPI 3.0.0 itself, where npm has it."""
    npm = shutil.which("npm")
    for scope in ([], ["--global"]) if npm is not None else ():
        root = subprocess.run([npm, "root", *scope], check=True, capture_output=True, text=True).stdout.strip()
        path = Path(root) / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
        if path.is_file():
            schema: dict[str, Any] = json.loads(path.read_bytes())
            return schema
    pytest.skip("`npm install --global @asyncapi/specs` brings AsyncAPI's own schema")


@pytest.mark.parametrize("services", [(Garden,), (Bees,), (Stones,), (Garden, Bees, Stones)])
def test_it_is_valid_by_the_official_schema(official: dict[str, Any], services: tuple[type[Service], ...]):
    validator = Draft7Validator(official)

    assert [] == [error.message for error in validator.iter_errors(of(*services))]
    assert [] != list(validator.iter_errors({**of(*services), "channels": {"a": {"adress": "b"}}}))


# -- where it is


def test_it_is_served_beside_the_other_one(browse: Callable[..., Any]):
    reply = browse(Bees()).ask("GET", "/asyncapi.json")

    assert (200, ["application/json"]) == (reply.status, reply.headers["content-type"])
    assert of(Bees) == json.loads(reply.body)


def test_a_public_listener_has_none(browse: Callable[..., Any]):
    assert 404 == browse(Bees(), public=True).ask("GET", "/asyncapi.json").status
