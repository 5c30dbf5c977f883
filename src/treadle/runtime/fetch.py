"""Fetching a file from the web for a program; see `treadle.runtime.fetching`."""

from importlib import import_module
from typing import TYPE_CHECKING, cast

from treadle.domain.files import InputAudio, InputFile, InputImage
from treadle.domain.media import MAX_CONTENT

if TYPE_CHECKING:
    from treadle.runtime.fetching import Fetcher


async def fetch_file(
    url: str,
    *,
    max_bytes: int = MAX_CONTENT,
    timeout: float = 30.0,
) -> InputFile | InputImage | InputAudio:
    """Fetches a file from the web, as a part of a message: an image, audio, or else a file.

    Only a program can ask for that: the URL of a part is passed to the provider unread.

    - `url`: http or https, of a public address. Private, loopback, link-local, multicast and
      reserved addresses are refused, also after a redirect and inside of IPv6 addresses.
    - `max_bytes`: the most bytes, at most 50 MiB. `timeout`: the most time for all of it, in
      seconds.

    Raises `FetchFailed`, and `InvalidInput` for a URL of another form.
    """
    # Imported when it is first needed: most programs fetch nothing, and load no HTTP client for it.
    fetcher = cast("type[Fetcher]", import_module("treadle.runtime.fetching").Fetcher)()
    return await fetcher.fetch(url, max_bytes=max_bytes, timeout=timeout)
