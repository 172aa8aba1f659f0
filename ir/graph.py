"""`Graph`: a traced function as data, and what belongs to the trace rather than to its nodes.

Inputs and captures are `input` nodes. An update says that a captured (or passed) leaf holds another
value when the step has ended. Names, source lines and module paths live in side tables here,
because an interned node may stand for several places of the user's program.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from einkorn.ir.cached import cached_property
from einkorn.ir.node import Node, substitute, toposort
from einkorn.ir.picture import draw_graph
from einkorn.ir.python import print_python
from einkorn.ir.text import print_graph


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node came from: the user's file and line, and the module path ("model/hidden")."""

    file: str
    line: int
    module: str = ""

    def __str__(self) -> str:
        place = f"{self.file.rsplit('/', 1)[-1]}:{self.line}"
        return f"{self.module}  {place}" if self.module else place


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A function from inputs and captures to outputs and updates.

    Attributes:
        name: a Python identifier.
        inputs: one `input` node for each argument.
        captures: one `input` node for each value taken from outside.
        outputs: the results.
        updates: pairs of an input or capture and the value it holds afterwards.
        names: readable names of inputs and captures: "x", "model.hidden.w".
        origins: where nodes came from; a node may be missing.
    """

    name: str
    inputs: tuple[Node, ...]
    captures: tuple[Node, ...]
    outputs: tuple[Node, ...]
    updates: tuple[tuple[Node, Node], ...] = ()
    names: Mapping[Node, str] = field(default_factory=dict[Node, str])
    origins: Mapping[Node, Origin] = field(default_factory=dict[Node, Origin])

    @property
    def params(self) -> tuple[Node, ...]:
        """Inputs, then captures: the operands of a `call` of this graph."""
        return (*self.inputs, *self.captures)

    @property
    def results(self) -> tuple[Node, ...]:
        """Outputs, then the new values of updates: what the graph has to compute."""
        return (*self.outputs, *(value for _, value in self.updates))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node that the results need, inputs first, in depth-first postorder."""
        return tuple(toposort(self.results))

    @property
    def regions(self) -> tuple[Graph, ...]:
        """Every graph that this one calls, callees before callers, then this one itself."""
        order: list[Graph] = []
        seen: set[Graph] = {self}
        stack: list[tuple[Graph, Iterator[Graph]]] = [(self, iter(self.callees))]
        while stack:
            graph, pending = stack[-1]
            found = next((callee for callee in pending if callee not in seen), None)
            if found is None:
                order.append(graph)
                stack.pop()
            else:
                seen.add(found)
                stack.append((found, iter(found.callees)))
        return tuple(order)

    @property
    def callees(self) -> list[Graph]:
        """The graphs that nodes of this graph apply, in the order of `nodes`."""
        return [graph for node in self.nodes for graph in graphs_of(node)]

    def with_results(self, results: Iterable[Node], **changes: Any) -> Graph:
        """The graph with other results, in the order of `results`."""
        new = tuple(results)
        split = len(self.outputs)
        updates = tuple((leaf, value) for (leaf, _), value in zip(self.updates, new[split:]))
        return replace(self, outputs=new[:split], updates=updates, **changes)

    def map(self, rewrite: Callable[[Node], Node]) -> Graph:
        """The graph rebuilt, `rewrite` applied to every node after its inputs were rewritten."""
        env: dict[Node, Node] = {}
        origins = dict(self.origins)
        for node in self.nodes:
            rebuilt = substitute([node], {x: env[x] for x in node.inputs})[0]
            env[node] = rewrite(rebuilt)
            if node in origins:
                origins.setdefault(env[node], origins[node])
        return self.with_results((env[node] for node in self.results), origins=origins)

    @cached_property
    def key(self) -> str:
        """A digest of the structure: equal for graphs that compute the same in the same way."""
        number = {node: -1 - k for k, node in enumerate(self.params)}
        rows: list[Any] = [[str(node.type) for node in self.params], len(self.inputs)]
        for k, node in enumerate(self.nodes):
            if node in number:
                continue
            number[node] = k
            attrs = [(name, _attr_key(value)) for name, value in node.attrs if name != "id"]
            inputs = [number[x] for x in node.inputs]
            rows.append((k, node.op.name, inputs, attrs))
        rows.append([number[node] for node in self.results])
        rows.append([number[leaf] for leaf, _ in self.updates])
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def name_of(self, node: Node) -> str:
        """The readable name of an input or capture."""
        return self.names.get(node, "")

    def __str__(self) -> str:
        return print_graph(self)

    def __repr__(self) -> str:
        return f"<graph {self.name}: {len(self.nodes)} nodes>"

    def to_python(self) -> str:
        """A Python module that computes the same with einkorn's public functions, node by node.

        Its function takes the inputs, then the captures, and returns the outputs and a dict from
        updated parameters to their new values, with the bits of this graph. IRError for a graph
        with `grad`: take a stage behind "expand-autodiff".
        """
        return print_python(self)

    def to_html(self, *, types: bool = True, names: bool = True, mark: str = "") -> str:
        """A page of HTML that shows the nodes as boxes and needs no other file.

        Args:
            types: whether boxes show shapes and dtypes.
            names: whether inputs, captures and results show what they are.
            mark: a pattern of module paths, such as "encoder/*", whose nodes are marked.
        """
        return draw_graph(self, types=types, names=names, mark=mark)

    def to_networkx(self) -> Any:
        """The graph as a networkx.MultiDiGraph, with an edge from each operand to its use.

        Nodes carry op, type, attrs, name (of inputs and captures) and origin; edges the position
        of the operand. The attributes `outputs` and `updates` of the whole are nodes, and pairs.
        """
        import networkx  # loaded on first use: it costs 0.1 s

        result = cast(Any, networkx.MultiDiGraph(name=self.name))
        result.graph.update(outputs=self.outputs, updates=self.updates)
        for node in dict.fromkeys((*self.params, *self.nodes)):
            result.add_node(
                node,
                op=node.op.name.lower(),
                type=str(node.type),
                attrs=dict(node.attrs),
                name=self.name_of(node),
                origin=str(self.origins.get(node, "")),
            )
            for position, operand in enumerate(node.inputs):
                result.add_edge(operand, node, position=position)
        return result


def graphs_of(node: Node) -> list[Graph]:
    """The graphs that a node applies."""
    return [graph for _, value in node.attrs for graph in _graphs(value)]


def _graphs(value: Any) -> list[Graph]:
    if isinstance(value, tuple):
        return [graph for item in cast(tuple[Any, ...], value) for graph in _graphs(item)]
    return [value] if isinstance(value, Graph) else []


def map_graphs(node: Node, rewrite: Callable[[Graph], Graph]) -> dict[str, Any]:
    """The attributes of a node with `rewrite` applied to every graph among them."""

    def mapped(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(mapped(item) for item in cast(tuple[Any, ...], value))
        return rewrite(value) if isinstance(value, Graph) else value

    return {name: mapped(value) for name, value in node.attrs}


def _attr_key(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({','.join(map(_attr_key, cast(tuple[Any, ...], value)))})"
    return value.key if isinstance(value, Graph) else repr(value)
