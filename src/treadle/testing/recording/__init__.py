"""Recordings: the responses of a provider, kept in a file and served again in tests.

with record("tests/weather.jsonl"):     # once, with the real provider
    await agent.run("Weather in Paris?")

with replay("tests/weather.jsonl"):     # in the test, without it
    await agent.run("Weather in Paris?")
"""

from treadle.testing.recording.cuts import Cut
from treadle.testing.recording.recorder import record
from treadle.testing.recording.replayer import Replay, replay

__all__ = ["Cut", "Replay", "record", "replay"]
