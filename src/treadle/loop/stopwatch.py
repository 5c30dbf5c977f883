"""Measures how long a run works."""

import asyncio


class Stopwatch:
    """Counts the seconds of a run in laps, by the clock of the event loop.

    Each lap goes into one event, so no second is counted twice.
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._kept = 0.0

    def skip(self) -> None:
        """Begins a lap now; the time since the last one does not count."""
        self._began = asyncio.get_running_loop().time()

    def keep(self) -> None:
        """Ends a lap, and begins the next; its time is returned by the next `lap` or `kept`."""
        began, self._began = self._began, asyncio.get_running_loop().time()
        self._kept += self._began - began

    def lap(self) -> float:
        """Ends a lap, and begins the next; returns its seconds, and those that were kept."""
        self.keep()
        return self.kept()

    def kept(self) -> float:
        """Returns the seconds that were kept, once."""
        seconds, self._kept = self._kept, 0.0
        return seconds
