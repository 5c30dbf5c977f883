"""The bench: runs the parties of a metric in turn, each in a worker of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.work import Figures

ROOT = Path(__file__).resolve().parent.parent
CORE = ("treadle", "floor", "openai_sdk")
PEERS = {
    "openai_agents": "openai-agents",
    "pydanticai": "pydantic-ai",
    "langgraph": "langgraph",
    "agere": "agere",
}
PEER_REPEATS = 1
TIMEOUT = 300.0


class WorkerFailed(Exception):
    """A worker ended without figures."""


@dataclass(frozen=True)
class Bench:
    """Where the provider listens, and which peers are installed, with their interpreters."""

    url: str
    peers: Mapping[str, Path]

    def interleave(
        self, metric: str, parties: Sequence[str], repeats: int, *, peers: bool, **options: int
    ) -> dict[str, Figures]:
        """Runs the parties A B C A B C …; returns the median of each figure of each party.

        With `peers`, the peers that are installed take part in the first rounds; one that fails
        is left out and named on the standard error.
        """
        taken: dict[str, list[Figures]] = {name: [] for name in parties}
        guests = dict(self.peers) if peers else {}
        for number in range(repeats):
            for party in parties:
                taken[party].append(self.run(party, metric, Path(sys.executable), **options))
            for party in tuple(guests) if number < PEER_REPEATS else ():
                try:
                    figures = self.run(party, metric, guests[party], **options)
                except WorkerFailed as error:
                    print(error, file=sys.stderr)
                    del guests[party]
                else:
                    taken.setdefault(party, []).append(figures)
        return {party: _medians(figures) for party, figures in taken.items()}

    def run(self, party: str, metric: str, python: Path, **options: int) -> Figures:
        """Runs one worker and returns its figures. Raises `WorkerFailed`."""
        command = [str(python), "-m", "benchmarks.worker", party, metric, self.url]
        try:
            done = subprocess.run(
                [*command, json.dumps(options)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise WorkerFailed(f"{party}, {metric}: no figures in {TIMEOUT:g} s") from error
        if done.returncode:
            raise WorkerFailed(f"{party}, {metric}: {_last_line(done.stderr)}")
        return json.loads(done.stdout.splitlines()[-1])


def figures_of(taken: Mapping[str, Figures], name: str) -> Figures:
    """Returns one figure of each party that has it."""
    return {party: figures[name] for party, figures in taken.items() if name in figures}


def installed_peers() -> dict[str, Path]:
    """Returns the interpreters of the peers that `make bench-peers` installed."""
    places = {name: ROOT / ".venv-peers" / venv / "bin" / "python" for name, venv in PEERS.items()}
    return {name: place for name, place in places.items() if place.exists()}


def _medians(runs: Sequence[Figures]) -> Figures:
    return {name: median(run[name] for run in runs) for name in runs[0]}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it ended without a word"
