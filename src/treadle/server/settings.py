"""The settings of a server: from options, the environment and a file."""

import ipaddress
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from treadle.domain.arguments import shown
from treadle.domain.media import MAX_CONTENT
from treadle.domain.urls import masked_database
from treadle.errors import ConfigurationError
from treadle.server.origins import is_origin

MAX_RUNS = 1000
"""The highest `ServerSettings.max_runs_per_owner`: they are counted in one page of threads."""

PREFIX = "TREADLE_"
TABLE = "server"

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The default of `ServerSettings.max_body_bytes`."""


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server listens, whom it lets in, and its limits.

    - `host`, `port`: the address; port 0 is any free one. Another host than a loopback address
      needs keys.
    - `database`: the file of the database, or the URL of a PostgreSQL database. `keys`: the file
      of the keys, by default next to the database, if that is a file. `pooler`: the URL of a pooler
      of the PostgreSQL database, which all connections use except two.
    - `auth`: whether requests need a key.
    - `hosts`: names by which the server is reached, such as `agents.example.com`. IP addresses and
      `localhost` are always accepted; `*` accepts any name.
    - `origins`: origins of other sites whose pages may use the API, such as
      `https://app.example.com`.
    - `trusted_proxies`: addresses whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    - `max_body_bytes`, `max_file_bytes`: the largest body, and the largest file.
    - `max_header_bytes`, `max_headers`: the most bytes of a request before its body, and the most
      headers. `header_seconds`: how long they may take to arrive.
    - `max_message_bytes`: the longest text of a message, in UTF-8.
    - `requests_per_second`, `burst_requests`: how many requests a key may make in the long run (0:
      no limit), and at once.
    - `max_streams`: how many streams and waits of a key may be open.
    - `max_runs_per_owner`: how many threads of an owner may have a run in progress, at most 1,000.
      `max_runs_per_node`: how many runs this server works on at a time (0: no limit).
    - `body_seconds`: how long a body may take to arrive, at 64 KiB a second for a long one.
    - `max_wait_seconds`: the longest `?wait=`.
    - `keep_alive_seconds`: how often a stream without events sends a comment.
    - `write_timeout_seconds`: after how long a client that takes nothing is disconnected.
    - `retry_milliseconds`: after how long an EventSource should connect again.
    - `grace_seconds`: how long a shutdown waits for steps in progress.
    - `access_log`: whether each request is logged, without its content.
    - `node_host`, `node_port`: the address on which this server listens for the other servers of a
      PostgreSQL database, by default 127.0.0.1 and any free port. Another host than a loopback
      address needs a certificate. `node_name`: the host by which the others reach it, by default
      `node_host`.
    - `node_certificate`, `node_key`, `node_authority`: PEM files: the certificate of this server
      for the others, its key, and the authority of the certificates of all.
    - `restate_ingress`: the URL of the ingress of a Restate server that asks the servers of a
      PostgreSQL database to drive threads. `restate_admin`, `restate_url`, `restate_host`,
      `restate_port`, `restate_keys`, `restate_token`, `restate_service`: the other fields of
      `treadle.Restate`; `restate_keys` are its `identity_keys`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    database: str = ""
    pooler: str = ""
    keys: str = ""
    auth: bool = True
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    max_body_bytes: int = MAX_BODY_BYTES
    max_file_bytes: int = MAX_CONTENT
    max_header_bytes: int = 32 * 1024
    max_headers: int = 100
    header_seconds: float = 10.0
    max_message_bytes: int = 1024 * 1024
    requests_per_second: float = 100.0
    burst_requests: int = 200
    max_streams: int = 1000
    max_runs_per_owner: int = 100
    max_runs_per_node: int = 0
    body_seconds: float = 30.0
    max_wait_seconds: float = 300.0
    keep_alive_seconds: float = 15.0
    write_timeout_seconds: float = 30.0
    retry_milliseconds: int = 1000
    grace_seconds: float = 10.0
    access_log: bool = True
    node_host: str = ""
    node_port: int = 0
    node_name: str = ""
    node_certificate: str = ""
    node_key: str = ""
    node_authority: str = ""
    restate_ingress: str = ""
    restate_admin: str = ""
    restate_url: str = ""
    restate_host: str = "127.0.0.1"
    restate_port: int = 9080
    restate_keys: tuple[str, ...] = ()
    restate_token: str = ""
    restate_service: str = "treadle"

    def __repr__(self) -> str:
        fields = [name for name in self.__struct_fields__ if name != "restate_token"]
        shown = [f"{name}={_without_secrets(getattr(self, name))!r}" for name in fields]
        return f"ServerSettings({', '.join(shown)})"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port={self.port} is not a port; use 0 to 65535.")
        if not 0 <= self.node_port <= 65535:
            raise ConfigurationError(f"node_port={self.node_port} is not a port; use 0 to 65535.")
        for name in _ABOVE_ZERO:
            _require_above_zero(name, getattr(self, name))
        for name in ("grace_seconds", "requests_per_second", "max_runs_per_node"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"{name}={getattr(self, name)} cannot be negative.")
        if self.max_runs_per_owner > MAX_RUNS:
            raise ConfigurationError(
                f"max_runs_per_owner={self.max_runs_per_owner} is above {MAX_RUNS}."
            )
        for origin in self.origins:
            if not is_origin(origin):
                raise ConfigurationError(
                    f"origins has {shown(origin)}, which is not an origin; write it as "
                    "https://app.example.com, without a path. Any origin (*) is not possible."
                )
        for proxy in self.trusted_proxies:
            _require_network(proxy)


_ABOVE_ZERO = (
    "max_body_bytes",
    "max_file_bytes",
    "max_header_bytes",
    "max_headers",
    "header_seconds",
    "max_message_bytes",
    "burst_requests",
    "max_streams",
    "max_runs_per_owner",
    "body_seconds",
    "max_wait_seconds",
    "keep_alive_seconds",
    "write_timeout_seconds",
    "retry_milliseconds",
)


def _without_secrets(value: object) -> object:
    return masked_database(value) if isinstance(value, str) and "://" in value else value


def _require_network(proxy: str) -> None:
    try:
        network = ipaddress.ip_network(proxy, strict=False)
    except ValueError as error:
        raise ConfigurationError(
            f"trusted_proxies has {shown(proxy)}, which is not an IP address or network."
        ) from error
    if not network.prefixlen:
        raise ConfigurationError(
            f"trusted_proxies has {shown(proxy)}, every address, so that any client could name "
            "its own; write the address of the proxy."
        )


def _require_above_zero(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"{name}={value} must be above 0.")


def load_settings(
    options: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> ServerSettings:
    """Returns the settings of `options`, else of `TREADLE_…` variables, else of the file.

    An option that is None is not given. The file is TOML with a table `[server]`. A variable is the
    name of a setting in capitals, such as `TREADLE_PORT`; several values are separated by commas.
    Raises `ConfigurationError`, which names what is wrong.
    """
    known = get_type_hints(ServerSettings)
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    if file is not None:
        for name, value in _table_of(file).items():
            values[name], sources[name] = value, f"{name} in {file}"
    for name, kind in known.items():
        variable = f"{PREFIX}{name.upper()}"
        text = environ.get(variable, "").strip()
        if text:
            several = [one.strip() for one in text.split(",") if one.strip()]
            values[name] = several if get_origin(kind) is tuple else text
            sources[name] = variable
    for name, value in options.items():
        if value is not None:
            values[name], sources[name] = value, f"the option {name}"
    for name, value in values.items():
        if name not in known:
            raise ConfigurationError(
                f"{sources[name]} is not a setting of the server; these are: {', '.join(known)}."
            )
        try:
            msgspec.convert(value, known[name], strict=False)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{sources[name]} is not valid: {error}.") from error
    return msgspec.convert(values, ServerSettings, strict=False)


def _table_of(file: Path) -> Mapping[str, object]:
    try:
        with file.open("rb") as opened:
            content: Mapping[str, object] = tomllib.load(opened)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}.") from error
    table: Any = content.get(TABLE, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{TABLE} in {file} must be a table: [{TABLE}].")
    return cast("Mapping[str, object]", table)
