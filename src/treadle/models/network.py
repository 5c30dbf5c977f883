"""A switch that forbids models on other machines, for tests.

`treadle.testing.forbid_network` sets it; the network transport checks it before it connects.
"""

from ipaddress import ip_address

from treadle.errors import NetworkForbidden

_forbidden = False


def forbid(*, forbidden: bool) -> bool:
    """Forbids or allows models on other machines; returns the previous setting."""
    global _forbidden
    before, _forbidden = _forbidden, forbidden
    return before


def require_allowed(host: str) -> None:
    """Raises `NetworkForbidden` if `host` is not this machine and the network is forbidden."""
    if _forbidden and not _is_loopback(host):
        raise NetworkForbidden(
            f"A test called the model at {host}. Use ScriptedModel or ProviderSimulator, or lift "
            "forbid_network() for this test."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name, not an address
        return False
