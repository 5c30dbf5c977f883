"""The nodes of a database that is not there, for the bus over TCP."""

from collections.abc import Mapping, Sequence


class Place:
    """What all nodes of one database know."""

    def __init__(self) -> None:
        self.nodes: dict[int, str] = {}
        self.driven: dict[str, int] = {}
        self.count = 0


class Directory:
    """Fulfils `Directory` for one process; it is a node once it has an address."""

    def __init__(self, place: Place, *threads: str) -> None:
        self.place = place
        self.threads = threads
        self.id: int | None = None
        self.asked = 0

    async def set_address(self, address: str, /) -> None:
        self.place.count += 1
        self.id = self.place.count
        self.place.nodes[self.id] = address
        self.place.driven.update(dict.fromkeys(self.threads, self.id))

    async def addresses(self) -> Mapping[int, str]:
        self.asked += 1
        return dict(self.place.nodes)

    async def nodes_of(self, thread_ids: Sequence[str], /) -> Mapping[str, int]:
        self.asked += 1
        driven = self.place.driven
        return {one: driven[one] for one in thread_ids if driven.get(one) in self.place.nodes}

    async def changed(self, threads: Mapping[str, int], /) -> Sequence[str]:
        driven = await self.nodes_of(list(threads))
        return [one for one, node in driven.items() if node != self.id]
