"""The ticket shop that was plain Klein: how little was added, and that it answers as it did."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Awaitable, Callable, Iterator
from difflib import unified_diff
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import treq
from klein import Klein
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.web.server import Site

from ropewalk.testing import World

HERE = Path(__file__).parents[2] / "examples" / "adopt_klein"

SAID = [  # what is asked of both, one after the other
    ("PUT", "/shows/Cats", {"price": 20, "seats": 3}),
    ("PUT", "/shows/Faust", {"price": 90, "seats": 5}),
    ("GET", "/shows", None),
    ("GET", "/shows/Cats/tickets", None),
    ("POST", "/orders", {"show": "Cats", "guest": "ann", "seats": 2}),
    ("GET", "/orders/1", None),
    ("GET", "/orders/9", None),
    ("POST", "/orders", {"show": "Cats", "guest": "bob", "seats": 2}),  # one is left
    ("POST", "/orders", {"show": "Faust", "guest": "bob", "seats": 2}),  # more than he has
    ("GET", "/orders/2", None),
    ("GET", "/shows", None),
    ("GET", "/shows/Cats/tickets", None),
    ("GET", "/nowhere/1", None),
]

Answer = tuple[int, Any, str]  # status, content type, body


def added() -> list[str]:
    """The lines of `after.py` that are not in `before.py`, blank ones and imports too."""
    before, after = ((HERE / name).read_text("utf-8").splitlines() for name in ("before.py", "after.py"))
    return [line[1:] for line in unified_diff(before, after) if line.startswith("+") and not line.startswith("+++")]


def test_fewer_than_thirty_lines_were_added():
    assert len(added()) < 30, "\n".join(added())


def test_the_readme_shows_the_lines_that_were_added():
    told = {line.strip() for line in (HERE / "README.rst").read_text("utf-8").splitlines()}

    assert [] == [line for line in added() if line and f"+{line}" not in told]


async def answers(ask: Callable[..., Awaitable[Any]], root: str) -> list[Answer]:
    """What is answered to each of `SAID`."""
    said: list[Answer] = []
    for method, path, body in SAID:
        reply = await ask(method, root + path, json=body) if body else await ask(method, root + path)
        said.append((reply.code, reply.headers.getRawHeaders("content-type"), await reply.text()))
    return said


def judged(method: str, path: str, answer: Answer) -> Any:
    """What must not have changed: all of it, and of the operation the status and the value."""
    status, kind, text = answer
    if method != "POST" and not path.startswith("/nowhere"):
        return answer
    return (status, json.loads(text)) if status < 400 else status


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module as it was, and an engine for it."""
    spec = importlib.util.spec_from_file_location("before", HERE / "before.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(treq, "post", partial(treq.post, persistent=False))
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.sqlite3")
    module.metadata.create_all(engine)
    yield module, engine
    engine.dispose()


def bank() -> Klein:
    """The bank, as far as the shop as it was knows it."""
    app = Klein()

    @app.route("/charges", methods=["POST"])
    def charge(request: Any) -> bytes:
        request.setResponseCode(201 if int(request.args[b"amount"][0]) <= 100 else 409)
        return b"null"

    return app


@pytest.fixture
def as_it_is() -> list[Answer]:
    """What the shop answers as it is, in a simulated world."""
    with World(str(HERE / "system.toml"), seed=5) as world:

        async def ask(method: str, url: str, **options: Any) -> Any:
            if url.endswith("/tickets"):
                world.advance(5)  # they are printed a little later
            return await world.http.request(method, url, **options)

        return world.run(answers(ask, "http://shop:8080"))  # type: ignore[no-any-return]


@ensureDeferred
async def test_its_routes_answer_as_they_did(before, as_it_is):
    module, engine = before
    ports = [reactor.listenTCP(0, Site(bank().resource()), interface="127.0.0.1")]
    shop = module.Shop(engine, f"http://127.0.0.1:{ports[0].getHost().port}")
    ports.append(reactor.listenTCP(0, Site(shop.app.resource()), interface="127.0.0.1"))
    try:
        as_it_was = await answers(
            partial(treq.request, persistent=False), f"http://127.0.0.1:{ports[1].getHost().port}"
        )
    finally:
        for port in ports:
            await port.stopListening()

    for (method, path, _), was, now in zip(SAID, as_it_was, as_it_is, strict=True):
        assert judged(method, path, was) == judged(method, path, now), f"{method} {path}"
    assert [200] * 4 + [201, 200, 404, 409, 409, 200, 200, 200, 404] == [status for status, _, _ in as_it_was]
