"""The servers, each a process of an environment of its own; `make test-servers` installs them."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KEY = "sk-tiny"
START_SECONDS = 300


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def _running(
    command: list[str | Path],
    log: Path,
    health: str,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Generator[None]:
    """Runs a server until the block ends; fails with its log if it does not start."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["nice", *command], stdout=output, stderr=subprocess.STDOUT, env=environ, cwd=folder
        )
    try:
        until = time.monotonic() + START_SECONDS
        while not _answers(health):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"The server did not start:\n{log.read_text()[-3000:]}", pytrace=False)
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def llamacpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The root URL of llama.cpp with the tiny model."""
    folder, port = tmp_path_factory.mktemp("llamacpp"), _free_port()
    python = HERE / ".venv-llamacpp/bin/python"
    command = [python, HERE / "llamacpp_server.py", folder / "tiny.gguf", str(port), KEY]
    url = f"http://127.0.0.1:{port}"
    with _running(command, folder / "log", f"{url}/health"):
        yield url


def _offline(server: str, home: Path) -> dict[str, str]:
    """The environment of a server that fetches nothing and reads no key and no settings."""
    return {
        "PATH": f"{HERE / f'.venv-{server}/bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model as a checkpoint of transformers."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    python = HERE / ".venv-transformers/bin/python"
    subprocess.run(["nice", python, HERE / "checkpoint.py", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def transformers(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The root URL of transformers' own server with the tiny model, which needs no key."""
    folder, port = tmp_path_factory.mktemp("transformers"), _free_port()
    # The name of the model in requests is the path as it was given.
    command: list[str | Path] = [HERE / ".venv-transformers/bin/transformers", "serve", "tiny"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    url = f"http://127.0.0.1:{port}"
    environ = _offline("transformers", folder)
    with _running(command, folder / "log", f"{url}/health", environ, checkpoint.parent):
        yield url


@pytest.fixture(scope="session")
def litellm(llamacpp: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The root URL of LiteLLM's proxy in front of llama.cpp.

    It has one model for Chat Completions of llama.cpp, and one for its Messages API.
    """
    folder, port = tmp_path_factory.mktemp("litellm"), _free_port()
    backends = {
        "tiny": {"model": "hosted_vllm/tiny", "api_base": f"{llamacpp}/v1"},
        "tiny-messages": {"model": "anthropic/tiny", "api_base": llamacpp},
    }
    config = {
        "model_list": [
            {"model_name": name, "litellm_params": {**backend, "api_key": KEY}}
            for name, backend in backends.items()
        ],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"num_retries": 0},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    command: list[str | Path] = [HERE / ".venv-litellm/bin/litellm"]
    command += ["--config", folder / "config.yaml", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1"]
    environ = _offline("litellm", folder) | {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
    }
    url = f"http://127.0.0.1:{port}"
    with _running(command, folder / "log", f"{url}/health/liveliness", environ):
        yield url
