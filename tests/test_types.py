"""The code of README, docs and examples passes pyright and mypy, both strict."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
CLAIMS = Path(__file__).parent / "typing_claims"

pytestmark = [pytest.mark.real_clock, pytest.mark.timeout(540)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each program of the documentation, and what is claimed about types."""
    folder = tmp_path_factory.mktemp("types") / "checked"
    folder.mkdir()
    for page in PAGES:
        if page.name == "design.md":
            continue
        name = re.sub(r"\W+", "_", str(page.relative_to(ROOT).with_suffix("")))
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        for number, code in enumerate(blocks):
            (folder / f"{name}_{number}.py").write_text(code)
    for program in (*ROOT.glob("examples/*.py"), *CLAIMS.glob("*.py")):
        shutil.copy(program, folder / f"{program.parent.name}_{program.name}")
    assert len(list(folder.glob("*.py"))) > 50
    return folder


def expected(programs: Path) -> set[tuple[str, int]]:
    """The lines that must be errors: they end in `# error`."""
    return {
        (program.name, number)
        for program in programs.glob("*.py")
        for number, line in enumerate(program.read_text().splitlines(), 1)
        if line.endswith("# error")
    }


def test_pyright(programs: Path) -> None:
    config = {
        "include": [str(programs)],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "venvPath": str(Path(sys.prefix).parent),
        "venv": Path(sys.prefix).name,
        "reportMissingTypeStubs": False,
    }
    file = programs.parent / "pyrightconfig.json"
    file.write_text(json.dumps(config))
    done = run(sys.executable, "-m", "pyright", "--outputjson", "-p", str(file))
    found = json.loads(done)["generalDiagnostics"]
    lines = {(Path(one["file"]).name, one["range"]["start"]["line"] + 1): one for one in found}
    assert_expected(programs, {place: one["message"] for place, one in lines.items()})


def test_mypy(programs: Path) -> None:
    done = run(
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--hide-error-context",
        "--scripts-are-modules",
        f"--cache-dir={ROOT / '.mypy_cache'}",
        *sorted(map(str, programs.glob("*.py"))),
    )
    found = re.findall(r"^(.*?):(\d+): error: (.*)$", done, re.MULTILINE)
    assert_expected(programs, {(Path(file).name, int(n)): text for file, n, text in found})


def assert_expected(programs: Path, found: dict[tuple[str, int], str]) -> None:
    wanted = expected(programs)
    surprising = [f"{f}:{n}: {text}" for (f, n), text in found.items() if (f, n) not in wanted]
    assert not surprising, "\n".join(surprising)
    assert wanted - set(found) == set()


def run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, check=False, timeout=500, env={**os.environ, "COLUMNS": "400"}
    )
    return done.stdout.decode()
