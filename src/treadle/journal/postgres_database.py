"""The database of the PostgreSQL journal: connecting to it, its errors, its migrations."""

import random
import re
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from treadle.errors import (
    ConfigurationError,
    JournalCorrupt,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalReadOnly,
    JournalUnavailable,
)
from treadle.journal.postgres_connection import PostgresConnection, Raw, adapt
from treadle.journal.schema_version import (
    ADDITIVE,
    SchemaVersion,
    read_migrations,
    require_known,
    require_usable,
    version_of,
)

SCHEMA = "treadle"
"""The schema of the tables, unless the URL sets another `search_path`."""

_PARAMETERS: dict[str, str | int] = {
    "application_name": "treadle",
    "client_encoding": "utf8",
    "connect_timeout": 5,
    # A machine that is gone is noticed within 10 s, by the client and by the server.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
_SETTINGS = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "2",
    # A process that stands still must not hold its locks.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "20s",
    # Compiling the look at other nodes took five times as long as the look.
    "jit": "off",
}


class Address:
    """Where a database is, and the pooler in front of it, if there is one.

    `name` is what errors call it, without a password.
    """

    def __init__(self, url: str, pooler: str = "") -> None:
        given = _parameters("The URL of the database", url)
        place = given.get("host") or given.get("hostaddr") or "this machine"
        self.name = f"the database {given.get('dbname') or given.get('user') or ''!r} on {place}"
        self.has_pooler = bool(pooler)
        self._given = given
        self._pooler = _parameters("The URL of the pooler", pooler) if pooler else None
        options = str(given.get("options") or "")
        settings = [f"-c {name}={value}" for name, value in _SETTINGS.items()]
        if "search_path" not in options:
            settings.append(f"-c search_path={SCHEMA}")
        self._options = " ".join([*settings, options])

    def require_session(self, connection: PostgresConnection) -> None:
        """Raises `JournalError` if a connection does not have the settings that were asked for."""
        (found,) = connection.execute("SELECT current_setting('search_path')").fetchone()
        if found != _settings_in(self._options).get("search_path", found):
            raise JournalError(
                f"{self.name[0].upper()}{self.name[1:]} ignores the options of a session, as some "
                f"poolers do; {_DIRECTLY}"
            )

    def connect(self) -> PostgresConnection:
        """Opens a connection to the server itself; raises the errors of psycopg."""
        return PostgresConnection(_connected({**self._given, "options": self._options}))

    def connect_pooled(self) -> PostgresConnection:
        """Opens a connection to the pooler, or to the server itself without one."""
        if self._pooler is None:
            return self.connect()
        raw = _connected(self._pooler)
        raw.prepare_threshold = None  # the next transaction may be in another session
        return PostgresConnection(raw, _settings_in(self._options))


def _parameters(what: str, url: str) -> dict[str, Any]:
    given, reason = None, ""
    if _SCHEME.match(url):
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:  # most of its texts may contain the password
            unknown = _UNKNOWN.search(str(error))
            reason = f" ({unknown[0]})" if unknown and "@" not in url.partition("?")[2] else ""
    if given is None or _has_password(given, url):
        raise ConfigurationError(
            f"{what} cannot be read{reason}; it has the form "
            "postgresql://user:password@host:5432/name, "
            'with "@", "/" and "%" of the password as %40, %2F and %25.'
        )
    return {name: value for name, value in given.items() if value is not None}


def _has_password(given: Mapping[str, Any], url: str) -> bool:
    """Whether a part of a password that is not encoded was read as host, port or name."""
    places = [given.get("host"), given.get("port"), "" if "%40" in url else given.get("dbname")]
    return any("@" in str(place) for place in places)


_SCHEME = re.compile("postgres(ql)?://")
_UNKNOWN = re.compile('invalid URI query parameter: ".*"')


def _connected(given: Mapping[str, Any]) -> Raw:
    raw: Raw = psycopg.connect(make_conninfo("", **{**_PARAMETERS, **given}), autocommit=True)
    adapt(raw)
    return raw


_OPTION = re.compile(r"(?:-c\s*|--)([\w.-]+)=((?:\\.|\S)*)")


def _settings_in(options: str) -> dict[str, str]:
    """Returns the settings in the `options` of a URL, without those of the connection itself.

    Source: https://www.postgresql.org/docs/current/libpq-connect.html (options)
    """
    return {
        name.replace("-", "_"): re.sub(r"\\(.)", r"\1", value)
        for name, value in _OPTION.findall(options)
        if not name.startswith("tcp_")
    }


_DIRECTLY = "give the URL of the server itself, and that of the pooler as `pooler`."
_IDENTITY = (
    "SELECT oid::bigint, 'version'::regclass::oid::bigint, pg_postmaster_start_time()::text"
    " FROM pg_database WHERE datname = current_database()"
)


def require_same(connection: PostgresConnection, pooled: PostgresConnection, name: str) -> None:
    """Raises `ConfigurationError` if the pooler leads to another database, or to a replica."""
    try:
        found = pooled.at_once(lambda: pooled.execute(_IDENTITY).fetchone())
    except errors.UndefinedTable:
        found = None
    if found != connection.execute(_IDENTITY).fetchone():
        raise ConfigurationError(
            f"The pooler does not lead to {name}: its tables or its server are others. Give the "
            "URL of a pooler in front of the same primary server and database."
        )


@contextmanager
def typed_errors(name: str) -> Generator[None]:
    """Converts errors of psycopg to errors of treadle."""
    try:
        yield
    except psycopg.Error as error:
        raise _typed(error, name) from error


def is_lost(error: BaseException) -> bool:
    """Returns whether the server could not be reached, or has ended the connection."""
    if not isinstance(error, psycopg.OperationalError):
        return False
    # Of a connection that was not made, there is only the text; a pooler has one code for all.
    if error.sqlstate is None or error.sqlstate.startswith("08"):
        return not _REFUSED.search(str(error))
    return error.sqlstate in _AWAY


_REFUSED = re.compile(
    "authentication failed|does not exist|no pg_hba.conf entry|permission denied"
    # What PgBouncer says.
    "|auth failed|no such (user|database)|unsupported startup parameter|statement pooling mode"
)
# Shutdown, crash, not ready yet, and a session that was idle in its transaction for too long.
_AWAY = frozenset(("57P01", "57P02", "57P03", "57P05", "25P03"))


def _typed(error: psycopg.Error, name: str) -> JournalError:
    name = name[0].upper() + name[1:]
    if "unsupported startup parameter" in str(error):
        return JournalError(f"{name} is a pooler; {_DIRECTLY}")
    if is_lost(error):
        return JournalUnavailable(f"{name} cannot be reached: {_first_line(error)}.")
    match error:
        case errors.DiskFull():
            return JournalFull(f"The disk of {name} is full; make room and try again.")
        case errors.DeadlockDetected() | errors.SerializationFailure() | errors.LockNotAvailable():
            return JournalLocked(f"{name} is locked by another process for too long; try again.")
        case errors.ReadOnlySqlTransaction():
            return JournalReadOnly(f"{name} is read-only; connect to the primary server.")
        case errors.InsufficientPrivilege():
            return JournalReadOnly(f"{name} refuses that: {_first_line(error)}; grant the right.")
        case errors.DataCorrupted() | errors.IndexCorrupted():
            return JournalCorrupt(f"{name} is damaged: {_first_line(error)}; restore a backup.")
        case _:
            return JournalError(f"{name} failed: {_first_line(error)}.")


def _first_line(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("connection failed: ").rstrip(".")


# One lock for each schema, which can be taken before there are tables.
_LOCK = "hashtext('treadle driver'), hashtext(current_setting('search_path'))"


def take_driver_lock(connection: PostgresConnection, *, alone: bool) -> bool:
    """Takes the lock of processes that drive, until the session ends; `alone` keeps others out."""
    shared = "" if alone else "_shared"
    (is_taken,) = connection.execute(f"SELECT pg_try_advisory_lock{shared}({_LOCK})").fetchone()
    return bool(is_taken)


def is_driver_locked(connection: PostgresConnection) -> bool:
    """Returns whether a process holds the lock of those that drive."""
    (is_held,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"  # noqa: S608 - of constants
        f" AND (classid::int, objid::int) = ({_LOCK}) AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    ).fetchone()
    return bool(is_held)


LOCK_MILLISECONDS = 500
"""How long a migration waits for a table in use: less than PostgreSQL waits before it looks for
deadlocks (1 s), so that the migration is what gives way, and no transaction of a node."""

MIGRATION_SECONDS = 30.0
"""How long a migration is tried, while other nodes use the tables."""


def migrate(connection: PostgresConnection, name: str) -> None:
    """Creates the schema, and migrates its tables to the newest version, in one transaction.

    Processes that start at the same time do it one after the other. Nodes of the version before may
    use the tables meanwhile.
    """
    scripts = _migrations()
    _require_encoding(connection, name)
    deadline = time.monotonic() + MIGRATION_SECONDS
    while _version(connection, name, len(scripts)) < len(scripts):
        try:
            _migrate(connection, name, scripts)
        except errors.LockNotAvailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - no secret


def _migrate(connection: PostgresConnection, name: str, scripts: list[str]) -> None:
    raw = connection.raw
    with raw.transaction():
        raw.execute("SELECT pg_advisory_xact_lock(hashtext('treadle migration'), 0)")
        version = _version(connection, name, len(scripts))
        if version >= len(scripts):
            return  # another process has done it
        if version == 0:
            _create_schema(raw)
        raw.execute(cast("LiteralString", f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}"))
        is_breaking = any(not one.startswith(ADDITIVE) for one in scripts[version:])
        if version and is_breaking:
            raw.execute("LOCK TABLE written IN EXCLUSIVE MODE")  # see `_NOTE`
        for script in scripts[version:]:
            raw.execute(cast("LiteralString", script))
        raw.execute("UPDATE version SET number = %s", (version_of(scripts).pack(),))


def _create_schema(raw: Raw) -> None:
    (schema,) = raw.execute("SELECT current_schema()").fetchone() or (None,)
    if schema is None:  # it does not exist; else its owner may have made it for us
        (path,) = raw.execute("SHOW search_path").fetchone() or ("",)
        raw.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(path.strip('"'))))
    raw.execute("CREATE TABLE version (number int NOT NULL)")
    raw.execute("INSERT INTO version VALUES (0)")


def require_tables(connection: PostgresConnection, name: str) -> None:
    """Raises `JournalError` if there are no tables, or those of an older version."""
    scripts = _migrations()
    _require_encoding(connection, name)
    if _version(connection, name, len(scripts)) < len(scripts):
        raise JournalError(
            f"{name[0].upper()}{name[1:]} has no tables of this treadle; open it once with "
            "drive=True."
        )


def known_version() -> int:
    """Returns the number of the newest migration."""
    return len(_migrations())


def require_no_newer(connection: PostgresConnection, name: str) -> None:
    """Raises `JournalTooNew` if the tables have something that this treadle does not know."""
    known = len(_migrations())
    require_known(_version(connection, name, known), known, name)


def _version(connection: PostgresConnection, name: str, known: int) -> int:
    """Returns the number of the last migration; raises if this treadle cannot use the tables."""
    stored = 0
    # To read a table of the system is what makes a session take note of tables that others made.
    (has_tables,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM pg_class WHERE oid = to_regclass('version'))"
    ).fetchone()
    if has_tables:
        (stored,) = connection.execute("SELECT number FROM version").fetchone()
    version = SchemaVersion.unpack(stored)
    require_usable(version, known, f"{name[0].upper()}{name[1:]}")
    return version.number


def _require_encoding(connection: PostgresConnection, name: str) -> None:
    (encoding,) = connection.execute("SHOW server_encoding").fetchone()
    if encoding != "UTF8":
        raise JournalError(
            f"{name[0].upper()}{name[1:]} stores texts as {encoding}; create it with ENCODING "
            "'UTF8'."
        )


def _migrations() -> list[str]:
    return read_migrations(Path(__file__).with_name("postgres_migrations"))
