"""The lines of the logs: what each party did or saw, as it says so itself."""

from typing import Literal

from msgspec import Struct

from weft.inputs import OnBusy

Party = Literal["inside", "outside"]
"""Who speaks: a client in the process that is killed, or one that outlives it."""

Answer = Literal["output", "approve", "deny"]


class ThreadMade(Struct, frozen=True):
    """`create_thread` returned."""

    thread_id: str


class Intent(Struct, frozen=True):
    """A message is about to be sent; its text is its key."""

    thread_id: str
    key: str
    on_busy: OnBusy
    party: Party


class Acknowledged(Struct, frozen=True):
    """`send` returned, with this run."""

    thread_id: str
    key: str
    run_id: str


class AnswerAcknowledged(Struct, frozen=True):
    """The answer to a call was taken."""

    thread_id: str
    call_id: str
    answer: Answer
    party: Party


class CancelIntent(Struct, frozen=True):
    """A run is about to be cancelled."""

    thread_id: str
    run_id: str


class CancelAcknowledged(Struct, frozen=True):
    """`cancel` returned, at this time."""

    thread_id: str
    run_id: str
    at: float
    party: Party


class Ran(Struct, frozen=True):
    """A tool did what it does."""

    call_id: str
    tool: str
    idempotency_key: str


class JobSubmitted(Struct, frozen=True):
    """The submission of a job was acknowledged; each has a name of its own."""

    name: str


class JobBegan(Struct, frozen=True):
    """The body of a job began, at this time."""

    job_id: str
    name: str
    attempt: int
    restartable: bool
    at: float


class JobDone(Struct, frozen=True):
    """The body of a job has done all it does, at this time."""

    job_id: str
    attempt: int
    at: float


class JobCancelled(Struct, frozen=True):
    """A job is about to be cancelled."""

    thread_id: str
    job_id: str


class Seen(Struct, frozen=True):
    """A subscriber got a durable event."""

    watcher: str
    thread_id: str
    seq: int
    body: str


class TextSeen(Struct, frozen=True):
    """An item of the model is finished, whose deltas a subscriber had got.

    `unbroken`: the driving process lived from the first delta to the end, and the subscriber had
    come back to more deltas if it ever left, so that nothing may be missing.
    """

    watcher: str
    thread_id: str
    item_id: str
    seen: str
    final: str
    unbroken: bool


class PointReached(Struct, frozen=True):
    """The process is about to kill itself at a named commit point."""

    name: str


Record = (
    ThreadMade
    | Intent
    | Acknowledged
    | AnswerAcknowledged
    | CancelIntent
    | CancelAcknowledged
    | Ran
    | JobSubmitted
    | JobBegan
    | JobDone
    | JobCancelled
    | Seen
    | TextSeen
    | PointReached
)
