"""Where Restate is, and where it reaches this node."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from treadle.bus.listener import is_loopback
from treadle.domain.urls import masked_url
from treadle.errors import ConfigurationError

DEFAULT_PORT = 9080
"""The port at which services of Restate are usually reached."""

_SERVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Restate:
    """A Restate server that asks the nodes of a PostgreSQL database to drive threads.

    Give it to `treadle.open(…, engine=…)` in each process that drives; needs `treadle[restate]`.

    - `ingress`: the URL of its ingress, such as `http://restate:8080`.
    - `admin`: the URL of its admin API, such as `http://restate:9070`, with which each node
      registers `url`. Without it, register `url` with HTTP 1.1 yourself.
    - `url`: where Restate reaches the nodes: that of a load balancer in front of all of them. By
      default that of this node, for one node on the machine of Restate.
    - `host`, `port`: the address on which this node listens for Restate; port 0 is any free one.
      Another host than a loopback address needs `identity_keys`.
    - `identity_keys`: the public keys (`publickeyv1_…`) with one of which Restate signs its
      requests. Without them, requests are not checked.
    - `token`: sent to Restate as a bearer token, for Restate Cloud; `repr` does not show it.
    - `service`: the name of the virtual object; databases that share a Restate server need
      different names.

    Raises `ConfigurationError` for what cannot be used.
    """

    ingress: str
    admin: str = ""
    url: str = ""
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    identity_keys: Sequence[str] = ()
    token: str = field(default="", repr=False)
    service: str = "treadle"

    def __post_init__(self) -> None:
        _require_url("ingress", self.ingress)
        for name in ("admin", "url"):
            if getattr(self, name):
                _require_url(name, getattr(self, name))
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port={self.port} is not a port; use 0 to 65535.")
        if not _SERVICE.fullmatch(self.service):
            raise ConfigurationError(
                f"service={self.service[:100]!r} is not a name of a service; use letters, digits, "
                "'_', '-' and '.', and begin with a letter."
            )
        if isinstance(self.identity_keys, str):
            raise ConfigurationError("identity_keys is a list: identity_keys=['publickeyv1_…'].")
        if not is_loopback(self.host):
            self._require_protected()

    def _require_protected(self) -> None:
        if not self.identity_keys:
            raise ConfigurationError(
                f"A node that Restate reaches on {self.host[:100]!r} needs identity_keys: the "
                "public key of Restate, which its log shows; or listen on 127.0.0.1."
            )
        if self.admin and not self.url:
            raise ConfigurationError(
                "With admin and another host than 127.0.0.1, give the url at which Restate reaches "
                "the nodes."
            )


def _require_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        is_url = is_url and "@" not in parts.netloc and not parts.query and not parts.fragment
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigurationError(
            f"{name}={masked_url(url)[:200]!r} is not a URL such as http://restate:8080, without a "
            "user or a query; a secret of Restate goes into token."
        )
