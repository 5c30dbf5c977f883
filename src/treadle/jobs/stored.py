"""Jobs as a journal keeps them, so that they can be started again after a crash."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, cast

import msgspec

from treadle.errors import ConfigurationError, JobNotRestartable
from treadle.jobs.job import Job

AnyJob = Job[Any]

MAX_ARGUMENTS = 1_000_000
"""Bytes that the stored fields of a job may have."""

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def stored(job: AnyJob) -> tuple[str, str]:
    """Returns the kind of a restartable job, and its fields as JSON.

    Raises `ConfigurationError` for one that could not be made again from them.
    """
    cls = type(job)
    if not dataclasses.is_dataclass(job):
        raise ConfigurationError(
            f"{cls.__name__} is restartable, so it must be a dataclass: what it is started again "
            "with are its fields."
        )
    if "<locals>" in cls.__qualname__:
        raise ConfigurationError(
            f"{cls.__name__} is restartable, so it must be a class of a module: another process "
            "has to find it."
        )
    fields = {field.name: getattr(job, field.name) for field in _init_fields(cls)}
    try:
        arguments = msgspec.json.encode(fields)
        _decoded(cls, arguments)
    except (TypeError, ValueError, NameError, RecursionError) as error:
        raise ConfigurationError(
            f"{cls.__name__} is restartable, so its fields must be valid JSON data: {error}."
        ) from error
    try:
        inspect.signature(cls.__init__).bind(job, **fields)
    except TypeError as error:
        raise ConfigurationError(
            f"{cls.__name__} is restartable, so its fields must be what it is made of: {error}."
        ) from error
    if len(arguments) > MAX_ARGUMENTS:
        raise ConfigurationError(
            f"{cls.__name__} is restartable, and its fields take more than {MAX_ARGUMENTS:,} "
            "bytes; keep them elsewhere, and a name of them in the job."
        )
    return kind_of(cls), arguments.decode()


def restored(kind: str, arguments: str) -> AnyJob:
    """Returns a new job of what `stored` returned.

    Raises `JobNotRestartable` if its class is not imported here, is not restartable any more, or
    does not take these fields.
    """
    for cls in _subclasses(Job):
        if cls.restartable and kind_of(cls) == kind:
            break
    else:
        raise JobNotRestartable(f"No restartable job {kind} is known here; import its module.")
    try:
        return cls(**_decoded(cls, arguments.encode()))
    except Exception as error:  # the fields, and the code, are those of another version
        raise JobNotRestartable(f"{kind} does not take the fields it had: {error}.") from error


def kind_of(cls: type[AnyJob]) -> str:
    """Returns the name under which a class of jobs is stored."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _subclasses(cls: type[AnyJob]) -> Iterator[type[AnyJob]]:
    """Yields the classes below, of two of one name the one defined last first."""
    for below in reversed(cls.__subclasses__()):
        yield below
        yield from _subclasses(below)


def _init_fields(cls: type[AnyJob]) -> "Iterator[dataclasses.Field[object]]":
    """Yields the fields that a job is made with; others it computes for itself."""
    return (field for field in dataclasses.fields(cast("Any", cls)) if field.init)


def _decoded(cls: type[AnyJob], arguments: bytes) -> dict[str, object]:
    """Returns the fields decoded by their types; fields unknown to the class are left out."""
    hints: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            hints |= inspect.get_annotations(base, eval_str=True)
    values = _FIELDS.decode(arguments)
    return {
        field.name: msgspec.json.decode(values[field.name], type=cast("Any", hints[field.name]))
        for field in _init_fields(cls)
        if field.name in values
    }
