"""The version of the tables of a database, and which treadle can use a database of a newer one."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from treadle.errors import JournalTooNew

ADDITIVE = "-- additive"
"""The first line of a migration after which versions before it can still use the database.

Such a migration adds tables, indexes, and columns that may be NULL or have a default. What an older
version writes, without knowledge of them, must be correct, and so must what it reads.
"""

_BITS = 16


class SchemaVersion(NamedTuple):
    """The numbers of the last migration and of the last breaking one.

    A treadle can use the tables if it has the breaking migration, even if it lacks later ones.
    """

    breaking: int
    number: int

    @classmethod
    def unpack(cls, stored: int) -> "SchemaVersion":
        """Returns the version from the one number that a database stores.

        One without an additive migration is a plain number, which versions before this rule read.
        """
        number = stored & ((1 << _BITS) - 1)
        return cls(stored >> _BITS or number, number)

    def pack(self) -> int:
        """Returns the number to store; it fits into the 31 bits of `user_version`."""
        additive = self.breaking != self.number
        return (self.breaking << _BITS if additive else 0) | self.number


def read_migrations(folder: Path) -> list[str]:
    """Returns the migrations in a folder, in their order."""
    return [script.read_text(encoding="utf-8") for script in sorted(folder.glob("*.sql"))]


def version_of(scripts: Sequence[str]) -> SchemaVersion:
    """Returns the version of the tables after these migrations, which are all from the first on."""
    breaking = [at for at, script in enumerate(scripts, 1) if script.split("\n")[0] != ADDITIVE]
    return SchemaVersion(breaking[-1] if breaking else 0, len(scripts))


def require_usable(version: SchemaVersion, known: int, name: str) -> None:
    """Raises `JournalTooNew` if a treadle with `known` migrations cannot use the tables."""
    if version.breaking > known:
        raise JournalTooNew(
            f"{name} has version {version.number} and needs a treadle that supports at least "
            f"version {version.breaking}, but this one supports at most {known}; install a newer "
            "treadle."
        )


def require_known(number: int, known: int, name: str) -> None:
    """Raises `JournalTooNew` if a newer version has migrated the tables, even if they are usable.

    A copy table by table would leave out what that version added.
    """
    if number > known:
        raise JournalTooNew(
            f"{name} has version {number}, but this treadle knows the tables of version {known} "
            "only; copy with a newer treadle."
        )
