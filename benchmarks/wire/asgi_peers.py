"""ASGI frameworks, on uvicorn with uvloop and httptools and without an access log, and on Granian.

Annotations are evaluated here: frameworks read them, and names that a function has imported are not found otherwise.
"""

from contextlib import asynccontextmanager
from typing import Any

from .work import Booking, BookingModel


def on_uvicorn(app: Any, port: int) -> None:
    """One worker; uvloop and httptools are what it takes anyway where they are installed."""
    import uvicorn

    uvicorn.run(
        app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )


def fastapi(port: int, _: int) -> None:
    """FastAPI, whose types are pydantic's."""
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/rooms/{number}")
    async def read(number: int) -> dict[str, int]:
        return {"number": number}

    @app.post("/bookings")
    async def book(booking: BookingModel) -> BookingModel:
        return booking

    on_uvicorn(app, port)


def fastapi_gateway(port: int, upstream: int) -> None:
    """FastAPI with a client of httpx, which lives as long as the application."""
    import httpx
    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{upstream}") as client:
            app.state.client = client
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/rooms/{number}")
    async def read(number: int) -> dict[str, int]:
        reply = await app.state.client.get(f"/rooms/{number}")
        reply.raise_for_status()
        return reply.json()

    on_uvicorn(app, port)


def falcon(port: int, _: int) -> None:
    """Falcon, which leaves it to the application to check a body."""
    from falcon.asgi import App

    class Rooms:
        async def on_get(self, request: Any, response: Any, number: int) -> None:
            response.media = {"number": number}

    class Bookings:
        async def on_post(self, request: Any, response: Any) -> None:
            response.media = await request.get_media()

    app = App()
    app.add_route("/rooms/{number:int}", Rooms())
    app.add_route("/bookings", Bookings())
    on_uvicorn(app, port)


def blacksheep(port: int, _: int) -> None:
    """BlackSheep on uvicorn."""
    on_uvicorn(blacksheep_application(), port)


def blacksheep_on_granian(port: int, _: int) -> None:
    """The same on Granian: one worker, on uvloop; it has no access log unless asked for one."""
    from granian import Granian
    from granian.constants import Interfaces, Loops

    Granian(
        f"{__name__}:blacksheep_application",
        factory=True,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        workers=1,
        log_enabled=False,
    ).serve()


def blacksheep_application() -> Any:
    """BlackSheep, with pydantic's types: of a dataclass's fields it would check no bounds.

    It is quicker with replies that are made by its `json` than with those that it makes of what is returned.
    """
    from blacksheep import Application, FromJSON, Response, json

    app = Application()

    @app.router.get("/rooms/{int:number}")
    async def read(number: int) -> Response:
        return json({"number": number})

    @app.router.post("/bookings")
    async def book(booking: FromJSON[BookingModel]) -> Response:
        return json(booking.value.model_dump())

    return app


def litestar(port: int, _: int) -> None:
    """Litestar, whose types are msgspec's."""
    from litestar import Litestar, get, post

    @get("/rooms/{number:int}")
    async def read(number: int) -> dict[str, int]:
        return {"number": number}

    @post("/bookings", status_code=200)
    async def book(data: Booking) -> Booking:
        return data

    on_uvicorn(Litestar([read, book]), port)
