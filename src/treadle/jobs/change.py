"""The changes of a tree, as a listener hears of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from treadle.jobs.node import Node


class NodeSubmitted(msgspec.Struct, frozen=True):
    """A node was placed in the tree; it is pending."""

    node: "Node[object]"


class NodeStarted(msgspec.Struct, frozen=True):
    """The body of a node is about to run."""

    node: "Node[object]"


class NodeSettled(msgspec.Struct, frozen=True):
    """A node and all its descendants have ended, and its callbacks have run."""

    node: "Node[object]"


Change = NodeSubmitted | NodeStarted | NodeSettled
Listener = Callable[[Change], None]
"""Is called in the turn of the event loop in which a change happens; it must not block.

What it raises is kept in the `callback_errors` of the node.
"""
