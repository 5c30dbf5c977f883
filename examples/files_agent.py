"""Plain functions as tools, in threads, with dependencies of the run.

python examples/files_agent.py
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import treadle


@dataclass
class Shelf:
    """The folder that the tools may read."""

    root: Path


@treadle.tool
def list_files(context: treadle.RunContext[Shelf]) -> list[str]:
    """Lists the files in the folder."""
    return sorted(path.name for path in context.deps.root.iterdir() if path.is_file())


@treadle.tool
def count_words(context: treadle.RunContext[Shelf], file: str) -> int:
    """Counts the words in a file.

    Args:
        file: The name of the file.
    """
    return len((context.deps.root / Path(file).name).read_text().split())


async def main(root: Path = Path(__file__).parent) -> None:
    """Asks for the files of a folder."""
    model = os.environ.get("TREADLE_MODEL", "demo")
    agent = treadle.Agent[Shelf, str](model, tools=[list_files, count_words])
    result = await agent.run("List the files, please.", deps=Shelf(root))
    print(result.output)


if __name__ == "__main__":
    asyncio.run(main())
