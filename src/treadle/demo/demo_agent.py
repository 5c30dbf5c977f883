"""The demo agent of `treadle chat`, with a few working tools."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from treadle.agent import Agent
from treadle.demo.calculator import evaluate
from treadle.demo.climate import typical_weather
from treadle.demo.folder import Folder
from treadle.loop.definition import ToolFor
from treadle.memory.compaction.strategies import SlidingWindow
from treadle.models.base import Model
from treadle.models.resolve import resolve_model
from treadle.models.windows import window_of
from treadle.tools.context import RunContext
from treadle.tools.function import tool

INSTRUCTIONS = (
    "You are the demo agent of treadle, an agent runtime for Python. Be brief and friendly. "
    "Use the tools whenever they can answer; call several at once if that helps."
)
WINDOW = 32_000
"""The window assumed for models whose window is not known, in tokens."""

FOLDER = "folder"
"""The field of a thread's metadata that names its folder."""

MAX_SECONDS = 30.0
PROGRESS_EVERY = 25


@tool
async def get_weather(city: str) -> dict[str, str | int]:
    """Returns the typical weather of a city in this month.

    Args:
        city: Name of a big city, in English.
    """
    return typical_weather(city, datetime.now(UTC).date())


@tool
async def calculate(expression: str) -> str:
    """Calculates an arithmetic expression such as 17*23 or sqrt(2)/3.

    Args:
        expression: Numbers, + - * / // % **, brackets, abs, max, min, round, sqrt, pi, e.
    """
    return str(evaluate(expression))


@tool
def current_time(timezone: str = "UTC") -> str:
    """Returns the date and time in a time zone.

    Args:
        timezone: An IANA name such as Europe/Paris, or the city in one, such as Paris.
    """
    name = timezone.strip().replace(" ", "_")
    if name.upper() == "UTC":
        return f"{datetime.now(UTC):%A, %d %B %Y, %H:%M} UTC"
    try:
        if "/" not in name:
            cities = (zone for zone in available_timezones() if zone.endswith(f"/{name}"))
            name = min(cities, default=name)
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"The time zone {timezone[:100]!r} is unknown; use an IANA name such as "
            "Europe/Paris (this machine needs the tzdata package for them)."
        ) from error
    return f"{datetime.now(zone):%A, %d %B %Y, %H:%M %Z}"


def file_tools(
    root: Path, database: Path | None = None, *, of_thread: bool = False
) -> list[ToolFor[None]]:
    """Returns tools that read the files below `root`, except those of `database`.

    With `of_thread`, the metadata `folder` of a thread without an owner is used instead of `root`:
    chats in several folders share the process that drives them.
    """

    def folder_of(context: RunContext[None]) -> Folder:
        named = context.metadata.get(FOLDER) if of_thread and not context.owner else None
        return Folder(Path(named) if isinstance(named, str) else root, database)

    @tool
    def list_files(context: RunContext[None]) -> list[str]:
        """Lists the files in the folder."""
        return folder_of(context).files()

    @tool
    def read_file(context: RunContext[None], path: str) -> str:
        """Reads a text file in the folder.

        Args:
            path: The path of the file, as returned by list_files.
        """
        return folder_of(context).read(path)

    @tool(timeout=2 * MAX_SECONDS)
    async def slow_search(
        context: RunContext[None], query: str, seconds: float = 3.0
    ) -> dict[str, object]:
        """Searches the text files in the folder for a word, slowly.

        Args:
            query: The text to look for.
            seconds: The minimum duration of the search, up to 30.
        """
        folder = folder_of(context)
        files = await asyncio.to_thread(folder.searchable)
        pause = min(max(seconds, 0.0), MAX_SECONDS) / max(len(files), 1)
        every = max(1, min(PROGRESS_EVERY, len(files) // 4))
        found: list[str] = []
        for number, path in enumerate(files, 1):
            if number % every == 0:
                context.progress(f"{number} of {len(files)} files")
            if await asyncio.to_thread(_contains, folder, path, query):
                found.append(path)
            await asyncio.sleep(pause)
        return {"query": query, "files_searched": len(files), "found_in": found}

    return [list_files, read_file, slow_search]


def _contains(folder: Folder, path: str, query: str) -> bool:
    try:
        return query.casefold() in folder.read(path).casefold()
    except (OSError, ValueError):  # not a text file
        return False


EXAMPLES = (
    "What is the weather in Paris and in Rome?",
    "What is 17*23, and what time is it in Tokyo?",
    "Which files are here?",
)


def demo_agent(
    model: Model | str, root: Path, database: Path | None = None, *, of_thread: bool = False
) -> Agent[None, str]:
    """Returns the demo agent, with file tools for the folder `root` without its own `database`.

    `of_thread` is that of `file_tools`.
    """
    files = file_tools(root, database, of_thread=of_thread)
    tools: list[ToolFor[None]] = [get_weather, calculate, current_time, *files]
    resolved = resolve_model(model)
    # A chat may last for months; its length must not end it.
    window = SlidingWindow(max_tokens=window_of(resolved.name) or WINDOW)
    return Agent(
        resolved,
        name="demo",
        instructions=INSTRUCTIONS,
        tools=tools,
        context=window,
        to_user=True,
        examples=EXAMPLES,
    )
