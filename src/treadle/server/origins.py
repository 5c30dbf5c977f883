"""Which hosts and origins may use the server: against DNS rebinding and foreign pages."""

import ipaddress
import re
from collections.abc import Collection

_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[a-zA-Z0-9._-]{1,253})(?::(\d{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def is_allowed_host(header: str, names: Collection[str]) -> bool:
    """Returns whether a header `Host` names this server.

    A page of another site can make a name of its own point to this machine, but not an address. So
    addresses and `localhost` are accepted, and of other names those in `names`.
    """
    match = _HOST.fullmatch(header)
    if match is None:
        return False
    name = match[1].lower().rstrip(".")
    return "*" in names or _is_address(name) or name == "localhost" or name in names


def is_loopback(host: str) -> bool:
    """Returns whether the name or address in a header `Host` is that of the same machine."""
    match = _HOST.fullmatch(host)
    name = match[1].lower() if match is not None else host.lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def is_own_origin(origin: str, host: str) -> bool:
    """Returns whether an `Origin` is the server that `Host` names, by http or https."""
    scheme, mark, rest = origin.partition("://")
    if not mark or scheme not in _DEFAULT_PORTS or not host:
        return False
    default = _DEFAULT_PORTS[scheme]
    return _with_port(rest, default) == _with_port(host, default)


def is_origin(text: str) -> bool:
    """Returns whether a text is an origin, as a browser sends it."""
    scheme, mark, rest = text.partition("://")
    return bool(mark) and scheme in _DEFAULT_PORTS and _HOST.fullmatch(rest) is not None


def _with_port(host: str, default: str) -> str:
    match = _HOST.fullmatch(host)
    if match is None:
        return f"{host}:"  # like no other
    return f"{match[1].lower()}:{match[2] or default}"
