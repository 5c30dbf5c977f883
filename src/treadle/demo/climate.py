"""The typical weather of big cities by month, for the demo agent.

Mean daily temperatures in °C, rounded, of January, April, July and October; the months between
are interpolated.
"""

from datetime import date
from typing import NamedTuple


class Climate(NamedTuple):
    """Mean temperatures of January, April, July and October, and the usual sky."""

    temperatures: tuple[int, int, int, int]
    sky: str


_CLIMATES = {
    "Amsterdam": Climate((4, 10, 18, 11), "cloudy with showers"),
    "Athens": Climate((10, 16, 29, 19), "mostly sunny"),
    "Bangkok": Climate((27, 31, 29, 28), "hot and humid"),
    "Barcelona": Climate((10, 14, 24, 18), "mostly sunny"),
    "Beijing": Climate((-3, 14, 27, 13), "dry and hazy"),
    "Berlin": Climate((1, 10, 20, 10), "partly cloudy"),
    "Buenos Aires": Climate((25, 18, 11, 17), "mild, some rain"),
    "Cairo": Climate((14, 22, 29, 25), "clear and dry"),
    "Cape Town": Climate((21, 17, 13, 17), "windy and bright"),
    "Chicago": Climate((-4, 10, 24, 12), "windy, partly cloudy"),
    "Copenhagen": Climate((1, 7, 18, 10), "cloudy"),
    "Delhi": Climate((14, 29, 31, 26), "hazy"),
    "Dubai": Climate((19, 27, 36, 30), "clear and hot"),
    "Dublin": Climate((5, 9, 16, 11), "showers"),
    "Helsinki": Climate((-4, 4, 18, 6), "cloudy"),
    "Hong Kong": Climate((16, 23, 29, 26), "humid"),
    "Istanbul": Climate((6, 12, 24, 17), "partly cloudy"),
    "Jakarta": Climate((27, 28, 28, 29), "humid with thunderstorms"),
    "Lagos": Climate((28, 29, 26, 27), "humid"),
    "Lima": Climate((23, 21, 17, 17), "overcast"),
    "Lisbon": Climate((11, 15, 23, 18), "mostly sunny"),
    "London": Climate((6, 10, 19, 12), "cloudy with showers"),
    "Los Angeles": Climate((14, 16, 22, 20), "sunny"),
    "Madrid": Climate((6, 13, 26, 15), "dry and sunny"),
    "Melbourne": Climate((21, 16, 10, 15), "changeable"),
    "Mexico City": Climate((14, 19, 18, 17), "mild, afternoon rain"),
    "Moscow": Climate((-6, 7, 20, 6), "cloudy"),
    "Mumbai": Climate((24, 28, 28, 28), "humid"),
    "Munich": Climate((0, 9, 19, 10), "partly cloudy"),
    "Nairobi": Climate((20, 20, 17, 20), "mild"),
    "New York": Climate((1, 12, 25, 14), "partly cloudy"),
    "Oslo": Climate((-3, 6, 18, 7), "partly cloudy"),
    "Paris": Climate((5, 12, 21, 13), "partly cloudy, light rain"),
    "Prague": Climate((0, 10, 20, 10), "partly cloudy"),
    "Rio de Janeiro": Climate((27, 25, 22, 24), "humid, showers"),
    "Rome": Climate((8, 14, 26, 18), "mostly sunny"),
    "San Francisco": Climate((11, 13, 16, 16), "fog in the morning"),
    "Seoul": Climate((-2, 13, 26, 15), "partly cloudy"),
    "Shanghai": Climate((5, 16, 29, 19), "humid"),
    "Singapore": Climate((27, 28, 28, 28), "thunderstorms"),
    "Stockholm": Climate((-1, 6, 19, 8), "partly cloudy"),
    "Sydney": Climate((23, 19, 13, 18), "sunny"),
    "Tokyo": Climate((5, 15, 26, 18), "partly cloudy"),
    "Toronto": Climate((-4, 8, 22, 11), "partly cloudy"),
    "Vienna": Climate((1, 11, 21, 11), "partly cloudy"),
    "Warsaw": Climate((-1, 9, 20, 10), "cloudy"),
    "Zurich": Climate((1, 9, 19, 11), "partly cloudy"),
}
_BY_NAME = {name.casefold(): name for name in _CLIMATES}


def typical_weather(city: str, day: date) -> dict[str, str | int]:
    """Returns the typical weather of `city` in the month of `day`.

    Raises `ValueError` for a city that is not in the table.
    """
    name = _BY_NAME.get(city.strip().casefold())
    if name is None:
        some = ", ".join(list(_CLIMATES)[::6])
        raise ValueError(f"The city {city[:100]!r} is not in the table, which has {some}, …")
    climate = _CLIMATES[name]
    return {
        "city": name,
        "temperature_celsius": _in_month(climate.temperatures, day.month),
        "sky": climate.sky,
        "note": f"typical for {day:%B}, not a measurement",
    }


def _in_month(temperatures: tuple[int, int, int, int], month: int) -> int:
    quarter, rest = divmod(month - 1, 3)
    before, after = temperatures[quarter], temperatures[(quarter + 1) % 4]
    return round(before + (after - before) * rest / 3)
