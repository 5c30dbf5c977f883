"""A PostgreSQL server for tests: started with the first one that asks, on a Unix socket."""

import atexit
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import psycopg
from tests import families

_numbers = itertools.count(1)

SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # a test does not lose its power
    "full_page_writes": "off",
    "max_connections": "200",
}


# Ends the server and removes its folder when its standard input ends: when this process does.
_WATCH = """
import os, shutil, signal, sys
sys.stdin.read()
os.kill(int(sys.argv[1]), signal.SIGQUIT)
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


class Server:
    """A cluster in a temporary folder; as root its processes run as the user `postgres`."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._user = "postgres" if os.getuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="treadle-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._run(
            "initdb", "-D", str(self.data), "-U", "treadle", "-A", "trust", "-E", "UTF8",
            "--no-sync", "--locale=C",
        )  # fmt: skip
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments],
            user=self._user,
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [
                str(self._programs / "postgres"),
                *("-D", str(self.data), "-k", str(self.folder)),
                *settings,
            ],
            user=self._user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._watch = subprocess.Popen(
            [sys.executable, "-c", _WATCH, str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
        )
        end = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url("public")).close()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops the server: SIGINT ends its sessions, SIGQUIT is a crash."""
        if self._watch is not None:
            self._watch.kill()
            self._watch.communicate()
            self._watch = None
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        """Stops the server and removes what it has stored."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, schema: str = "") -> str:
        """Returns the URL of a new schema, or of one with this name."""
        schema = schema or f"test_{next(_numbers)}"
        return f"postgresql://treadle@/postgres?host={self.folder}&options=-csearch_path%3D{schema}"


def new_server(programs: Path | None = None) -> Server:
    """Returns a server of its own, for a test that stops it."""
    programs = programs or families.postgres()
    assert programs is not None
    return Server(programs)


class Pooler:
    """PgBouncer in front of a server, on a Unix socket: three sessions, a new one for each
    transaction.
    """

    def __init__(self, behind: Server, mode: str = "transaction", **settings: str) -> None:
        program = families.pgbouncer()
        assert program is not None
        user = "postgres" if os.getuid() == 0 else None  # it does not run as root
        self.folder = Path(tempfile.mkdtemp(prefix="treadle-pgbouncer-"))
        users = self.folder / "users"
        users.write_text('"treadle" ""\n')
        configured = self.folder / "pgbouncer.ini"
        lines = {
            "listen_port": "6432",
            "unix_socket_dir": str(self.folder),
            "auth_type": "trust",
            "auth_file": str(users),
            "pool_mode": mode,
            "default_pool_size": "3",
            "server_round_robin": "1",
            "max_client_conn": "200",
        } | settings
        configured.write_text(
            f"[databases]\n* = host={behind.folder}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in lines.items())
        )
        for path in (self.folder, users, configured):
            if user is not None:
                shutil.chown(path, user)
        self._command, self._user = [program, "-q", str(configured)], user
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        self._process = subprocess.Popen(
            self._command,
            user=self._user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._watch = subprocess.Popen(
            [sys.executable, "-c", _WATCH, str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
        )
        end = time.monotonic() + 30
        while not (self.folder / ".s.PGSQL.6432").exists():
            assert time.monotonic() < end
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops it: its connections are cut."""
        self._watch.kill()
        self._watch.communicate()
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)
        (self.folder / ".s.PGSQL.6432").unlink(missing_ok=True)

    def remove(self) -> None:
        """Stops it and removes its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres", user: str = "treadle") -> str:
        """Returns the URL of a database behind it."""
        return f"postgresql://{user}@/{database}?host={self.folder}&port=6432"


@cache
def pooler() -> Pooler:
    """Returns the pooler of this process in front of `server`; it ends with it."""
    one = Pooler(server())
    atexit.register(one.remove)
    return one


@cache
def server() -> Server:
    """Returns the server of this process; it ends with it."""
    one = new_server()
    atexit.register(one.remove)
    return one


@cache
def vector_server() -> Server:
    """Returns the server of this process that has pgvector."""
    one = new_server(families.pgvector())
    atexit.register(one.remove)
    return one
