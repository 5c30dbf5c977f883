"""Log records with the ids of the run in which they were made.

Records of the loggers `treadle.*` carry `thread_id`, `run_id` and `call_id`, which are empty
outside a run or a tool. Add the filter to a handler to extend this to other loggers, such as those
of tools:

    handler = logging.StreamHandler()
    handler.addFilter(RunFilter())
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)

treadle logs no messages, arguments or outputs above the level DEBUG, except the text of a failure.
"""

import logging
from collections.abc import Mapping
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from types import TracebackType
from typing import NamedTuple

import msgspec

__all__ = ["JsonFormatter", "RunFilter"]


class _Place(NamedTuple):
    """The thread, run and call in which the code runs; empty outside."""

    thread_id: str = ""
    run_id: str = ""
    call_id: str = ""


_NOWHERE = _Place()
_place: ContextVar[_Place] = ContextVar("treadle_log_place", default=_NOWHERE)


class InRun:
    """While open, records of this task and of the tasks it starts belong to a run."""

    __slots__ = ("_place", "_token")

    def __init__(self, thread_id: str, run_id: str) -> None:
        self._place = _Place(thread_id, run_id)

    def __enter__(self) -> None:
        self._token: Token[_Place] = _place.set(self._place)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _place.reset(self._token)


def enter_call(call_id: str) -> None:
    """Makes all further records of this task, which executes one tool call, belong to it."""
    place = _place.get()
    _place.set(_Place(place.thread_id, place.run_id, call_id))


class RunFilter(logging.Filter):
    """Adds `thread_id`, `run_id` and `call_id` to each record, and passes all records."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Adds the ids of the current run; returns True."""
        if not hasattr(record, "run_id"):  # a logger set it already, maybe in another task
            record.thread_id, record.run_id, record.call_id = _place.get()
        return True


_FILTER = RunFilter()


def logger_of(module: str) -> logging.Logger:
    """Returns the logger of a module of treadle; its records carry the ids."""
    logger = logging.getLogger(module)
    logger.addFilter(_FILTER)
    return logger


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON.

    The fields are `time` (ISO 8601, UTC), `level`, `logger`, `message`; `thread_id`, `run_id` and
    `call_id` unless empty; `exception`, a traceback; and the fields passed as `extra`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without a line feed."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields: Mapping[str, object] = vars(record)
        for name, value in fields.items():
            if name not in _STANDARD and name not in line and value != "":
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return _encoded(line)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ENCODER = msgspec.json.Encoder(enc_hook=repr)


def _encoded(line: dict[str, object]) -> str:
    try:
        return _ENCODER.encode(line).decode()
    except (TypeError, ValueError, RecursionError):  # keys of an odd type, a lone surrogate, a loop
        shown = {name: repr(value) for name, value in line.items()}
        return _ENCODER.encode(shown).decode()
