"""A service, or a whole system, as an AsyncAPI 3.0 document: the events it takes, and those it publishes.

What is subscribed to is declared. What is published is known by its topic: "trips.booked" is of the service "trips", as
far as its class is loaded. Every message is a CloudEvent 1.0 in JSON, whatever the broker; schemas are those of JSON
Schema draft 07, which AsyncAPI's own are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from ..codec.schema import Schema, Schemas, as_json
from ..event import Event
from ..service import Description

CONTENT_TYPE = "application/cloudevents+json"

Name = Annotated[str, Meta(min_length=1)]


class CloudEvent(Struct, omit_defaults=True):
    """What every event travels in: https://github.com/cloudevents/spec, version 1.0."""

    specversion: Literal["1.0"]
    id: Name  # the same in every copy
    source: Name  # the service that published it
    type: Name  # topic and version
    time: datetime | UnsetType = UNSET
    datacontenttype: str | UnsetType = UNSET
    partitionkey: str | UnsetType = UNSET  # those of one key come in the order of their commits
    traceparent: str | UnsetType = UNSET
    tracestate: str | UnsetType = UNSET
    requestid: str | UnsetType = UNSET
    tenant: str | UnsetType = UNSET
    onbehalfof: str | UnsetType = UNSET


def document(descriptions: Sequence[Description], title: str = "") -> dict[str, Any]:
    """The document of these services, of builtins alone, the same each time. `title`: by default the first's name."""
    taken = [each for said in descriptions for each in said.subscriptions.values()]
    names = {name for said in descriptions for name in said.names}
    events = _events([each.delivery.event for each in taken], names)
    schemas = Schemas([CloudEvent, *events])
    versions = ", ".join(sorted({said.version for said in descriptions}))
    info = {"title": title or descriptions[0].name, "version": versions}
    summary = "\n".join(f"{said.name}: {said.summary}" for said in descriptions if said.summary)
    if summary:
        info["description"] = descriptions[0].summary if len(descriptions) == 1 else summary
    whole: dict[str, Any] = as_json(
        {
            "asyncapi": "3.0.0",
            "info": info,
            "defaultContentType": CONTENT_TYPE,
            "channels": _channels(events),
            "operations": dict(sorted(_operations(descriptions, events))),
            "components": {
                "messages": {_type(event): _message(event, schemas) for event in events},
                "schemas": {name: _draft_07(schema) for name, schema in schemas.components.items()},
            },
        }
    )
    return whole


def _events(subscribed: Iterable[type[Event]], services: set[str]) -> list[type[Event]]:
    """One class for each topic and version, sorted: that which is subscribed to, else the first by its name."""
    published = [each for each in _loaded(Event) if _publisher(each) in services]
    found: dict[tuple[str, int], type[Event]] = {}
    for each in [*subscribed, *sorted(published, key=lambda cls: (cls.__module__, cls.__qualname__))]:
        found.setdefault((each.topic, each.version), each)
    return [event for _, event in sorted(found.items())]


def _loaded(cls: type[Event]) -> Iterator[type[Event]]:
    for each in cls.__subclasses__():
        yield each
        yield from _loaded(each)


def _publisher(event: type[Event]) -> str:
    return event.topic.partition(".")[0]


def _type(event: type[Event]) -> str:
    """What CloudEvents calls it."""
    return f"{event.topic}.v{event.version}"


def _channels(events: Sequence[type[Event]]) -> dict[str, Any]:
    channels: dict[str, Any] = {}
    for event in events:
        channel = channels.setdefault(event.topic, {"address": event.topic, "messages": {}})
        channel["messages"][f"v{event.version}"] = {"$ref": f"#/components/messages/{_type(event)}"}
    return channels


def _operations(descriptions: Sequence[Description], events: Sequence[type[Event]]) -> Iterator[tuple[str, Any]]:
    for said in descriptions:
        for subscription in said.subscriptions.values():
            operation, event = subscription.operation, subscription.delivery.event
            entry = _operation("receive", said.name, event.topic, [event])
            if operation.summary:
                entry["summary"] = operation.summary
            if operation.description:
                entry["description"] = operation.description
            yield subscription.group, entry
        topics = sorted({event.topic for event in events if _publisher(event) in said.names})
        for topic in topics:
            sent = [event for event in events if event.topic == topic]
            yield f"{topic}.publish", _operation("send", said.name, topic, sent)


def _operation(action: str, service: str, topic: str, events: Sequence[type[Event]]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic}"},
        "messages": [{"$ref": f"#/channels/{topic}/messages/v{event.version}"} for event in events],
        "tags": [{"name": service}],
    }


def _message(event: type[Event], schemas: Schemas) -> dict[str, Any]:
    said = _draft_07(schemas.of(CloudEvent)), _draft_07(schemas.of(event))
    data = {"type": {"const": _type(event)}, "data": said[1]}
    message = {
        "name": _type(event),
        "title": event.__name__,
        "contentType": CONTENT_TYPE,
        "payload": {"allOf": [said[0], {"type": "object", "properties": data, "required": ["data"]}]},
    }
    summary = (event.__doc__ or "").strip().partition("\n")[0]
    return message | ({"summary": summary} if summary else {})


def _draft_07(schema: Schema) -> Schema:
    """The same in the words of draft 07: positions are `items`, and nothing counts beside a reference.

    A discriminator is left out: OpenAPI's is another one than AsyncAPI's, and the tags tell structs apart without it.
    """
    said = {name: _inner(name, value) for name, value in schema.items() if name != "discriminator"}
    if "prefixItems" in said:
        said["items"] = said.pop("prefixItems")
    if "$ref" in said and len(said) > 1:
        said["allOf"] = [{"$ref": said.pop("$ref")}]
    return said


def _inner(name: str, value: Any) -> Any:
    """What a schema says under a name: other schemas, or something else."""
    if name in ("anyOf", "allOf", "prefixItems"):
        return [_draft_07(each) for each in value]
    if name == "properties":
        return {each: _draft_07(inner) for each, inner in value.items()}
    return _draft_07(value) if isinstance(value, dict) and name in _HOLD_SCHEMAS else value


_HOLD_SCHEMAS = frozenset(("items", "additionalProperties", "propertyNames"))
