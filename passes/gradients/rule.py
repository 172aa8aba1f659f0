"""What a gradient rule is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from einkorn.ir.node import Node

Contributions = Sequence[Node | None]
"""For each operand what it adds to that operand's cotangent; None is a symbolic zero."""

Rule = Callable[[Node, Node], Contributions]
"""(node, cotangent of the node) -> contributions, written with ops that have rules themselves."""


Results = Mapping[int, Node]
"""The cotangents of the results of a host function, by index; 0 for an only result."""

HostRule = Callable[[Node, Results], Contributions]
"""(node, cotangents of its results) -> contributions."""


def no_gradient(node: Node, cotangent: Node) -> Contributions:
    """Zero wherever it exists, as for a piecewise constant function, or zero by definition."""
    return (None,) * len(node.inputs)
