"""`rewrite`: apply rules to every node of a graph in one forward sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from einkorn.ir.errors import IRError
from einkorn.ir.graph import Graph, Origin
from einkorn.ir.host_calls import is_host_node
from einkorn.ir.node import Node, remake
from einkorn.ir.ops import Op

Rule = Callable[[Node], Node | None]
"""A named function: a node to what may stand in its place, or None when the rule does not match."""

Allow = Callable[[str], bool]
"""Asked before each rewrite, with the rule's name; false refuses it."""

_LIMIT = 200  # rewrites of one node, after which the rules must be undoing each other


class Fuel:
    """An `allow` that permits the first `amount` rewrites and remembers their names, to bisect."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.used: list[str] = []

    def __call__(self, name: str) -> bool:
        if len(self.used) >= self.amount:
            return False
        self.used.append(name)
        return True


def always(name: str) -> bool:
    """The `allow` that permits every rewrite."""
    return True


def rewrite(graph: Graph, rules: Mapping[Op, Sequence[Rule]], *, allow: Allow = always) -> Graph:
    """The graph with the rules of its op applied to each node until none matches.

    What is computed on the host stays as it is: rules are about the ops of kernels. Operands are
    rewritten before their users. A node that was replaced leaves its origin to its
    replacement, unless that has one. Graphs that are called stay as they are.
    """
    env: dict[Node, Node] = {}
    origins: dict[Node, Origin] = {}
    for node in graph.nodes:
        env[node] = _settle(remake(node, tuple(env[x] for x in node.inputs)), rules, allow)
        if node in graph.origins and env[node].op is not Op.INPUT:
            origins.setdefault(env[node], graph.origins[node])
    if all(before is after for before, after in env.items()):
        return graph
    return graph.with_results((env[node] for node in graph.results), origins=origins)


def _settle(node: Node, rules: Mapping[Op, Sequence[Rule]], allow: Allow) -> Node:
    """The node after as many rewrites as there are."""
    applied: list[str] = []
    if node.op in rules and is_host_node(node):
        return node
    while (step := _apply(node, rules.get(node.op, ()), allow)) is not None:
        node, name = step
        applied.append(name)
        if len(applied) > _LIMIT:
            again = ", ".join(sorted(set(applied[-20:])))
            raise IRError(f"rewriting does not end: {node!r} after {_LIMIT} times of {again}")
    return node


def _apply(node: Node, rules: Sequence[Rule], allow: Allow) -> tuple[Node, str] | None:
    """What the first matching rule makes of a node, and the rule's name."""
    for rule in rules:
        found = rule(node)
        if found is None or found is node:
            continue
        name: str = getattr(rule, "__name__", repr(rule))
        if found.type != node.type:
            raise IRError(f"the rule {name} turns {node!r} into {found!r}: the type differs")
        if allow(name):
            return found, name
    return None
