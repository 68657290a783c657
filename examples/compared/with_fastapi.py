"""Stays: the same service in FastAPI, as its documentation advises. `RATES=http://... fastapi run with_fastapi.py`."""

# -- imports
import os
from contextlib import asynccontextmanager
from datetime import date
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request
from pydantic import BaseModel, Field


# -- the sibling that is called
@asynccontextmanager
async def lifespan(app: FastAPI):
    async with httpx.AsyncClient(base_url=os.environ["RATES"], timeout=10) as client:
        app.state.rates = client
        yield


def rates(request: Request) -> httpx.AsyncClient:
    return request.app.state.rates


# -- types
class Stay(BaseModel):
    room: Annotated[int, Field(ge=1)]
    arrival: date
    nights: Annotated[int, Field(ge=1, le=30)]


class Booked(BaseModel):
    id: int
    stay: Stay
    price: int


# -- an error of its own
class Problem(BaseModel):
    detail: str


# -- the service and what it needs
app = FastAPI(title="stays", version="1.0.0", description="Books stays.", lifespan=lifespan)
booked: list[Booked] = []


# -- write, calling the sibling
@app.post("/stays", status_code=201, responses={409: {"model": Problem}, 503: {"model": Problem}})
async def book(stay: Stay, rates: Annotated[httpx.AsyncClient, Depends(rates)]) -> Booked:
    """Book a stay."""
    if any(b.stay.room == stay.room and b.stay.arrival == stay.arrival for b in booked):
        raise HTTPException(409, f"Room {stay.room} is taken on {stay.arrival}.")
    try:
        reply = await rates.get(f"/rates/{stay.room}", params={"nights": stay.nights})
        reply.raise_for_status()
    except httpx.HTTPError as error:
        raise HTTPException(503, "The price is not known at the moment.") from error
    booked.append(Booked(id=len(booked) + 1, stay=stay, price=reply.json()))
    return booked[-1]


# -- read
@app.get("/stays/{id}", responses={404: {"model": Problem}})
async def read(id: Annotated[int, Path()]) -> Booked:
    """Read one stay."""
    if not 1 <= id <= len(booked):
        raise HTTPException(404, f"There is no stay {id}.")
    return booked[id - 1]


# -- search
@app.get("/stays")
async def search(room: int | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> list[Booked]:
    """List stays."""
    return [b for b in booked if room in (None, b.stay.room)][:limit]
