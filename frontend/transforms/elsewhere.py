"""The pullback of `vjp`, called while something else is traced: `vmap(vjp_fn)`, `compile(vjp_fn)`.

What it needs of the forward pass are values from outside for the trace in which it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from einkorn.inner import replay
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make, placeholder, project, substitute, toposort
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType, TupleType
from einkorn.passes.autodiff import expand, expand_grads, vjp
from einkorn.recording import Record, Value, current_region, result, tape
from einkorn.tensor import Tensor
from einkorn.transforms.pull import known_values, tracked_roots, zeros
from einkorn.transforms.targets import depth


class Pullback:
    """The cotangents of nodes as a graph over those of outputs and over forward values."""

    def __init__(
        self, home: Any, outputs: Sequence[Value], wrt: Sequence[Node], types: Sequence[TensorType]
    ) -> None:
        """
        Args:
            home: the trace in which the outputs were computed, if one was open.
            outputs: what was computed.
            wrt: what to differentiate by.
            types: the types of `wrt`.
        """
        self._home, self._types, self._wrt = home, types, wrt
        self._records: list[Record] = []
        self._region = current_region.get()
        if home is None:
            self._records, self._kept = tracked_roots(outputs)
            self._roots = [record.node for record in self._records]
        else:
            self._kept = [k for k, x in enumerate(outputs) if home.tracks(x)]
            self._roots = [home.node_of(outputs[k]) for k in self._kept]

    def __call__(self, cotangents: Sequence[Tensor]) -> list[Tensor]:
        """The cotangents of `wrt`, computed in the trace that is open now."""
        seeds = [placeholder(node.tensor) for node in self._roots]
        outputs = self._expanded(seeds)
        values = self._forward_values()
        wanted = [node for node in outputs if node is not None]
        order = toposort(wanted, into=lambda node: node not in values)
        used = [node for node in order if node in values]
        stand_ins = {node: placeholder(node.tensor) for node in used}
        inputs = (*seeds, *stand_ins.values())
        graph = Graph("vjp", inputs, (), tuple(substitute(wanted, dict(stand_ins))))
        given = [cotangents[k] for k in self._kept]
        found = iter(replay(expand(graph), [*given, *(values[node]() for node in used)]))
        return [
            zeros(type) if node is None else next(found) for node, type in zip(outputs, self._types)
        ]

    def _expanded(self, seeds: Sequence[Node]) -> list[Node | None]:
        if self._home is None:
            return vjp(self._roots, seeds, self._wrt)
        if not seeds:
            return [None] * len(self._wrt)
        node = make(Op.GRAD, *self._roots, *seeds, *self._wrt, outputs=len(seeds))
        results = tuple(project(node, k) for k in range(len(self._wrt)))
        return list(expand_grads(Graph("vjp", tuple(seeds), (), results)).outputs)

    def _forward_values(self) -> dict[Node, Callable[[], Tensor]]:
        """For each forward value how it enters the trace that is open now."""
        nested = depth() > 0
        if self._home is not None:
            home = self._home
            return {
                node: lambda node=node: result(node.tensor, node=node, trace=home, tracks=nested)
                for node in toposort(self._roots)
                if not isinstance(node.type, TupleType) and node.op is not Op.CONST
            }
        parents = tuple(self._records)
        known = known_values(tape(parents))

        def outside(node: Node) -> Tensor:
            record = Record(node, known[node], parents) if nested else None
            if record is not None and self._region is not None:
                self._region.add(record)
            return result(node.tensor, known[node], record=record)

        return {node: lambda node=node: outside(node) for node in known if isinstance(node, Node)}
