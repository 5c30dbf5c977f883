"""What may be asked of the archive; pure."""

from collections.abc import Sequence
from typing import get_args

from treadle.domain.items import Role
from treadle.domain.passages import By, Filters, Kind
from treadle.errors import InvalidInput
from treadle.memory.archive.period import Moment, period

MAX_TAGS = 50
"""How many tags a text may have, and a search may ask for."""

MAX_TAG_CHARS = 200

_ROLES: tuple[str, ...] = get_args(Role)
_WAYS: tuple[str, ...] = get_args(By)


def filters_of(
    kind: Kind,
    *,
    thread_id: str = "",
    roles: Sequence[Role] = (),
    any_tags: Sequence[str] = (),
    all_tags: Sequence[str] = (),
    since: Moment | None = None,
    until: Moment | None = None,
) -> Filters:
    """Returns the filters; raises `InvalidInput` for roles, tags and dates that are none."""
    if isinstance(roles, str):
        raise InvalidInput(f"Roles are a list; write roles=[{roles[:50]!r}].")
    for role in roles:
        if role not in _ROLES:
            raise InvalidInput(f"{role!r} is no role; the roles are {', '.join(_ROLES)}.")
    return Filters(
        kind=kind,
        thread_id=thread_id,
        roles=tuple(roles),
        any_tags=tags_of(any_tags),
        all_tags=tags_of(all_tags),
        period=period(since, until),
    )


def tags_of(tags: Sequence[str]) -> tuple[str, ...]:
    """Returns tags, once each; raises `InvalidInput` for what is none, and for more than 50."""
    if isinstance(tags, str):
        raise InvalidInput(f"Tags are a list of texts; write [{tags[:50]!r}].")
    if len(tags) > MAX_TAGS:
        raise InvalidInput(f"These are {len(tags)} tags; at most {MAX_TAGS} are allowed.")
    for tag in tags:
        if not tag.strip() or len(tag) > MAX_TAG_CHARS or "\0" in tag:
            raise InvalidInput(
                f"A tag has from 1 to {MAX_TAG_CHARS} characters, and no NUL; not {tag[:50]!r}."
            )
        require_utf8(tag)
    return tuple(dict.fromkeys(tags))


def require_way(by: str) -> None:
    """Raises `InvalidInput` unless there is such a way to search."""
    if by not in _WAYS:
        raise InvalidInput(f"by={by[:50]!r} is no way to search; use {', '.join(_WAYS)}.")


def require_utf8(text: str) -> None:
    """Raises `InvalidInput` for a text that is not valid UTF-8, such as half of a pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"The text is not valid UTF-8 at character {error.start}; decode it before."
        ) from error
