"""Rows of the index: what they hold of a passage, as SQLite keeps it."""

import sqlite3
from hashlib import blake2b

import msgspec

from treadle.domain.items import Role
from treadle.domain.passages import Kind, Passage
from treadle.memory.archive.words import indexed

KINDS: tuple[Kind, ...] = ("archive", "message")
ROLES: tuple[Role | None, ...] = (None, "user", "assistant", "system", "developer")

_TAGS = msgspec.json.Decoder(tuple[str, ...])

SELECT = (
    "SELECT p.n, p.id, p.text, p.kind, t.thread_id, p.seq, p.at, p.run_id, p.role, p.tags"
    " FROM passage p JOIN source t ON t.s = p.s"
)


Written = tuple[int, int]
"""The number of an owner, and how often its threads were written; no owner has both again."""


def written_of(connection: sqlite3.Connection, owner: str) -> Written:
    """Returns how often an owner was written to; (0, 0) for one that has nothing."""
    row: Written | None = connection.execute(
        "SELECT o, writes FROM owner WHERE name = ?", (owner,)
    ).fetchone()
    return row or (0, 0)


def passage_in(row: tuple[object, ...]) -> Passage:
    """Returns the passage of a row of `SELECT`."""
    _, id, text, kind, thread_id, seq, at, run_id, role, tags = row
    return msgspec.convert(
        {
            "id": id,
            "text": text,
            "kind": KINDS[int(str(kind))],
            "thread_id": thread_id,
            "seq": seq,
            "created_at": at,
            "run_id": run_id,
            "role": ROLES[int(str(role))],
            "tags": _TAGS.decode(str(tags)),
        },
        Passage,
    )


def scope_word(letter: str, number: int, kind: Kind) -> str:
    """Returns the word that stands for an owner (`o`), what is aside (`w`), or a thread (`t`)."""
    return f"{letter}{number}{kind[0]}"


def role_word(role: Role | None) -> str:
    """Returns the word that stands for a role."""
    return f"r{ROLES.index(role)}"


def tag_word(tag: str) -> str:
    """Returns the word that stands for a tag: its hash in digits, because words lose endings."""
    return f"g{int.from_bytes(blake2b(tag.encode(), digest_size=8).digest(), 'big')}"


def words_of(passage: Passage, owner: int, source: int, *, aside: bool) -> tuple[str, str]:
    """Returns the text and the scope of a row in the table `words`, the same at any time."""
    kind = passage.kind
    # Only what agents say to each other is kept apart; what they note is for all.
    place = scope_word("w" if aside and kind == "message" else "o", owner, kind)
    scope = [place, scope_word("t", source, kind), role_word(passage.role)]
    return indexed(passage.text), " ".join([*scope, *map(tag_word, passage.tags)])
