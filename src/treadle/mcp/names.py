"""Tool names that providers accept, for tools with any name."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

PREFIX = re.compile(r"[a-zA-Z0-9_-]{0,32}")
_MAX_CHARS = 64
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_-]")
_DIGEST_CHARS = 8


def tool_names(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Maps the server's own name of each tool to the name for the provider.

    Providers accept at most 64 letters, digits, `_` and `-`
    (https://platform.openai.com/docs/api-reference/responses/create, `tools.name`); other
    characters become `_`. A name that is too long or not unique ends in a digest of the original,
    which does not depend on the order in which the server lists its tools.
    """
    wanted = {name: _NOT_ALLOWED.sub("_", prefix + name) or "_" for name in dict.fromkeys(names)}
    times = Counter(wanted.values())
    return {
        name: found
        if len(found) <= _MAX_CHARS and (times[found] == 1 or found == prefix + name)
        else _digested(found, name)
        for name, found in wanted.items()
    }


def _digested(found: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]
    return f"{found[: _MAX_CHARS - _DIGEST_CHARS - 1]}_{digest}"
