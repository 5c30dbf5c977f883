"""The attacks on nodes, and what became of the conversations."""

import asyncio
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from tests import restate_server
from tests.postgres import Server

import treadle
from chaos.cluster.agent import agent_on, steps_of, text_of
from chaos.cluster.brief import BriefThreads, shorten
from chaos.cluster.desk import Desk, answer, judge_answers
from chaos.cluster.records import Answered, Asked, Heard, Pinned, Refused, ToolRan
from chaos.cluster.takeovers import Takeovers
from chaos.evidence import Evidence
from chaos.findings import Findings
from treadle.domain.events import MessagePinned
from treadle.domain.items import Message
from treadle.errors import TreadleError
from treadle.journal import postgres_nodes

NODES = 3
BRIEF = 3
"""How many threads at a time come and go, as well as those that stay."""

STALE_SECONDS = 4.0
"""After how long nodes that stand still are replaced here; 15 s outside."""

FROZEN_SECONDS = 60.0
"""How long a node stands still that has the real heartbeat."""

TAKEOVER_SECONDS = 30.0
"""How long it is waited for other nodes to take the threads of one that was killed."""

STARTED = 60.0
ENDED = 120.0
"""How long the conversations may take to come to rest after the last attack, in seconds."""


class NotAtRest(Exception):
    """A node did not start, or a run did not end."""


class Campaign:
    """Conversations on nodes, while these are attacked `attacks` times."""

    def __init__(
        self,
        server: Server,
        folder: Path,
        seed: int,
        kinds: list[str],
        restate: restate_server.Server | None = None,
        *,
        has_real_heartbeat: bool = False,
    ) -> None:
        self.findings = Findings()
        self._has_real_heartbeat = has_real_heartbeat
        self._stale = postgres_nodes.STALE_SECONDS if has_real_heartbeat else STALE_SECONDS
        self._server = server
        self._restate = restate
        self._balancer = restate_server.Balancer()
        self._ports: dict[Process, int] = {}  # of the nodes that Restate calls
        self._url = server.url("chaos")
        self.takeovers = Takeovers(self._url)
        self._folder = folder
        self._chance = random.Random(seed)
        self._kinds = kinds
        self._nodes: list[Process] = []
        # The module of each node, which is its version: those to come are newer.
        self._versions = ["older" if "deploy" in kinds else "node"] * NODES
        self._started = 0
        self._sent: dict[tuple[str, str], str] = {}  # the run of a message, by thread and message
        self._desk, self._brief = Desk(), BriefThreads()
        self._attacks: Mapping[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "end": self._end,
            "deploy": self._deploy,
            "cut": self._cut,
            "restart": self._restart,
        }

    async def run(self, attacks: int, threads: int, seconds: float) -> None:
        """Attacks, waits until all is at rest, and judges; raises `NotAtRest`."""
        self._seconds = seconds
        await self._balancer.start()
        try:
            self._nodes = list(await asyncio.gather(*map(self._node, range(NODES))))
            agent = agent_on(Evidence(self._folder), self._seconds)
            async with treadle.open(self._url, agents=[agent], drive=False) as runtime:
                shorten()
                desk = asyncio.create_task(self._desk.watch(runtime))
                answering = asyncio.create_task(
                    answer(runtime, Evidence(self._folder), "the sender")
                )
                talking = asyncio.create_task(self._talk(runtime, threads))
                await asyncio.sleep(2)
                for _ in range(attacks):
                    await asyncio.sleep(self._chance.uniform(0.2, 2))
                    kind = self._chance.choice(self._kinds)
                    await self._attacks[kind]()
                    self.findings.counts[kind] += 1
                while "older" in self._versions:
                    await self._deploy()
                talking.cancel()
                with suppress(asyncio.CancelledError):
                    await talking
                await self._rest(runtime)
                await self._brief.judge(runtime, self.findings)
                for task in (desk, answering):
                    task.cancel()
                await asyncio.wait([desk, answering])
                await self._judge(runtime)
                await self._count_deadlocks()
        finally:
            for node in self._nodes:
                if node.returncode is None:
                    node.kill()
                    await node.wait()
            await self._balancer.stop()

    async def _count_deadlocks(self) -> None:
        """Counts the transactions that waited for each other, since the last crash."""
        ((found,),) = await self._query(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        self.findings.counts["deadlocks"] = found

    # Nodes

    async def _node(self, which: int) -> Process:
        self._started += 1
        name = f"node{self._started}"
        engine: list[str] = []
        if self._restate is not None:
            (port,) = restate_server.free_ports(1)
            engine = [self._restate.ingress, self._restate.admin, self._balancer.url, str(port)]
        with (self._folder / "nodes.err").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *(
                    "-m",
                    f"chaos.cluster.{self._versions[which]}",
                    self._url,
                    str(self._folder),
                    name,
                ),
                *(str(self._seconds), str(self._stale), *engine),
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
                cwd=Path(__file__).parents[2],
            )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), STARTED)
        except TimeoutError:
            line = b""
        if line != b"ready\n":
            raise NotAtRest(f"A node did not start: {self._errors()}")
        if engine:
            self._ports[process] = int(engine[-1])
            self._balancer.ports = list(self._ports.values())
        return process

    async def _ended_node(self, node: Process) -> int:
        """Waits for the end of a node, which Restate is not led to any more."""
        code = await node.wait()
        self._ports.pop(node, None)
        self._balancer.ports = list(self._ports.values())
        return code

    def _errors(self) -> str:
        return (self._folder / "nodes.err").read_text(errors="replace")[-4000:]

    async def _query(self, sql: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            cursor = await connection.execute(sql, values)
            return await cursor.fetchall() if cursor.description else []

    # Attacks

    async def _kill(self) -> None:
        """A node ends at once; another one comes."""
        which = self._chance.randrange(len(self._nodes))
        node = self._nodes[which]
        measuring = asyncio.create_task(
            self.takeovers.measure("kill", node.kill, TAKEOVER_SECONDS, self.findings)
        )
        await self._ended_node(node)
        self._nodes[which] = await self._node(which)
        await measuring

    async def _freeze(self) -> None:
        """A node stands still until it was replaced, and then continues."""
        node = self._chance.choice(self._nodes)
        seconds = self._stale + self._chance.uniform(-2, 3)
        if self._has_real_heartbeat:
            seconds = FROZEN_SECONDS
        measuring = asyncio.create_task(
            self.takeovers.measure(
                "freeze",
                lambda: node.send_signal(signal.SIGSTOP),
                seconds,
                self.findings,
                is_sure=self._has_real_heartbeat,
            )
        )
        await asyncio.sleep(seconds)
        node.send_signal(signal.SIGCONT)
        await measuring

    async def _end(self) -> None:
        """A node ends in order; another one comes."""
        await self._replace(self._chance.randrange(NODES), signal.SIGTERM)

    async def _deploy(self) -> None:
        """A node is drained; one of the newer version comes. The older ones are replaced first."""
        which = self._chance.randrange(NODES)
        if "older" in self._versions:
            which = self._versions.index("older")
        self._versions[which] = "newer"
        await self._replace(which, signal.SIGINT)

    async def _replace(self, which: int, how: signal.Signals) -> None:
        self._nodes[which].send_signal(how)
        try:
            code = await asyncio.wait_for(self._ended_node(self._nodes[which]), 60)
        except TimeoutError:
            raise NotAtRest(f"A node does not end: {self._errors()}") from None
        if code:
            self.findings.wrong.append(f"a node ended with {code}")
        self._nodes[which] = await self._node(which)

    async def _cut(self) -> None:
        """The connections of some sessions are lost."""
        await self._query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND application_name = 'treadle' AND random() < 0.4"
        )

    async def _restart(self) -> None:
        """The database is away for a moment."""
        how = self._chance.choice([signal.SIGINT, signal.SIGQUIT])
        await asyncio.to_thread(self._server.stop, how)
        await asyncio.sleep(self._chance.uniform(0, 1))
        await asyncio.to_thread(self._server.start)

    # Conversations

    async def _talk(self, runtime: treadle.Runtime, count: int) -> None:
        threads = [
            await runtime.create_thread("cluster", owner=f"owner {n % 5}") for n in range(count)
        ]
        async with asyncio.TaskGroup() as tasks:
            for thread in threads:
                tasks.create_task(self._converse(thread))
            for number in range(1, BRIEF + 1):
                tasks.create_task(self._brief.come(runtime, f"brief {number}", "cluster"))

    async def _converse(self, thread: treadle.Thread) -> None:
        number = 0
        while True:
            message = f"{thread.id} {number}"
            with suppress(TreadleError):
                run = await thread.send(message, key=message)
                self._sent[thread.id, message] = run.id
                number += 1
                await self._ended(thread, run.id)

    async def _ended(self, thread: treadle.Thread, run_id: str) -> None:
        while True:
            await asyncio.sleep(0.3)
            info = await (await thread.run(run_id)).info()
            if info.last_seq:
                return

    async def _rest(self, runtime: treadle.Runtime) -> None:
        end = time.monotonic() + ENDED
        open_runs: object = ""
        while True:
            with suppress(TreadleError):
                open_runs = await runtime.journal.unfinished()
                if not open_runs and not await runtime.journal.waiting_threads():
                    break
            if time.monotonic() > end:
                raise NotAtRest(f"These did not end: {open_runs!r:.1000} {self._errors()}")
            await asyncio.sleep(0.2)
        await asyncio.sleep(2)  # until the readers have heard the last texts

    async def _judge(self, runtime: treadle.Runtime) -> None:
        findings, evidence = self.findings, Evidence(self._folder)
        findings.counts["runs"] = len(self._sent)
        expected: Counter[str] = Counter()
        acknowledged = list(evidence.read(Answered))
        pinned = list(evidence.read(Pinned))
        for thread_id in {thread_id for thread_id, _ in self._sent}:
            thread = await runtime.connect(thread_id)
            events = await thread.events(limit=10**6)
            if [event.seq for event in events] != list(range(1, len(events) + 1)):
                findings.losses.append(f"{thread_id} has a gap")
            findings.counts["events"] += len(events)
            self._desk.judge(thread_id, events, findings)
            given = [one for one in acknowledged if one.thread_id == thread_id]
            judge_answers(given, events, findings)
            pins = Counter(one.message_id for one in events if isinstance(one, MessagePinned))
            findings.duplicates += [f"{id} is pinned {n} times" for id, n in pins.items() if n > 1]
            acked = [one for one in pinned if one.thread_id == thread_id]
            findings.counts["pins"] += len(acked)
            findings.losses += [f"{one} is lost" for one in acked if one.message_id not in pins]
            runs = {run.id: run for run in await thread.runs(limit=1000)}
            said = [item for item in await thread.history() if isinstance(item, Message)]
            users = Counter(item.text for item in said if item.role == "user")
            answers = Counter(item.text for item in said if item.role == "assistant")
            for (owner, message), run_id in self._sent.items():
                if owner != thread_id:
                    continue
                run = runs.pop(run_id, None)
                if run is None or run.status != "completed":
                    findings.losses.append(f"{message}: {run}")
                for text, found in ((message, users), (text_of(message), answers)):
                    if found[text] == 0:
                        findings.losses.append(f"{message}: {text!r} is missing")
                    elif found[text] > 1:
                        findings.duplicates.append(f"{message}: {text!r} is there {found[text]} x")
                expected[message] = steps_of(message)
            # A message whose sender was cut off before it was acknowledged may have a run.
            unknown = [run for run in runs.values() if run.status != "completed"]
            findings.losses += [f"{thread_id}: {run.id} is {run.status}" for run in unknown]
        ran = Counter(one.call_id for one in evidence.read(ToolRan) if one.tool != "again")
        findings.counts["tools"] = ran.total()
        findings.duplicates += [f"{call} ran {n} times" for call, n in ran.items() if n > 1]
        for heard in evidence.read(Heard):
            findings.counts["texts heard"] += 1
            if heard.deltas != heard.text:
                findings.wrong.append(
                    f"{heard.node} heard {len(heard.deltas)} of {len(heard.text)} characters on "
                    f"{heard.thread_id}: {heard.deltas[:40]!r}"
                )
        findings.counts["refused appends"] = len(list(evidence.read(Refused)))
        asked = Counter(one.message for one in evidence.read(Asked))
        findings.losses += [
            f"{message} was not answered"
            for message in self._brief.answered
            if asked[message] < steps_of(message)
        ]
        gone = Counter(self._desk.deleted)
        findings.wrong += [
            f"the desk was told {gone[id]} times that {id} is gone"
            for id in self._brief.ids
            if gone[id] != 1
        ]
        again = sum(max(0, asked[message] - times) for message, times in expected.items())
        findings.counts["responses"] = sum(asked.values())
        findings.counts["asked for again"] = again
