"""Gradients of host functions: one rule for each name in the registry."""

from __future__ import annotations

from einkorn.ir.node import Node
from einkorn.passes.gradients import complex_numbers, fourier, linalg
from einkorn.passes.gradients.rule import Contributions, HostRule, Results

HOST_GRADIENTS: dict[str, HostRule] = {**complex_numbers.RULES, **fourier.RULES, **linalg.RULES}


def host_contributions(node: Node, results: Results) -> Contributions:
    """What a host function adds to the cotangents of its operands."""
    if not results:
        return (None,) * len(node.inputs)
    return HOST_GRADIENTS[node.attr("function")](node, results)


def host_gradient(node: Node, g: Node) -> Contributions:
    """The rule of a host function with one result."""
    return host_contributions(node, {0: g})
