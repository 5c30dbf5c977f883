"""Uses up the file descriptors of this process."""

import contextlib
import os
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def none_left(but: int = 0) -> Iterator[None]:
    """Leaves `but` descriptors that can be opened in its block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(but):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in held:
            os.close(one)
