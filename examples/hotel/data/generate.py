"""Writes hotels.json: `python generate.py`. The same file each time, from one seed; see README.rst.

The cities and their districts are real places with approximate coordinates. Everything else is invented.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

SEED = 1894
HOTELS = 20  # in each city

# city, country, latitude, longitude, price level in percent, districts with latitude and longitude
CITIES: list[tuple[str, str, float, float, int, list[tuple[str, float, float]]]] = [
    ("Amsterdam", "Netherlands", 52.372, 4.894, 128, [
        ("Jordaan", 52.374, 4.880), ("De Pijp", 52.355, 4.894), ("Oud-West", 52.366, 4.871),
        ("Plantage", 52.366, 4.913), ("Noord", 52.391, 4.917),
    ]),
    ("Athens", "Greece", 37.984, 23.728, 82, [
        ("Plaka", 37.972, 23.730), ("Monastiraki", 37.976, 23.725), ("Kolonaki", 37.978, 23.742),
        ("Koukaki", 37.963, 23.724), ("Psiri", 37.979, 23.723),
    ]),
    ("Barcelona", "Spain", 41.388, 2.170, 108, [
        ("El Born", 41.385, 2.183), ("Eixample", 41.393, 2.163), ("Gràcia", 41.403, 2.156),
        ("Poble-sec", 41.373, 2.163), ("Barceloneta", 41.380, 2.189),
    ]),
    ("Berlin", "Germany", 52.520, 13.405, 96, [
        ("Mitte", 52.523, 13.402), ("Kreuzberg", 52.498, 13.403), ("Prenzlauer Berg", 52.539, 13.424),
        ("Charlottenburg", 52.505, 13.304), ("Friedrichshain", 52.516, 13.454),
    ]),
    ("Brussels", "Belgium", 50.847, 4.352, 94, [
        ("Sablon", 50.840, 4.356), ("Ixelles", 50.833, 4.366), ("Saint-Gilles", 50.826, 4.345),
        ("Sainte-Catherine", 50.851, 4.347), ("European Quarter", 50.843, 4.382),
    ]),
    ("Budapest", "Hungary", 47.498, 19.040, 74, [
        ("Belváros", 47.495, 19.053), ("Erzsébetváros", 47.500, 19.069), ("Castle District", 47.502, 19.032),
        ("Újlipótváros", 47.517, 19.052), ("Józsefváros", 47.490, 19.073),
    ]),
    ("Copenhagen", "Denmark", 55.676, 12.568, 132, [
        ("Indre By", 55.681, 12.578), ("Vesterbro", 55.669, 12.550), ("Nørrebro", 55.690, 12.553),
        ("Østerbro", 55.705, 12.577), ("Christianshavn", 55.673, 12.592),
    ]),
    ("Florence", "Italy", 43.770, 11.256, 104, [
        ("Duomo", 43.773, 11.256), ("Oltrarno", 43.766, 11.247), ("Santa Croce", 43.769, 11.262),
        ("San Marco", 43.778, 11.259), ("Santa Maria Novella", 43.775, 11.249),
    ]),
    ("Hamburg", "Germany", 53.551, 9.994, 98, [
        ("HafenCity", 53.541, 9.999), ("St. Pauli", 53.553, 9.962), ("Altona", 53.550, 9.935),
        ("St. Georg", 53.556, 10.013), ("Eimsbüttel", 53.575, 9.957),
    ]),
    ("Kraków", "Poland", 50.062, 19.938, 66, [
        ("Stare Miasto", 50.062, 19.937), ("Kazimierz", 50.051, 19.945), ("Podgórze", 50.044, 19.954),
        ("Kleparz", 50.069, 19.943), ("Zwierzyniec", 50.056, 19.915),
    ]),
    ("Lisbon", "Portugal", 38.722, -9.139, 92, [
        ("Alfama", 38.712, -9.130), ("Baixa", 38.711, -9.137), ("Chiado", 38.710, -9.142),
        ("Príncipe Real", 38.717, -9.149), ("Belém", 38.697, -9.206),
    ]),
    ("Madrid", "Spain", 40.417, -3.704, 97, [
        ("Malasaña", 40.427, -3.704), ("Chueca", 40.423, -3.697), ("La Latina", 40.411, -3.711),
        ("Salamanca", 40.428, -3.682), ("Lavapiés", 40.409, -3.702),
    ]),
    ("Paris", "France", 48.857, 2.352, 140, [
        ("Le Marais", 48.859, 2.361), ("Montmartre", 48.887, 2.339), ("Saint-Germain-des-Prés", 48.854, 2.334),
        ("Canal Saint-Martin", 48.872, 2.364), ("Latin Quarter", 48.849, 2.347),
    ]),
    ("Prague", "Czechia", 50.088, 14.421, 76, [
        ("Staré Město", 50.087, 14.421), ("Malá Strana", 50.088, 14.404), ("Vinohrady", 50.076, 14.448),
        ("Žižkov", 50.084, 14.453), ("Holešovice", 50.104, 14.437),
    ]),
    ("Rome", "Italy", 41.893, 12.483, 112, [
        ("Trastevere", 41.888, 12.470), ("Monti", 41.895, 12.493), ("Prati", 41.908, 12.463),
        ("Testaccio", 41.876, 12.476), ("Campo de' Fiori", 41.896, 12.472),
    ]),
    ("Vienna", "Austria", 48.208, 16.373, 101, [
        ("Innere Stadt", 48.208, 16.372), ("Leopoldstadt", 48.217, 16.396), ("Neubau", 48.203, 16.349),
        ("Wieden", 48.192, 16.369), ("Josefstadt", 48.211, 16.347),
    ]),
]  # fmt: skip

ADJECTIVES = (
    "Amber Blue Copper Crooked Golden Green Hidden Idle Ivory Lantern-Lit Merry Old Painted Patient Quiet Red Salted "
    "Silver Slanted Sleeping Small Sunlit Tall Velvet Wandering White Winter Yellow"
).split()
NOUNS = (
    "Almond Anchor Balcony Bell Birch Canary Chestnut Compass Courtyard Cricket Fig Gable Harbour Hare Heron Kettle "
    "Ladder Lemon Linden Magpie Mill Orchard Otter Pear Quill Ribbon Sparrow Spindle Staircase Swallow Teapot Thimble "
    "Trellis Turret Violin Weathervane Willow"
).split()
NAMES = (
    "Adelina Alvara Aurelio Belvoir Calista Corvina Delmare Doriana Elysara Fiorenza Galatea Halcyon Isolde Larkspur "
    "Lucenda Marenne Mirabeau Novalis Odessia Orfeo Palladia Quintana Rosalba Serafin Solange Tiberine Umbria Valmore "
    "Verano Zephyrine"
).split()

# What a house of so many stars is called; {n} an adjective and noun, {p} a proper name, {d} its district.
PATTERNS = {
    1: ["Hostel {n}", "The {n} Hostel", "Pension {p}", "{d} Backpackers"],
    2: ["Pension {p}", "The {n} Inn", "{p} Guesthouse", "Hotel {n}"],
    3: ["Hotel {p}", "The {n}", "{n} House", "{d} Rooms", "Hotel {n}"],
    4: ["Hotel {p}", "The {n} Hotel", "Residence {p}", "Casa {p}", "{p} {d}"],
    5: ["Grand Hotel {p}", "{p} Palace", "The {p}", "{p} Hotel & Spa"],
}
STARS = [1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5]  # drawn from: few houses at either end
SCORE = {1: 71, 2: 76, 3: 81, 4: 86, 5: 91}  # tenths, around which guests judge

# kind: its name, beds, price in percent of a double's, how many rooms (from, to), the stars that have it
KINDS: list[tuple[str, str, int, int, tuple[int, int], range]] = [
    ("dormitory", "Private dormitory", 8, 165, (1, 3), range(1, 2)),
    ("single", "Single room", 1, 70, (2, 8), range(1, 5)),
    ("double", "Double room", 2, 100, (6, 30), range(1, 6)),
    ("twin", "Twin room", 2, 104, (4, 16), range(2, 5)),
    ("family", "Family room", 4, 158, (2, 8), range(2, 6)),
    ("superior", "Superior double", 2, 135, (3, 12), range(3, 6)),
    ("suite", "Suite with a sitting room", 3, 210, (1, 6), range(4, 6)),
    ("apartment", "Apartment with a kitchen", 6, 240, (1, 4), range(3, 6)),
    ("penthouse", "Penthouse with a terrace", 8, 520, (1, 1), range(5, 6)),
]
BASE = {1: 4200, 2: 6800, 3: 10500, 4: 15800, 5: 29500}  # a double for a night in cents, at a price level of 100

# amenity: the chance in percent that a house of one to five stars has it
AMENITIES = {
    "accessible": (20, 35, 50, 70, 90),
    "air-conditioning": (10, 30, 60, 90, 100),
    "airport-shuttle": (0, 5, 10, 30, 60),
    "bar": (40, 30, 50, 80, 100),
    "breakfast": (30, 60, 75, 90, 100),
    "ev-charging": (0, 5, 15, 40, 70),
    "garden": (15, 25, 25, 30, 50),
    "gym": (0, 5, 20, 60, 95),
    "parking": (10, 25, 35, 55, 85),
    "pets": (40, 45, 40, 35, 30),
    "pool": (0, 2, 8, 30, 70),
    "restaurant": (5, 15, 30, 65, 100),
    "spa": (0, 0, 5, 25, 80),
    "wifi": (95, 97, 99, 100, 100),
}

# One of the first, which needs nothing, then one for an amenity the house has.
SETTINGS = [
    "A {size} house in {district}, {walk} minutes on foot from the nearest station.",
    "{rooms} rooms behind a {colour} front in {district}.",
    "A {size} house of {rooms} rooms on a side street of {district}.",
    "{rooms} rooms around a {yard} in {district}, {walk} minutes from the next tram stop.",
]
PRAISE = {
    "breakfast": "Breakfast is served until half past ten.",
    "garden": "The garden is open to guests from spring to autumn.",
    "pool": "The pool is heated all year.",
    "spa": "The spa has a sauna and two treatment rooms.",
    "bar": "The bar is open until midnight.",
    "restaurant": "The restaurant cooks with what the market has that day.",
    "parking": "Cars are parked in the house's own garage.",
    "pets": "Dogs and cats are welcome in every room.",
    "gym": "The gym is open around the clock.",
}


def main() -> None:
    """Write hotels.json beside this file."""
    Path(__file__).with_name("hotels.json").write_text(text(), encoding="utf-8")


def text() -> str:
    """What hotels.json holds: an object of cities and hotels, one a line."""
    cities = [
        {"name": name, "country": country, "latitude": latitude, "longitude": longitude, "hotels": HOTELS}
        for name, country, latitude, longitude, _, _ in CITIES
    ]
    return f'{{"cities": [\n{_lines(cities)}\n], "hotels": [\n{_lines(hotels(Random(SEED)))}\n]}}\n'


def _lines(values: list[dict[str, Any]]) -> str:
    return ",\n".join(json.dumps(value, ensure_ascii=False) for value in values)


def hotels(random: Random) -> list[dict[str, Any]]:
    """Every hotel, by city, numbered from 1."""
    names: set[str] = set()
    found = []
    for city, country, _, _, level, districts in CITIES:
        for _ in range(HOTELS):
            found.append(_hotel(random, len(found) + 1, city, country, level, random.choice(districts), names))
    return found


def _hotel(
    random: Random,
    number: int,
    city: str,
    country: str,
    level: int,
    district: tuple[str, float, float],
    names: set[str],
) -> dict[str, Any]:
    place, latitude, longitude = district
    stars = random.choice(STARS)
    amenities = [name for name, chances in AMENITIES.items() if random.randrange(100) < chances[stars - 1]]
    kinds = _room_kinds(random, stars, level)
    return {
        "id": number,
        "name": _name(random, stars, place, names),
        "city": city,
        "country": country,
        "district": place,
        "latitude": round(latitude + random.uniform(-0.004, 0.004), 4),  # some four hundred metres
        "longitude": round(longitude + random.uniform(-0.006, 0.006), 4),
        "stars": stars,
        "score": max(55, min(98, round(random.gauss(SCORE[stars], 4)))) / 10,
        "description": _description(random, place, sum(kind["count"] for kind in kinds), amenities),
        "amenities": amenities,
        "room_kinds": kinds,
        "currency": "EUR",
    }


def _name(random: Random, stars: int, district: str, names: set[str]) -> str:
    while True:
        name = random.choice(PATTERNS[stars]).format(
            n=f"{random.choice(ADJECTIVES)} {random.choice(NOUNS)}", p=random.choice(NAMES), d=district
        )
        if name not in names:
            names.add(name)
            return name


def _room_kinds(random: Random, stars: int, level: int) -> list[dict[str, Any]]:
    double = BASE[stars] * level * random.randint(85, 120) // 10_000
    kinds = []
    for kind, name, sleeps, percent, (fewest, most), houses in KINDS:
        if stars in houses and (kind == "double" or random.randrange(100) < 65):
            price = double * percent * random.randint(96, 104) // 10_000
            price = price // 100 * 100 + 90  # 128.90: whole units less ten cents, as price lists have them
            count = random.randint(fewest, most)
            kinds.append({"kind": kind, "name": name, "sleeps": sleeps, "count": count, "price": price})
    return sorted(kinds, key=lambda each: (each["price"], each["kind"]))


def _description(random: Random, district: str, rooms: int, amenities: list[str]) -> str:
    setting = random.choice(SETTINGS).format(
        district=district,
        rooms=rooms,
        size="small" if rooms < 25 else "large" if rooms > 45 else "mid-sized",
        walk=random.randint(2, 12),
        colour=random.choice(["brick", "sandstone", "whitewashed", "tiled", "pale yellow", "grey stone"]),
        yard=random.choice(["paved courtyard", "glass-roofed courtyard", "courtyard with an old plane tree"]),
    )
    praised = [PRAISE[name] for name in amenities if name in PRAISE]
    return f"{setting} {random.choice(praised)}" if praised else setting


if __name__ == "__main__":
    main()
