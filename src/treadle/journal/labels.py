"""What lists of threads can be filtered by; pure, the same for every journal."""

import hashlib
from collections.abc import Mapping

import msgspec

MAX_VALUE = 100
"""Bytes of the longest value that is stored as it is; of others, a digest is."""

_ENCODER = msgspec.json.Encoder(order="sorted")


def labels_of(agent: str, metadata: Mapping[str, object]) -> list[tuple[str, str]]:
    """Returns the names and values by which a list can be filtered, for a thread or a filter.

    A thread is in the filtered list if it has all labels of the filter.
    """
    labels = [(f"metadata.{name}", _value(value)) for name, value in metadata.items()]
    return [("agent", _value(agent)), *labels] if agent else labels


def _value(value: object) -> str:
    encoded = _ENCODER.encode(value)
    if len(encoded) <= MAX_VALUE:
        return encoded.decode()
    return hashlib.sha256(encoded).hexdigest()
