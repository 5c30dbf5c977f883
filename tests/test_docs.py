"""Every program in the documentation runs, and every link leads somewhere."""

import html
import re
import tomllib
from pathlib import Path

import pytest
from tests.forked import run_program

from treadle.demo.crash_agent import ANSWER, QUESTION

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PROGRAM = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
PROGRAMS = [
    pytest.param(code, output, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    if page.name != "design.md"
    for number, (code, output) in enumerate(PROGRAM.findall(page.read_text()))
]
NEEDS_A_SERVER = "Start a server with "


@pytest.mark.parametrize(("code", "output"), PROGRAMS)
def test_a_program(code: str, output: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(code)
    done = run_program([program], env={"PATH": "/usr/bin:/bin"}, warn="error")
    assert done.returncode == 0, done.stderr.decode()
    printed = done.stdout.decode()
    if (printed.strip() or output) and not printed.startswith(NEEDS_A_SERVER):
        assert is_shown(printed, output), (
            f"Show what the program prints in a block ```text after it (… is any text, and on a "
            f"line of its own any lines). It printed:\n{printed}"
        )


def is_shown(printed: str, output: str) -> bool:
    """Whether a page that shows `output` shows what was printed.

    In `output`, … stands for any text within a line, and alone on a line for any lines.
    """
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"[ ]*\n"
        for line in output.splitlines()
    )
    return re.fullmatch(pattern, printed.rstrip() + "\n") is not None


def test_what_a_page_shows() -> None:
    assert is_shown("one\ntwo \n", "one\ntwo\n")
    assert is_shown("thread_17 is new\n", "thread_… is new\n")
    assert is_shown("one\ntwo\nthree\nfour\n", "one\n…\nfour\n")
    assert not is_shown("one\ntwo\n", "one\n")
    assert not is_shown("one\n", "")
    assert not is_shown("one\ntwo\n", "one…\n")


def test_there_are_programs() -> None:
    assert len(PROGRAMS) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)[^)]*\)", prose):
        if "://" not in target:
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name} links to {target}"
            if anchor:
                assert anchor in anchors(linked), f"{page.name} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


def test_the_first_screen_of_the_readme_shows_both_commands() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:25])
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_the_picture_of_the_crash_is_of_the_demo() -> None:
    picture = re.sub("<[^>]+>", "", (ROOT / "docs" / "crash.svg").read_text())
    words = " ".join(html.unescape(picture).split())
    answer = ANSWER.replace("*", "").replace("\n- ", "\n• ")
    assert QUESTION in words
    assert " ".join(answer.split()) in words
    assert f"The {len(ANSWER)} characters that the reader added up are exactly those" in words


def test_the_extras_and_the_providers_are_those_that_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"]) - {"dev", "docs"}
    assert (
        set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/index.md").read_text(), re.MULTILINE))
        == extras
    )
    rows = re.findall(
        r"^\| `\w+` \| chat \|", (ROOT / "docs/reference/providers.md").read_text(), re.MULTILINE
    )
    assert f"[{len(rows)} providers and servers]" in (ROOT / "README.md").read_text()
