"""The threads in which texts become vectors, where that takes a while."""

from treadle.executor import DaemonExecutor

EMBEDDERS = DaemonExecutor(4)
"""For embedders that are plain functions: written by others, they may never return."""

THREADS = DaemonExecutor(4)
"""For what ends by itself: looking at what embedders return, opening and closing files."""
