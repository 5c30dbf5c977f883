"""Chats: the threads that clients name by ids of their own."""

from typing import Any

from treadle.errors import ThreadNotFound
from treadle.runtime.thread import Thread
from treadle.server.api_request import ApiRequest, own_owner

PREFIX = "/ai-sdk"
"""The beginning of the paths, and of the keys of threads and messages."""


def chat_key(id: str) -> str:
    """Returns the key of a thread."""
    return f"{PREFIX} {id}"


def is_thread_id(id: str) -> bool:
    """Whether an id is that of a thread, and not one that a client made up."""
    return id.startswith("thread_")


async def find_chat(request: ApiRequest[Any, Any], id: str) -> Thread | None:
    """Returns the thread of a chat; None for one that has no message yet.

    A chat with the id of a thread is that thread; raises `ThreadNotFound` if it does not exist.
    """
    if is_thread_id(id):
        return await request.runtime.connect(id)
    try:
        return await request.runtime.connect(key=chat_key(id), owner=own_owner(request, None))
    except ThreadNotFound:
        return None


def message_key(id: str, attempt: int = 0) -> str:
    """Returns the key under which a message is sent, for the n-th answer to it."""
    return f"{PREFIX} {attempt} {id}"


def message_of_key(key: str) -> tuple[str, int]:
    """Returns the id of a message and the number of the answer; an empty id for other keys."""
    prefix, _, rest = key.partition(" ")
    attempt, _, id = rest.partition(" ")
    if prefix != PREFIX or not (attempt.isascii() and attempt.isdigit()):
        return "", 0
    return id, int(attempt[:9])
