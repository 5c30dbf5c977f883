"""Whether every edit of a memory block is there once, and every undo took back one edit."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from chaos.agents import BOARD, DRAFT, NOTES, digest
from chaos.evidence import Evidence
from chaos.findings import Findings
from chaos.records import (
    BoardRead,
    DeleteAcknowledged,
    EditAcknowledged,
    EditIntent,
    Ran,
    Remembered,
    UndoAcknowledged,
    UndoIntent,
)
from chaos.stored import StoredThread
from treadle.domain.block_memory import NO_MEMORY
from treadle.domain.events import MemoryUpdated


class _Texts:
    """The texts of the blocks of a thread: those there are, and all that there ever were."""

    def __init__(self, changes: Iterable[MemoryUpdated]) -> None:
        self.changes = list(changes)
        self.now: dict[str, str] = {}
        self.were = defaultdict[str, list[tuple[int, str]]](list)
        self.wrong: list[str] = []
        for change in self.changes:
            self._follow(change)

    def _follow(self, change: MemoryUpdated) -> None:
        label, end = change.label, change.position + len(change.removed)
        is_new = change.was is None and change.becomes is not None
        if is_new == (label in self.now):
            self.wrong.append(f"{change.seq} makes or changes {label!r}: it is there, or is not")
        text = self.now.get(label, "")
        if text[change.position : end] != change.removed:
            self.wrong.append(f"{change.seq} removes from {label!r} what does not stand there")
        text = self.now[label] = text[: change.position] + change.added + text[end:]
        if change.was is not None and change.becomes is None:
            del self.now[label]
            if text:
                self.wrong.append(f"{change.seq} deletes {label!r}, and some of its text stays")
        self.were[label].append((change.seq, digest(text)))


def judge_blocks(findings: Findings, threads: Sequence[StoredThread], evidence: Evidence) -> None:
    """What was acknowledged of edits, undos and deletions is there, once; each text is the fold."""
    texts = {thread.id: _Texts(_own_changes(thread)) for thread in threads}
    boards: dict[str, str] = {}
    for thread in threads:
        if thread.memory:
            if thread.owner in boards:
                findings.duplicates.append(f"{thread.owner} has two memories {thread.memory!r}")
            boards[thread.owner] = thread.id
    asked = {one.key for one in evidence.read(EditIntent)} | {
        one.call_id for one in evidence.read(Ran)
    }
    for thread in threads:
        _judge_texts(findings, thread, texts[thread.id], asked)
    _judge_edits(findings, threads, texts, boards, evidence)
    _judge_undos(findings, texts, evidence)
    _judge_deletions(findings, texts, evidence)
    _judge_told(findings, threads, texts)
    owners = {thread.id: thread.owner for thread in threads}
    for read in evidence.read(BoardRead):
        board = texts.get(boards.get(owners[read.thread_id], ""), _Texts([]))
        findings.counts["blocks read"] += 1
        if all(text != read.digest for _, text in board.were[BOARD]):
            findings.wrong.append(f"{read.thread_id} read a text that {BOARD!r} never had")


def _own_changes(thread: StoredThread) -> Iterable[MemoryUpdated]:
    changes = (event for event in thread.events if isinstance(event, MemoryUpdated))
    return (change for change in changes if not change.memory)


def _judge_texts(findings: Findings, thread: StoredThread, texts: _Texts, asked: set[str]) -> None:
    """Each text is that of its changes; each edit that was not taken back stands in it once."""
    findings.counts["memory changes"] += len(texts.changes)
    findings.wrong.extend(f"{thread.id}: the change {wrong}" for wrong in texts.wrong)
    memory = NO_MEMORY
    for change in texts.changes:
        memory = memory.changed(change)
    if {block.label: block.value for block in memory.blocks} != texts.now:
        findings.wrong.append(f"{thread.id}: its blocks are not what their changes made of them")
    undone = {change.undoes for change in texts.changes}
    for label in (NOTES, BOARD):
        edits = [one for one in texts.changes if one.label == label and one.operation == "append"]
        lines = Counter(_line(edit) for edit in edits)
        stands = Counter(texts.now.get(label, "").split())
        for edit in edits:
            line = _line(edit)
            where = f"{thread.id}: the edit {line} of {label!r}"
            expected = 0 if edit.seq in undone else 1
            if lines[line] > 1:
                findings.duplicates.append(f"{where} was made {lines[line]} times")
            if stands[line] < expected:
                findings.losses.append(f"{where} does not stand in its text")
            elif stands[line] > expected:
                findings.duplicates.append(f"{where} stands there {stands[line]} times")
            if line not in asked:
                findings.wrong.append(f"{where}: nobody asked for it")
        if unknown := stands.keys() - lines.keys():
            findings.wrong.append(f"{thread.id}: {label!r} holds {unknown}")


def _line(edit: MemoryUpdated) -> str:
    """The line that an edit added: its key, or the id of the call that its key ends with."""
    return edit.key.rpartition("/")[2]


def _judge_edits(
    findings: Findings,
    threads: Sequence[StoredThread],
    texts: dict[str, _Texts],
    boards: dict[str, str],
    evidence: Evidence,
) -> None:
    """What was acknowledged was made where it was to be; a call got a text that held its edit."""
    made = {(id, change.key): change for id, one in texts.items() for change in one.changes}
    owners = {thread.id: thread.owner for thread in threads}
    for edit in evidence.read(EditAcknowledged):
        findings.counts["edits acknowledged"] += 1
        if (edit.memory_id, edit.key) not in made:
            findings.losses.append(f"{edit.memory_id}: the edit {edit.key} is gone")
    for one in evidence.read(Remembered):
        findings.counts["edits acknowledged"] += 1
        id = one.thread_id if one.label == NOTES else boards.get(owners[one.thread_id], "")
        call_id = one.call_id if id == one.thread_id else f"{one.thread_id}/{one.call_id}"
        change = made.get((id, call_id))
        if change is None:
            findings.losses.append(f"{id}: the edit {one.call_id} of {one.thread_id} is gone")
            continue
        if change.thread_id != ("" if id == one.thread_id else one.thread_id):
            findings.wrong.append(f"{id}: {one.call_id} is said to be of {change.thread_id!r}")
        shown = (text for seq, text in texts[id].were[one.label] if seq >= change.seq)
        if one.digest not in shown:
            findings.wrong.append(f"{id}: {one.call_id} got a text that the block never had then")


def _judge_undos(findings: Findings, texts: dict[str, _Texts], evidence: Evidence) -> None:
    """Each undo took back one change, whole, and somebody wanted it."""
    wished = {(one.memory_id, one.seq) for one in evidence.read(UndoIntent)}
    made = Counter[tuple[str, int]]()
    for id, one in texts.items():
        by_seq = {change.seq: change for change in one.changes}
        for change in one.changes:
            if not change.undoes:
                continue
            findings.counts["undos"] += 1
            made[id, change.undoes] += 1
            if (id, change.undoes) not in wished:
                findings.wrong.append(f"{id}: {change.undoes} was undone, and nobody wished it")
            if change.removed != by_seq[change.undoes].added or change.added:
                findings.wrong.append(f"{id}: {change.seq} took back more than {change.undoes}")
    for (id, seq), times in made.items():
        if times > 1:
            findings.duplicates.append(f"{id}: the change {seq} was undone {times} times")
    for undo in evidence.read(UndoAcknowledged):
        if not made[undo.memory_id, undo.seq]:
            findings.losses.append(f"{undo.memory_id}: the undo of {undo.seq} is gone")


def _judge_deletions(findings: Findings, texts: dict[str, _Texts], evidence: Evidence) -> None:
    """A block that was deleted stays deleted, also where an agent declares it."""
    for deleted in evidence.read(DeleteAcknowledged):
        findings.counts["blocks deleted"] += 1
        if DRAFT in texts[deleted.memory_id].now:
            findings.losses.append(f"{deleted.memory_id}: the block {DRAFT!r} is there again")
    for id, one in texts.items():
        made = [change for change in one.changes if change.operation == "create"]
        for label, times in Counter(change.label for change in made).items():
            if times > 1:
                findings.duplicates.append(f"{id}: the block {label!r} was made {times} times")


def _judge_told(
    findings: Findings, threads: Sequence[StoredThread], texts: dict[str, _Texts]
) -> None:
    """Threads were told once, at most, of the changes that their runs made elsewhere."""
    owners = {thread.id: thread.owner for thread in threads}
    for thread in threads:
        told = [one for one in thread.events if isinstance(one, MemoryUpdated) and one.memory]
        findings.counts["changes told"] += len(told)
        for one, times in Counter(change.key for change in told).items():
            if times > 1:
                findings.duplicates.append(f"{thread.id} was told {times} times of {one}")
        for one in told:
            made = [change for change in texts[one.memory].changes if change.key == one.key]
            if not made or (made[0].label, made[0].position, made[0].added) != (
                one.label,
                one.position,
                one.added,
            ):
                findings.wrong.append(f"{thread.id} was told of {one.key}, which did not happen")
            if owners[one.memory] != thread.owner:
                findings.wrong.append(f"{thread.id} changed a block of another owner")
