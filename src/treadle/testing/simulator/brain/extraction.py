"""Finds in a clause of plain English what a parameter of a tool asks for.

What a parameter asks for is told by its name: a place, an expression, a path, a time zone, a
number of seconds, a query. All functions return None where the clause does not say.
"""

import re
from collections.abc import Callable, Mapping

_COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen",
    "fifteen sixteen seventeen eighteen nineteen twenty",
)
NUMBER_WORDS: Mapping[str, int] = {
    **{word: number for number, word in enumerate(" ".join(_COUNTED).split(" "))},
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "hundred": 100,
    "thousand": 1000,
}

# Words for arithmetic and the symbols they stand for, in the order of their replacement.
OPERATORS = (
    (r"multiplied by", "*"),
    (r"divided by", "/"),
    (r"(?<=\d)\s*(?:times|x|\u00d7)\s*(?=[\d(])", " * "),
    (r"\bplus\b", "+"),
    (r"\bminus\b", "-"),
    (r"(?<=\d)\s+over\s+(?=\d)", " / "),
    (r"\u00f7", "/"),
    (r"(?:to the power of|\braised to\b|(?<=\d)\s*\^\s*(?=\d))", "**"),
    (r"(?<=\d)\s+squared\b", "**2"),
    (r"(?<=\d)\s+cubed\b", "**3"),
    (r"(?<=\d)\s*(?:%|percent) of\s+(?=\d)", " / 100 * "),
    (r"square root of\s+(\d+(?:\.\d+)?)", r"\1 ** 0.5"),
    (r"sum of (\S+) and (\S+)", r"\1 + \2"),
    (r"product of (\S+) and (\S+)", r"\1 * \2"),
    (r"(?<=\d),(?=\d{3}\b)", ""),
)

ZONES: Mapping[str, str] = {
    "amsterdam": "Europe/Amsterdam",
    "athens": "Europe/Athens",
    "auckland": "Pacific/Auckland",
    "bangkok": "Asia/Bangkok",
    "beijing": "Asia/Shanghai",
    "berlin": "Europe/Berlin",
    "boston": "America/New_York",
    "brussels": "Europe/Brussels",
    "buenos aires": "America/Argentina/Buenos_Aires",
    "cairo": "Africa/Cairo",
    "chicago": "America/Chicago",
    "delhi": "Asia/Kolkata",
    "denver": "America/Denver",
    "dubai": "Asia/Dubai",
    "dublin": "Europe/Dublin",
    "hong kong": "Asia/Hong_Kong",
    "istanbul": "Europe/Istanbul",
    "jakarta": "Asia/Jakarta",
    "johannesburg": "Africa/Johannesburg",
    "lagos": "Africa/Lagos",
    "lisbon": "Europe/Lisbon",
    "london": "Europe/London",
    "los angeles": "America/Los_Angeles",
    "madrid": "Europe/Madrid",
    "melbourne": "Australia/Melbourne",
    "mexico city": "America/Mexico_City",
    "moscow": "Europe/Moscow",
    "mumbai": "Asia/Kolkata",
    "nairobi": "Africa/Nairobi",
    "new york": "America/New_York",
    "oslo": "Europe/Oslo",
    "paris": "Europe/Paris",
    "prague": "Europe/Prague",
    "rome": "Europe/Rome",
    "san francisco": "America/Los_Angeles",
    "sao paulo": "America/Sao_Paulo",
    "são paulo": "America/Sao_Paulo",
    "seattle": "America/Los_Angeles",
    "seoul": "Asia/Seoul",
    "shanghai": "Asia/Shanghai",
    "singapore": "Asia/Singapore",
    "stockholm": "Europe/Stockholm",
    "sydney": "Australia/Sydney",
    "taipei": "Asia/Taipei",
    "tokyo": "Asia/Tokyo",
    "toronto": "America/Toronto",
    "vienna": "Europe/Vienna",
    "warsaw": "Europe/Warsaw",
    "zurich": "Europe/Zurich",
    "zürich": "Europe/Zurich",
}

_UNITS = (("ms", 0.001), ("mil", 0.001), ("m", 60.0), ("h", 3600.0))
_AFTER_PLACE = re.compile(
    r",(?!\s*(?-i:[A-Z]{2})\b).*|\s*\b(?:today|tomorrow|tonight|now|right now|currently|"
    r"please|this|next|at the moment|like|using|with|for me|on|is|and|then|weather|"
    r"forecast|time)\b.*",
    re.IGNORECASE,
)
_CAPITALISED = r"[^\W\d_a-z][\w'\u2019.-]*(?:\s+(?:de|la|del|of|do|los|[^\W\d_a-z][\w'\u2019.-]*))*"
_QUESTION_WORDS = re.compile(
    r"(?:what(?:'?s)?|how|is|it'?s|i|the|and|in|tell|show|give|please|which|where|when|who|can|"
    r"could|would|will|do|does|also|then|get|check|an?|my|compare|wait|search|compute)$",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"^(?:what|how) about\s+", re.IGNORECASE)
_TAKING = re.compile(r"\b(?:for|in|taking)\s+\S+\s+(?:seconds?|minutes?)\b", re.IGNORECASE)
_EXPRESSION = re.compile(r"(?<![\w.])[-+]?[\d(][\d\s.()+\-*/%]*[\d)](?![\w])")
_DATE = re.compile(r"\b\d{4}-\d{1,2}-\d{1,2}\b")
_OPERATOR = re.compile(r"[\d)]\s*(?:\*\*|//|[-+*/%])\s*[-+(\d]")
_QUOTED = re.compile(r"[\"\u201c`']([^\"\u201d`']{1,200})[\"\u201d`'](?!\w)")
_FILE = re.compile(r"(?<![\w@/.])(?:\.{0,2}/)?[\w-][\w./-]*\.[A-Za-z]\w{0,7}\b")
_NAMED_FILE = re.compile(r"\bfile\s+(?:called\s+|named\s+)?([\w./-]+)", re.IGNORECASE)
_READ_NAME = re.compile(r"\b(?:read|open|cat)\s+(?:the\s+)?([A-Z][A-Z_]{2,})\b")
_ZONE = re.compile(r"\b(?:[A-Z][a-z]+/[A-Z]\w+(?:/\w+)?|UTC|GMT)\b")
_SECONDS = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)\b",
    re.IGNORECASE,
)
_TOPIC = re.compile(
    r"\b(?:search(?:ing)?|look(?:ing)?|find|google|research|ask|query|information|news)\b"
    r"(?:\s+\w+ly)?\s+(?:(?:the\s+web|online|it|up|out)\s+)?(?:for\s+|about\s+|on\s+|up\s+)?(.+)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")


def place(clause: str) -> str | None:
    """Finds a place: what follows in, for, at or near, else words that begin with a capital."""
    match = re.search(
        r"\b(?:in|for|at|near|around|about|of)\s+(?:the city of\s+)?(.+)$", clause, re.IGNORECASE
    )
    if match and (name := _place_name(match[1])):
        return name
    for match in re.finditer(_CAPITALISED, clause):
        words = match[0].split()
        while words and _QUESTION_WORDS.match(words[0]):
            words.pop(0)
        if words:
            return re.sub(r"['\u2019]s$", "", " ".join(words))
    return None


def bare_place(clause: str) -> str | None:
    """Reads the whole clause as a place, as in the rest of "Paris, London and Rome"."""
    return place(clause) or _place_name(_ABOUT.sub("", clause))


def _place_name(text: str) -> str | None:
    name = _AFTER_PLACE.sub("", text).strip(" .,;:!?\"'")
    name = re.sub(r"^the\s+(?=[a-z])", "", name)
    if not name or name[0].isdigit() or len(name) > 40 or len(name.split()) > 4:
        return None
    return name.title() if name.islower() else name


def expression(clause: str) -> str | None:
    """Finds an arithmetic expression, in symbols or in simple words."""
    text = _DATE.sub(" ", digits(clause))
    for pattern, replacement in OPERATORS:
        text = re.sub(pattern, replacement, text, flags=re.IGNORECASE)
    found = [match[0].strip() for match in _EXPRESSION.finditer(text)]
    found = [part for part in found if _OPERATOR.search(part)]
    return _balanced(max(found, key=len)) if found else None


def _balanced(text: str) -> str:
    """Drops brackets that have no partner, as in "(that is 2 * 3)"."""
    while text.count("(") > text.count(")"):
        text = text.replace("(", "", 1)
    while text.count(")") > text.count("("):
        text = text[: text.rindex(")")] + text[text.rindex(")") + 1 :]
    return text.strip()


def path(clause: str) -> str | None:
    """Finds the name of a file: quoted, with an extension, or after the word file."""
    if match := _QUOTED.search(clause):
        return match[1]
    if match := _FILE.search(clause):
        return match[0]
    if match := _NAMED_FILE.search(clause) or _READ_NAME.search(clause):
        return match[1]
    return None


def zone(clause: str) -> str | None:
    """Finds a time zone by its name or by a well-known city in it; else names the place."""
    if match := _ZONE.search(clause):
        return match[0]
    lowered = clause.lower()
    known = (name for name in ZONES if re.search(rf"\b{name}\b", lowered))
    city = next(known, None)
    return ZONES[city] if city else place(clause)


def seconds(clause: str) -> float | None:
    """Finds a duration and returns it in seconds."""
    match = _SECONDS.search(digits(clause))
    if match is None:
        return None
    unit = match[2].lower()
    scale = next((scale for start, scale in _UNITS if unit.startswith(start)), 1.0)
    return float(match[1]) * scale


def query(clause: str) -> str | None:
    """Finds what to search for: quoted, what follows the verb, else the clause itself."""
    if match := _QUOTED.search(clause):
        return match[1]
    match = _TOPIC.search(clause)
    text = match[1] if match else clause
    text = _TAKING.sub("", text)
    return text.strip(" .,;:!?") or None


def quoted(clause: str) -> str | None:
    """Finds a text in quotes."""
    match = _QUOTED.search(clause)
    return match[1] if match else None


def number(clause: str) -> float | None:
    """Finds a number, in digits or as a word."""
    match = _NUMBER.search(digits(clause))
    return float(match[0]) if match else None


def digits(clause: str) -> str:
    """Writes number words up to twenty, and a few above, in digits."""
    return re.sub(r"[A-Za-z]+", lambda m: str(NUMBER_WORDS.get(m[0].lower(), m[0])), clause)


Extractor = Callable[[str], str | float | None]

KINDS: tuple[tuple[re.Pattern[str], Extractor], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), extractor)
    for pattern, extractor in (
        (r"(?:^|_)(?:city|cities|location|place|town|where|country|region)(?:$|_)", place),
        (r"expression|formula|equation|calculation|arithmetic", expression),
        (r"(?:^|_)(?:path|file|filename|file_name|document)(?:$|_)", path),
        (r"time_?zone|(?:^|_)(?:tz|zone)(?:$|_)", zone),
        (r"(?:^|_)(?:seconds?|secs?|duration|delay|wait)(?:$|_)", seconds),
        (r"(?:^|_)(?:query|search|keywords?|question|q|term|topic|subject)(?:$|_)", query),
    )
)


def extractor(name: str) -> Extractor | None:
    """Returns what finds values for a parameter of that name."""
    return next((extract for pattern, extract in KINDS if pattern.search(name)), None)
