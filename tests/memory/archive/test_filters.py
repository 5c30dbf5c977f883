"""What may be asked of the archive."""

import pytest

from treadle.domain.passages import Filters, Period
from treadle.errors import InvalidInput
from treadle.memory.archive.filters import filters_of, require_way


def test_what_may_be_asked_for() -> None:
    assert filters_of("archive") == Filters(kind="archive")
    assert filters_of(
        "message",
        thread_id="t",
        roles=["user", "system"],
        any_tags=["a", "a"],
        all_tags=["b"],
        since="1970-01-01T00:00",
    ) == Filters(
        kind="message",
        thread_id="t",
        roles=("user", "system"),
        any_tags=("a",),
        all_tags=("b",),
        period=Period(0.0, None),
    )
    for way in ("both", "text", "vector"):
        require_way(way)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"roles": "user"}, r"roles=\['user'\]"),
        ({"roles": ["tool"]}, "'tool' is no role; the roles are user"),
        ({"any_tags": "blue"}, r"\['blue'\]"),
        ({"all_tags": "blue"}, r"\['blue'\]"),
        ({"all_tags": [""]}, "from 1 to 200"),
        ({"any_tags": ["a\0"]}, "no NUL"),
        ({"any_tags": ["\ud800"]}, "UTF-8"),
        ({"any_tags": [str(n) for n in range(51)]}, "51 tags"),
        ({"until": "tomorrow"}, "no date"),
    ],
)
def test_what_is_refused(asked: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        filters_of("message", **asked)  # type: ignore[arg-type]


def test_another_way() -> None:
    with pytest.raises(InvalidInput, match="both, text, vector"):
        require_way("fulltext")
