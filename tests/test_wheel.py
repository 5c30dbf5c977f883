"""The wheel holds the whole package, and its treadle runs the README's first program."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = "Scripts" if os.name == "nt" else "bin"
CLEAN = {"PATH": "/usr/bin:/bin", "PYTHONUTF8": "1"}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, cwd=cwd, env=CLEAN, timeout=50, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("treadle-*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    source = ROOT / "src"
    files = {
        path.relative_to(source).as_posix()
        for path in (source / "treadle").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == files
    assert "treadle/py.typed" in held
    assert any(name.endswith(".sql") for name in held)


def test_the_first_program_of_the_readme_runs_in_an_empty_environment(
    wheel: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / BIN / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    print_path = "import sysconfig; print(sysconfig.get_path('purelib'))"
    installed = Path(run(python, "-c", print_path, cwd=tmp_path).strip())
    # The dependencies are those of this environment. Paths in a .pth file come after the installed
    # packages, and the .pth file of the editable treadle in that folder is not read.
    (installed / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    found = run(python, "-c", "import treadle; print(treadle.__file__)", cwd=tmp_path)
    assert Path(found.strip()) == installed / "treadle" / "__init__.py"
    assert "chat" in run(environment / BIN / "treadle", "--help", cwd=tmp_path)
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert program
    printed = run(python, "-W", "error", "-c", program[1], cwd=tmp_path)
    assert "18 °C and sunny in Paris" in printed
    assert "18 °C and sunny in Rome" in printed
