"""The threads in which texts become vectors, where that takes a while."""

from weft.executor import DaemonExecutor

THREADS = DaemonExecutor(4)
"""For embedders that are plain functions, and for looking at what embedders return."""
