"""The lock that one process holds while it drives a database.

It decides which process drives, not which append is valid: appends are fenced by the epoch of
their claim, in the database. The lock belongs to the open file (`flock`), so the system frees it
when the process ends, however it ends. The older kind that SQLite uses (`fcntl`) would be lost as
soon as any code in the process opens and closes the same file:
https://sqlite.org/howtocorrupt.html, section 2.2.

A child process that was forked shares the open file, and would keep the lock when its parent ends:
it closes the file at once. One lock belongs to one database because its path is resolved, and
because a file with a second name (a hard link) is refused: see `sqlite_file.resolved`.
"""

import contextlib
import os
import sys
import time
from pathlib import Path
from weakref import WeakSet

from treadle.errors import JournalError, JournalLocked
from treadle.journal.sqlite_file import file_error

if sys.platform == "win32":
    import msvcrt

    def _take(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _free(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _free(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)  # even if a forked process has the file open as well


ATTEMPTS = 5
ATTEMPT_SECONDS = 0.01


def _take_soon(file: int) -> None:
    """Takes the lock; waits a moment for a process that only looks whether it is held."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(BlockingIOError, PermissionError):
            _take(file)
            return
        time.sleep(ATTEMPT_SECONDS)
    _take(file)


_held: "WeakSet[DriverLock]" = WeakSet()


class DriverLock:
    """The lock of the database `path`, in a file next to it; one runtime at a time holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> None:
        """Takes the lock; raises `JournalLocked` if this or another process already holds it."""
        lock = self._lock_path
        try:
            file = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise file_error(error, lock.name) from error
        try:
            _take_soon(file)
        except (BlockingIOError, PermissionError) as error:
            os.close(file)
            if any(one._path == self._path for one in _held):
                raise JournalLocked(
                    f"{self._path.name} is driven by another runtime of this process; use that "
                    "one, or open this one with drive=False to read, watch and send."
                ) from error
            raise JournalLocked(
                f"{self._path.name} is driven by another process; end it, or open the database "
                "with drive=False to read, watch and send."
            ) from error
        except OSError as error:
            os.close(file)
            raise JournalError(
                f"{lock.name} cannot be locked ({error.strerror}); keep the database on a disk of "
                "this machine."
            ) from error
        self._file = file
        _held.add(self)

    def is_held(self) -> bool:
        """Returns whether this or another process holds the lock."""
        if self._file is not None:
            return True
        try:
            file = os.open(self._lock_path, os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # it cannot be told
        try:
            _take(file)  # for an instant, which a driver that begins waits for
            _free(file)
        except OSError:
            return True
        finally:
            os.close(file)
        return False

    @property
    def _lock_path(self) -> Path:
        return self._path.with_name(f"{self._path.name}-driver")

    def release(self) -> None:
        """Frees the lock; a second call does nothing."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # the lock ends with the file in any case
                _free(self._file)
            self.forget()

    def forget(self) -> None:
        """Closes the file, which is how a forked process leaves the lock to its parent."""
        _held.discard(self)
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
