"""Objects that are used with `async with`: other uses raise an error that shows the right one."""

from typing import TYPE_CHECKING, NoReturn


class AsyncOnly:
    """Base of objects that work inside `async with` only.

    `_usage` is the line that a program should contain. The methods are hidden from type checkers,
    which report such a use by themselves.
    """

    _usage = "async with …"

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise TypeError(f"`with` cannot open this; write `{self._usage}`.")

        def __exit__(self, *_: object) -> None:
            """Is looked up before `__enter__` is called."""

        def __aiter__(self) -> NoReturn:
            raise TypeError(f"`async for` cannot iterate this; write `{self._usage}`.")

        def __await__(self) -> NoReturn:
            raise TypeError(f"This cannot be awaited; write `{self._usage}`.")
