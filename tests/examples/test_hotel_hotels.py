"""The catalogue and its search."""

from __future__ import annotations

import runpy
from datetime import date, timedelta
from xml.etree import ElementTree

import msgspec
import pytest
from hotel.catalogue import Catalogue, City, Hotel, Offer, Offers, RoomKind, Search, offers
from hotel.hotels import Hotels
from hotel.photo import draw
from hotel.reservations import Guest, Hold, Reservation, Reservations
from hotel.words import Stay, StayNotPossible

from ropewalk import NotFound, Unavailable

MAY = date(2026, 5, 10)


def room(kind: str = "double", price: int = 10000, sleeps: int = 2, count: int = 3) -> RoomKind:
    return RoomKind(kind, f"{kind} room", sleeps, count, price)


def hotel(number: int, *rooms: RoomKind, **changes) -> Hotel:
    facts = {
        "name": f"House {number}",
        "city": "Vienna",
        "country": "Austria",
        "district": "Wieden",
        "latitude": 48.2,
        "longitude": 16.4,
        "stars": 3,
        "score": 8.0,
        "description": "A house.",
        "amenities": ("wifi",),
        "currency": "EUR",
        **changes,
    }
    return Hotel(id=number, room_kinds=rooms or (room(),), **facts)


def search(**changes) -> Search:
    return Search(**{"city": "Vienna", "arrival": MAY, **changes})


def found(hotels: list[Hotel], wanted: Search, taken=None) -> list[int]:
    return [offer.hotel.id for offer in offers(Catalogue((), hotels).matching(wanted), wanted, taken).offers]


# -- the search, as a pure function


@pytest.mark.parametrize("city", ["Kraków", "krakow", " KRAKÓW "])
def test_a_city_is_found_however_it_is_written(city):
    assert found([hotel(1, city="Kraków"), hotel(2)], search(city=city)) == [1]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"stars": 4}, [2, 3]),
        ({"stars": 5}, [3]),
        ({"amenities": ("pool",)}, [2, 3]),
        ({"amenities": ("pool", "wifi")}, [3]),
        ({"max_price": 9999}, []),
        ({"max_price": 10000}, [1]),
        ({"max_price": 15000}, [1, 2]),
        ({"guests": 3}, [3]),
        ({"guests": 3, "max_price": 20000}, []),
        ({"city": "Atlantis"}, []),
    ],
)
def test_a_hotel_is_found_when_it_has_what_was_asked_for(wanted, expected):
    hotels = [
        hotel(1, amenities=("wifi",)),
        hotel(2, room(price=15000), stars=4, amenities=("pool",)),
        hotel(3, room(price=20000), room("suite", price=30000, sleeps=4), stars=5, amenities=("pool", "wifi")),
    ]

    assert sorted(found(hotels, search(**wanted))) == expected


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("recommended", [3, 1, 2]),
        ("price", [2, 3, 1]),
        ("price-down", [1, 2, 3]),
        ("stars", [1, 2, 3]),
        ("name", [2, 1, 3]),
    ],
)
def test_each_order_ends_with_the_number(sort, expected):
    hotels = [
        hotel(1, room(price=30000), stars=5, score=8.0, name="Émile"),
        hotel(2, room(price=10000), stars=3, score=7.0, name="anna"),
        hotel(3, room(price=10000), stars=3, score=9.0, name="Zoe"),
    ]

    assert found(hotels, search(sort=sort)) == expected


def test_an_offer_is_the_cheapest_room_that_suits_and_costs_every_night():
    house = hotel(1, room("single", 5000, 1), room("double", 9000, 2), room("suite", 20000, 3))

    page = offers([house], search(nights=3, guests=2), {})

    assert page == Offers((Offer(house, room("double", 9000, 2), 27000, 3),), 1, 1, 1, 3)


def test_a_room_that_is_sold_out_gives_way_to_the_next_and_a_full_hotel_is_not_found():
    house = hotel(1, room("double", 9000, count=2), room("suite", 20000, count=1))

    assert offers([house], search(), {(1, "double"): 1}).offers[0].left == 1
    assert offers([house], search(), {(1, "double"): 2}).offers[0].room.kind == "suite"
    assert offers([house], search(), {(1, "double"): 2, (1, "suite"): 1}).offers == ()


def test_when_nobody_knows_what_is_taken_everything_is_offered_and_the_rooms_left_are_not_told():
    assert offers([hotel(1)], search(), None).offers[0].left is None


def test_pages_follow_each_other_without_a_gap():
    hotels = [hotel(number) for number in range(1, 6)]

    pages = [offers(hotels, search(page=page, per_page=2), {}) for page in (1, 2, 3, 4)]

    assert [[offer.hotel.id for offer in page.offers] for page in pages] == [[1, 2], [3, 4], [5], []]
    assert [(page.total, page.page, page.pages) for page in pages] == [(5, 1, 3), (5, 2, 3), (5, 3, 3), (5, 4, 3)]


def test_a_catalogue_with_one_number_twice_is_refused():
    with pytest.raises(ValueError, match=r"stand twice: \[1\]"):
        Catalogue((), [hotel(1), hotel(1), hotel(2)])


def test_a_city_with_more_hotels_than_one_question_can_ask_about_is_refused():
    with pytest.raises(ValueError, match="at most 200 hotels; vienna has 201"):
        Catalogue((), [hotel(number) for number in range(1, 202)])


def test_a_wrong_data_file_is_refused_with_the_place():
    with pytest.raises(msgspec.ValidationError, match=r"\$.hotels"):
        Catalogue.of_json(b'{"cities": [], "hotels": [{"id": 1}]}')


# -- the data


def test_the_hotels_are_what_the_script_writes(example):
    data = example / "data"

    assert runpy.run_path(str(data / "generate.py"))["text"]() == (data / "hotels.json").read_text("utf-8")


def test_the_hotels_make_sense(example):
    catalogue = Catalogue.of_json((example / "data" / "hotels.json").read_bytes())
    hotels = [catalogue.hotel(number) for number in range(1, 321)]

    assert len({each.name for each in hotels}) == 320
    assert {each.city for each in hotels} == {city.name for city in catalogue.cities}
    assert {each.currency for each in hotels} == {"EUR"}
    for each in hotels:
        prices = [kind.price for kind in each.room_kinds]
        assert prices == sorted(prices)
        assert len({kind.kind for kind in each.room_kinds}) == len(each.room_kinds)
        assert all(kind.count >= 1 for kind in each.room_kinds)
        assert each.room_kind("double").sleeps == 2
    for guests in range(1, 9):
        assert any(each.suiting(guests) for each in hotels)


def test_every_picture_is_an_svg_that_can_be_parsed(example):
    catalogue = Catalogue.of_json((example / "data" / "hotels.json").read_bytes())

    for number in range(1, 321):
        each = catalogue.hotel(number)
        picture = draw(each.id, each.stars, each.name)
        assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
        assert picture == draw(each.id, each.stars, each.name)


def test_a_picture_names_the_hotel_whatever_its_name_is():
    picture = ElementTree.fromstring(draw(1, 3, '"><script>&'))

    assert picture.attrib["aria-label"] == '"><script>&'


# -- the service


def test_a_search_tells_the_rooms_left(house):
    page = house.play(house.client(Hotels).search(search(city="lisbon", sort="price", per_page=1)))

    (offer,) = page.offers
    assert offer.hotel.city == "Lisbon"
    assert offer.left == offer.room.count
    assert offer.total == offer.room.price
    assert page.pages == page.total


@pytest.fixture
def lisbon(house):
    """What is left of the cheapest room of Lisbon, as the search tells it: `lisbon()`."""

    def tell() -> Offer:
        return house.play(house.client(Hotels).search(search(city="Lisbon", sort="price", per_page=1))).offers[0]

    return tell


@pytest.fixture
def hold(house, lisbon, as_user):
    """Somebody holds that room for three nights from `arrival`: `hold(arrival)`."""
    offer = lisbon()

    def one(arrival: date) -> Reservation:
        stay = Stay(offer.hotel.id, offer.room.kind, arrival, 3, 1)
        held = Hold(stay, Guest("Ann", "ann@example.org"))
        return house.play(as_user("ann", lambda: house.client(Reservations).hold(held)))

    return one


def test_the_search_follows_what_is_taken_and_given_back(house, lisbon, hold):
    before = lisbon().left

    one, _ = hold(MAY), hold(MAY - timedelta(2))
    house.pass_time(1.0)
    full = lisbon().left
    house.play(house.client(Reservations).release(one.id))
    house.pass_time(1.0)

    assert (before - 2, before - 1) == (full, lisbon().left)


def test_what_was_given_back_is_found_once_though_it_is_told_twice(house, lisbon, hold):
    before = lisbon().left
    one = hold(MAY)

    house.play(house.client(Reservations).release(one.id))
    house.play(house.client(Reservations).release(one.id))
    house.pass_time(1.0)

    assert before == lisbon().left


def test_a_search_is_answered_as_it_was_while_the_reservations_are_down(house, lisbon, hold):
    before = lisbon().left
    hold(MAY)
    house.pass_time(1.0)

    house.cut.add("reservations")

    assert before - 1 == lisbon().left


def test_a_search_does_without_the_rooms_left_when_its_copy_cannot_be_read(house, lisbon, monkeypatch):
    async def away(*_: object) -> None:
        raise Unavailable("The database of hotels cannot be used.")

    monkeypatch.setattr(house.services["hotels"]._database, "run", away)

    assert lisbon().left is None


def test_a_search_beyond_the_calendar_is_a_conflict(house):
    for arrival in (date(3000, 1, 1), date.max):
        with pytest.raises(StayNotPossible):
            house.play(house.client(Hotels).search(search(arrival=arrival, nights=30)))


def test_the_cities_are_listed_by_name(house):
    cities = house.play(house.client(Hotels).cities())

    assert cities[0] == City("Amsterdam", "Netherlands", 52.372, 4.894, 20)
    assert [city.name for city in cities] == sorted(city.name for city in cities)
    assert len(cities) == 16


def test_a_hotel_is_read_by_its_number(house):
    hotels = house.client(Hotels)

    read = house.play(hotels.read(7))

    assert read.id == 7
    assert house.play(hotels.room_kinds(7)) == list(read.room_kinds)
    assert all(kind.sleeps >= 3 for kind in house.play(hotels.room_kinds(7, guests=3)))


def test_a_number_that_no_hotel_has_is_not_found(house):
    hotels = house.client(Hotels)

    for call in (hotels.read(321), hotels.room_kinds(2**31 - 1), hotels.photo(999)):
        with pytest.raises(NotFound, match="There is no hotel"):
            house.play(call)


def test_a_photo_is_an_svg_that_may_be_kept_for_a_day(house):
    read = house.play(house.client(Hotels).read(5))

    answer = house.play(house.client(Hotels).photo(5))

    assert (answer.status, answer.body) == (200, draw(5, read.stars, read.name).encode())
    assert list(answer.headers) == [("content-type", "image/svg+xml"), ("cache-control", "public, max-age=86400")]
