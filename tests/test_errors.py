import inspect
import re

from treadle import errors
from treadle.errors import ModelError, TreadleError


def tree() -> list[type[TreadleError]]:
    found: list[type[TreadleError]] = [TreadleError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == errors.__name__]


def test_codes_are_unique_and_speak_snake_case() -> None:
    codes = [kind.code for kind in tree()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_the_drawing_shows_the_whole_tree() -> None:
    drawing = inspect.getdoc(errors) or ""
    for kind in tree():
        lines = [line for line in drawing.splitlines() if re.search(rf"\b{kind.__name__}\b", line)]
        assert len(lines) == 1, kind
        is_leaf = not any(other.__module__ == errors.__name__ for other in kind.__subclasses__())
        assert ("retryable:" in lines[0]) == (kind.retryable and is_leaf), kind


def test_every_error_keeps_its_message() -> None:
    for kind in tree():
        assert kind("do this").message == "do this" == str(kind("do this"))


def test_model_errors_carry_the_providers_words() -> None:
    error = ModelError("m", status=429, provider_code="x", retry_after=1.5)
    assert (error.status, error.provider_code, error.retry_after, error.attempts) == (
        429,
        "x",
        1.5,
        1,
    )
