"""A Restate server for tests, and a load balancer in front of the nodes that it calls."""

import asyncio
import atexit
import http.client
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from tests import families

from treadle import Restate

_numbers = itertools.count(1)

# Ends the server and removes its folder when its standard input ends: when this process does.
_WATCH = """
import os, shutil, signal, sys
sys.stdin.read()
os.kill(int(sys.argv[1]), signal.SIGKILL)
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


class Server:
    """A server on free ports of 127.0.0.1, with its data in a temporary folder."""

    def __init__(self, program: Path, key: Ed25519PrivateKey | None = None) -> None:
        self._program = program
        self.folder = Path(tempfile.mkdtemp(prefix="treadle-restate-"))
        self._identity = {} if key is None else {_IDENTITY: str(_stored(key, self.folder))}
        self._ports = free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def ingress(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self._ports[1]}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        ingress, admin, fabric = (f"127.0.0.1:{port}" for port in self._ports)
        self._process = subprocess.Popen(
            [str(self._program), "--base-dir", str(self.folder), "--node-name", "test"],
            env={
                "PATH": os.environ["PATH"],
                "RESTATE_LISTEN_MODE": "tcp",
                "RESTATE_INGRESS__BIND_ADDRESS": ingress,
                "RESTATE_ADMIN__BIND_ADDRESS": admin,
                "RESTATE_BIND_ADDRESS": fabric,
                "RESTATE_DISABLE_TELEMETRY": "true",
                "RESTATE_DEFAULT_NUM_PARTITIONS": "2",
                "RESTATE_ROCKSDB_TOTAL_MEMORY_SIZE": "128MB",
                **self._identity,
            },
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._watch = subprocess.Popen(
            [sys.executable, "-c", _WATCH, str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
        )
        end = time.monotonic() + 30
        while not (
            _answers(self._ports[1], "/health")
            and _answers(self._ports[0], _HEALTH)
            and self._has_partitions()
        ):
            assert time.monotonic() < end, "Restate does not start"
            time.sleep(0.05)

    def _has_partitions(self) -> bool:
        """Whether it knows where its partitions are: until then queries of them fail."""
        try:
            self.invocations("")
        except AssertionError:
            return False
        return True

    def stop(self) -> None:
        """Stops the server; its data stays."""
        if self._watch is not None:
            self._watch.kill()
            self._watch.communicate()
            self._watch = None
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        """Stops the server and removes what it has stored."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def settings(self, url: str, service: str) -> Restate:
        """Returns the settings of a node that is called by way of `url`."""
        return Restate(self.ingress, self.admin, url, port=0, service=service)

    def register(self, url: str) -> str:
        """Registers the nodes behind a URL; returns the id of the deployment."""
        answer = self.ask("POST", "/deployments", {"uri": url, "use_http_11": True, "force": True})
        return str(answer["id"])

    def ask(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """Sends a request to the admin API, and returns the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[1], timeout=10)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        assert response.status < 300, text
        answer: dict[str, object] = json.loads(text) if text else {}
        return answer

    def invocations(self, service: str) -> int:
        """Returns how many invocations of a service have not ended."""
        query = (
            "SELECT id FROM sys_invocation WHERE status <> 'completed'"
            f" AND target_service_name = '{service}'"
        )
        rows = self.ask("POST", "/query", {"query": query})["rows"]
        assert isinstance(rows, list)
        return len(rows)


_HEALTH = "/restate/health"


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_ports(count: int) -> list[int]:
    """Returns ports of 127.0.0.1 on which no program listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def new_service() -> str:
    """Returns the name of a service that no other test of this process uses."""
    return f"test{next(_numbers)}"


def new_server(key: Ed25519PrivateKey | None = None) -> Server:
    """Returns a server of its own, which signs its requests with the key."""
    program = families.restate()
    assert program is not None
    return Server(program, key)


_IDENTITY = "RESTATE_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def _stored(key: Ed25519PrivateKey, folder: Path) -> Path:
    path = folder / "key.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    return path


def name_of(key: Ed25519PrivateKey) -> str:
    """Returns the public key as Restate writes it: in base 58."""
    number = int.from_bytes(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return f"publickeyv1_{digits}"


@cache
def server() -> Server:
    """Returns the server of this process; it ends with it."""
    one = new_server()
    atexit.register(one.remove)
    return one


class Balancer:
    """Gives each connection to the next of the `ports` that accepts it."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await asyncio.sleep(0.01)  # what was accepted before has begun then
        for writer in self._open.values():
            writer.transport.abort()
        if self._open:
            await asyncio.wait(list(self._open))

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            async with _closing(writer):
                there, back = await self._connect()
                async with _closing(back), asyncio.TaskGroup() as copying:
                    copying.create_task(_copy(reader, back))
                    copying.create_task(_copy(there, writer))
        except* OSError:
            pass
        finally:
            del self._open[task]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in range(len(self.ports)):
            self._turn += 1
            port = self.ports[self._turn % len(self.ports)]
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        raise ConnectionError("there are no nodes")


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies until one end closes, which ends the other direction as well."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionError("closed")
