"""Facts about the compiled URL map: whatever it answers, Werkzeug answers too; what is in doubt it leaves to Werkzeug."""

from __future__ import annotations

from random import Random

import pytest
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect, Rule

from ropewalk.engine.router import Router

CONVERTERS = (
    "<v>", "<int:v>", "<float:v>", "<uuid:v>", "<path:v>", "<any(a,b):v>", "<string(length=2):v>", "<int(max=5):v>",
    "<string(minlength=2):v>", "v<int:v>", "<v>.txt",
)  # fmt: skip
SEGMENTS = ("a", "b", "7", "v7", "ab", "a.txt", "1.5", "12345678-1234-5678-1234-567812345678", "%61", "")


def drawn_map(random: Random) -> Map:
    """A map of few rules that claim each other's paths."""
    rules = []
    for number in range(random.randint(1, 6)):
        parts = [random.choice((*"abab", *CONVERTERS)) for _ in range(random.randint(0, 3))]
        named = [part.replace("v>", f"v{at}>") for at, part in enumerate(parts)]
        rule = ("/" + "/".join(named) + random.choice(("", "", "/"))).replace("//", "/")
        methods = random.choice((None, ["GET"], ["POST"]))
        rules.append(Rule(rule, endpoint=number, methods=methods, strict_slashes=random.choice((None, True, False))))
    return Map(rules)


def drawn_path(random: Random) -> str:
    return "/" + "/".join(random.choices(SEGMENTS, k=random.randint(0, 4))) + random.choice(("", "", "/"))


def by_werkzeug(url_map: Map, method: str, path: str) -> object:
    try:
        return url_map.bind("host").match(path, method=method)
    except (RequestRedirect, HTTPException) as error:
        return type(error)


@pytest.mark.parametrize("seed", range(20))
def test_what_it_finds_werkzeug_finds(seed):
    random, found = Random(seed), 0

    for _ in range(60):
        url_map = drawn_map(random)
        router = Router(url_map)
        for _ in range(30):
            method, path = random.choice(("GET", "POST", "HEAD")), drawn_path(random)
            answer = router.find(method.encode(), path.encode())
            if answer is not None:
                found += 1
                rules = [(rule.rule, rule.methods, rule.strict_slashes) for rule in url_map.iter_rules()]
                assert by_werkzeug(url_map, method, path) == answer, (rules, method, path)

    assert found > 20


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        (b"/rooms", ("rooms", {})),
        (b"/rooms?page=2", ("rooms", {})),
        (b"/rooms/7", ("room", {"number": 7})),
        (b"/files/a/b", ("file", {"path": "a/b"})),
        (b"/rooms/", None),  # Werkzeug knows what is to be said of the slash
        (b"//rooms", None),
        (b"/rooms/%37", None),
        (b"/rooms/\xc3\xa9", None),
        (b"/nowhere", None),
        (b"*", None),
    ],
)
def test_it_answers_the_plain_case(target, answer):
    rules = [
        Rule("/rooms", endpoint="rooms"),
        Rule("/rooms/<int:number>", endpoint="room", methods=["GET"]),
        Rule("/files/<path:path>", endpoint="file"),
    ]

    assert answer == Router(Map(rules)).find(b"GET", target)


def test_another_method_is_left_to_werkzeug():
    url_map = Map([Rule("/rooms/<int:number>", endpoint="room", methods=["GET"])])

    assert Router(url_map).find(b"HEAD", b"/rooms/7") == ("room", {"number": 7})
    assert Router(url_map).find(b"POST", b"/rooms/7") is None


@pytest.mark.parametrize(
    "rule",
    [
        Rule("/a", endpoint="a", subdomain="b"),
        Rule("/a", endpoint="a", redirect_to="/b"),
        Rule("/a", endpoint="a", websocket=True),
        Rule("/<any('<', b):v>", endpoint="a"),
    ],
)
def test_a_map_with_a_rule_it_does_not_understand_is_left_to_werkzeug(rule):
    assert Router(Map([rule, Rule("/c", endpoint="c")])).find(b"GET", b"/c") is None
