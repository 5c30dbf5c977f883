"""How long the threads of a node that is gone have no other one, and where that time goes."""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, LiteralString

import psycopg

from chaos.findings import Findings

LOOK_SECONDS = 0.02

_BUSY = """
    SELECT t.node, t.id, (SELECT max(position) FROM event e WHERE
        e.position BETWEEN t.n * 4294967296 AND t.n * 4294967296 + 4294967295)
    FROM thread t JOIN activity a ON a.n = t.n JOIN node o ON o.id = t.node
    WHERE a.status = 'in_progress'
"""
_NOW = """
    SELECT t.id, t.node, (SELECT max(position) FROM event e WHERE
        e.position BETWEEN t.n * 4294967296 AND t.n * 4294967296 + 4294967295)
    FROM thread t WHERE t.id = ANY(%s)
"""
_NODES = """
    SELECT id, EXISTS (
        SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
        AND classid = 'node'::regclass AND objid::bigint = node.id
    ) FROM node
"""


class Takeovers:
    """What was measured for each way (`kind`) in which nodes were lost.

    Seconds since the node was lost, of nodes: its lock was free, its row was gone; of threads:
    another node had taken it, and there was a new event, from which the run continues.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._seconds: dict[tuple[str, str], list[float]] = {}

    async def measure(
        self,
        kind: str,
        lose: Callable[[], None],
        seconds: float,
        findings: Findings,
        *,
        is_sure: bool = True,
    ) -> None:
        """Loses a node, and looks for some seconds what becomes of its busy threads.

        If it `is_sure` that it is replaced in that time, a thread that is not is a finding.
        """
        connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        async with connection:

            async def query(sql: LiteralString, *values: object) -> list[tuple[Any, ...]]:
                return await (await connection.execute(sql, values or None)).fetchall()

            before = {id for id, _ in await query(_NODES)}
            lose()
            lost_at = time.monotonic()
            left = {id: (node, last) for node, id, last in await query(_BUSY)}
            taken: set[str] = set()
            unlocked: set[int] = set()
            gone: set[int] = set()
            while time.monotonic() < lost_at + seconds:
                nodes: dict[int, bool] = dict(await query(_NODES))
                now = await query(_NOW, list(left))
                after = time.monotonic() - lost_at
                if not unlocked:
                    unlocked = {node for node in before if not nodes.get(node)}
                    self._note(kind, "lock free", *[after for _ in unlocked])
                if not gone:  # one that is missed later was not lost here
                    gone = before - nodes.keys()
                    self._note(kind, "row gone", *[after for _ in gone])
                self._look(kind, after, left, taken, nodes, now)
                if gone and not any(node in gone for node, _ in left.values()):
                    break
                await asyncio.sleep(LOOK_SECONDS)
        if is_sure:
            if not gone:
                findings.wrong.append(f"no node was missed for {seconds} s")
            findings.wrong += [
                f"{id} had no node for {seconds} s"
                for id, (node, _) in left.items()
                if node in gone
            ]

    def _look(
        self,
        kind: str,
        after: float,
        left: dict[str, tuple[int, int]],
        taken: set[str],
        nodes: Mapping[int, bool],
        now: list[tuple[Any, ...]],
    ) -> None:
        found = {id: (node, last) for id, node, last in now}
        for id, (node, last) in list(left.items()):
            if id not in found:
                del left[id]  # it was deleted
                continue
            node_now, last_now = found[id]
            if node in nodes or node_now not in nodes:
                # Until another node has it, an event is one of the node before.
                left[id] = (node, last_now)
                continue
            if id not in taken:
                taken.add(id)
                self._note(kind, "taken", after)
            if last_now > last:
                self._note(kind, "continued", after)
                del left[id]

    def _note(self, kind: str, phase: str, *seconds: float) -> None:
        self._seconds.setdefault((kind, phase), []).extend(seconds)

    def lines(self) -> list[tuple[str, str]]:
        """Returns what was measured, as names and figures: number, median and longest."""
        return [
            (
                f"{kind}: {phase}",
                f"{len(found)}: {statistics.median(found):.2f} s, at most {max(found):.2f} s",
            )
            for (kind, phase), found in sorted(self._seconds.items())
            if found
        ]
