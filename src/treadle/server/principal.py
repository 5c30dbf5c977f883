"""Who makes a request, and what that allows."""

from collections.abc import Iterable
from typing import Literal, cast, get_args

from msgspec import Struct

from treadle.domain.arguments import require_text, shown
from treadle.errors import ConfigurationError

Scope = Literal["read", "write", "approve", "admin"]
"""What a key allows.

`read`: to read everything of its owner. `write`: to create, send, answer external calls, change and
delete. `approve`: to approve and deny calls. `admin`: all of these, items with roles other than
`user`, and the metrics.

A request of Chat Completions, Responses or AG-UI that begins a conversation brings the caller's own
history, which is data: messages of the assistant, and calls with their outputs, need `write` only;
messages of the roles `system` and `developer` need `admin` there as well.
"""

SCOPES: frozenset[Scope] = frozenset(get_args(Scope))


class Principal(Struct, frozen=True, kw_only=True):
    """The person or program that makes a request.

    - `by`: its name, which is recorded with everything that it does. Its limits count by it.
    - `owner`: the owner whose threads it may use; None for those of all owners.
    - `scopes`: what it may do.
    - `expires_at`: when its credentials expire, in Unix seconds; open streams end then.
    - `acts_for`: the person for whom a program makes the request, by its own word; it is recorded
      behind `by`.
    """

    by: str
    owner: str | None = None
    scopes: frozenset[Scope] = SCOPES
    expires_at: float | None = None
    acts_for: str = ""

    @property
    def recorded(self) -> str:
        """What is recorded with everything that it does: `key:…`, or `key:…/person`."""
        return "/".join(name for name in (self.by, self.acts_for) if name)

    def may(self, scope: Scope) -> bool:
        """Returns whether a scope is included."""
        return scope in self.scopes or "admin" in self.scopes


def require_scopes(scopes: Iterable[str]) -> frozenset[Scope]:
    """Returns scopes that were given by name; raises `ConfigurationError`."""
    known: dict[str, Scope] = {scope: scope for scope in SCOPES}
    chosen: set[Scope] = set()
    for scope in scopes:
        if scope not in known:
            raise ConfigurationError(
                f"{shown(scope)} is not a scope; use {', '.join(get_args(Scope))}."
            )
        chosen.add(known[scope])
    if not chosen:
        raise ConfigurationError(f"A key needs a scope: {', '.join(get_args(Scope))}.")
    return frozenset(chosen)


def require_principal(value: object) -> Principal:
    """Returns the principal that a function of the program gave; raises `ConfigurationError`."""
    if not isinstance(value, Principal):
        raise ConfigurationError(
            f"authenticate returned {shown(value)}; it must return a Principal, or None."
        )
    require_text("Principal.by", value.by)
    if value.owner is not None:
        require_text("Principal.owner", value.owner)
    require_text("Principal.acts_for", value.acts_for)
    expires_at = cast("object", value.expires_at)
    if expires_at is not None and not isinstance(expires_at, float | int):
        raise ConfigurationError(
            f"Principal.expires_at is {shown(expires_at)}; give Unix seconds, or None."
        )
    return value
