"""A tree as text."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treadle.jobs.node import Node


def draw(top: "Node[object]", max_nodes: int) -> str:
    """Returns a line for each node from `top` down, indented by its depth, at most `max_nodes`."""
    lines: list[str] = []
    rest: list[tuple[Node[object], int]] = [(top, 0)]
    while rest and len(lines) < max_nodes:
        node, depth = rest.pop()
        lines.append(f"{'  ' * depth}{node.name} #{node.id} {node.state}")
        rest.extend((child, depth + 1) for child in reversed(node.children))
    if rest:
        lines.append("… and more")
    return "\n".join(lines)
