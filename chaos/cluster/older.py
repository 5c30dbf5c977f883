"""A node of a version before this one: messages cannot be pinned there.

The entry and the event are taken from the unions before anything is made of these.
"""

import asyncio
from functools import reduce
from operator import or_
from typing import Any, get_args

from treadle.domain import entries, events


def _without(union: Any, kind: type) -> Any:
    return reduce(or_, (one for one in get_args(union) if one is not kind))


for name in ("RecordedEvent", "Event"):
    setattr(events, name, _without(getattr(events, name), events.MessagePinned))
for name, kept in (
    ("Entry", _without(entries.Entry, entries.PinEntry)),
    ("ENTRY_TYPES", entries.ENTRY_TYPES - {"pin"}),
):
    setattr(entries, name, kept)

from chaos.cluster.node import run  # noqa: E402 - it reads the unions

if __name__ == "__main__":
    asyncio.run(run())
