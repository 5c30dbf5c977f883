"""Where a node listens for other nodes."""

import ipaddress
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from treadle.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl


class NodeListener(NamedTuple):
    """Where a node listens for the other nodes of its database, and how they reach it.

    - `host`, `port`: the address to listen on; port 0 is any free one.
    - `name`: the host name or address by which other nodes reach it; by default `host`.
    - `server_tls`, `client_tls`: contexts for TLS, as a server and as a client of other nodes.
      Needed unless `host` is a loopback address. Let both require certificates of an authority of
      your own.
    """

    host: str = "127.0.0.1"
    port: int = 0
    name: str = ""
    server_tls: "ssl.SSLContext | None" = None
    client_tls: "ssl.SSLContext | None" = None

    @classmethod
    def with_certificate(
        cls,
        certificate: str | Path,
        key: str | Path,
        authority: str | Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        name: str = "",
    ) -> "NodeListener":
        """Returns a listener with TLS in which both ends have a certificate of one authority.

        - `certificate`, `key`, `authority`: PEM files: the chain of this node, its private key, and
          the certificates of the authority. The certificate is valid for `name`, or for `host`
          without one.

        Raises `ConfigurationError` for a file that cannot be used.
        """
        import ssl  # noqa: PLC0415 - most programs have no other nodes

        try:
            server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
            server.verify_mode = ssl.CERT_REQUIRED
            client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authority)
            for context in (server, client):
                context.load_cert_chain(certificate, key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigurationError(
                f"The certificate {str(certificate)[:200]!r}, its key or its authority cannot be "
                f"used: {error}."
            ) from error
        return cls(host, port, name, server, client)


def require_safe(listener: NodeListener) -> None:
    """Raises `ConfigurationError` for a listener that strangers could listen to."""
    if listener.server_tls is not None and listener.client_tls is None:
        raise ConfigurationError("A node with server_tls needs client_tls, to reach other nodes.")
    host = listener.host
    if not is_loopback(host) and listener.server_tls is None:
        raise ConfigurationError(
            f"A node that listens on {host[:100]!r} needs TLS: give it server_tls and client_tls, "
            "or let it listen on 127.0.0.1."
        )
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified and not listener.name:
            raise ConfigurationError(
                f"A node that listens on {host} needs a name by which other nodes reach it."
            )


def is_loopback(host: str) -> bool:
    """Returns whether a host name or an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
