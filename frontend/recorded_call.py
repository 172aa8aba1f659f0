"""Calls whose outputs are tracked: one `call` node, and the values that its backward needs.

The program of such a call is another one: it also returns the residuals, the forward values that
the backward of the whole call reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from einkorn.arguments import Arguments
from einkorn.bound_call import Calls
from einkorn.ir.errors import StateError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make_call, project, toposort
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType, TupleType
from einkorn.padded_step import Recording, padded_step, unpadded
from einkorn.passes.autodiff import call_vjp, expand_grads, inline_calls
from einkorn.passes.scan_variants import with_variants
from einkorn.recording import Record, current_region, result
from einkorn.reference_call import ReferenceCalls
from einkorn.step import Step
from einkorn.tensor import Tensor
from einkorn.tracing import carries_gradient

Array = np.ndarray[Any, Any]


def calls_of(step: Step, backend: str, arguments: Arguments) -> Calls | ReferenceCalls:
    """What runs a step for arguments of a kind."""
    step = padded_step(step, arguments)
    return ReferenceCalls(step) if backend == "reference" else Calls(step, backend)


class RecordedCalls:
    """The calls of a step some of whose outputs are tracked.

    Attributes:
        calls: those of the program that also returns the residuals.
    """

    def __init__(
        self, step: Step, tracked: Sequence[bool], backend: str, arguments: Arguments
    ) -> None:
        """
        Args:
            step: what is called.
            tracked: for each output of the function whether it is.
            backend: what the program is made for.
            arguments: of the first call.
        """
        graph = step.graph
        self._step, self._tracked = step, tracked
        closed = Graph(  # without updates: what a recorded call computes
            graph.name,
            graph.inputs,
            graph.captures,
            graph.outputs[: step.count],
            (),
            graph.names,
            graph.origins,
        )
        residuals = _residuals(closed, tracked)
        extended = step.with_outputs(residuals)
        self._types = [node.tensor for node in extended.graph.outputs]
        self._recording = Recording(closed, residuals)
        self.calls = calls_of(extended, backend, arguments)

    def call(self, arguments: Arguments, threads: int) -> tuple[list[Tensor] | None, list[Array]]:
        """Run the step and commit it: its outputs, recorded, and the arrays of the graph's outputs.

        None and nothing when a branch goes elsewhere.
        """
        arguments.own()
        with self._step.lock(), arguments.explained():
            # Before the step writes: a recording keeps the values that the step saw.
            parents = tuple(self._param_records(arguments.passed))
            arrays = self.calls.call(arguments.of_call(), threads)
            if arrays is None:
                return None, []
            arrays, types = unpadded(arguments, arrays, self._types)
            outputs = self._recorded(arguments, arrays, types, parents)
            for written in self._step.writes:
                written.attach([x._record for x in outputs])
        return outputs, arrays

    def _recorded(
        self,
        arguments: Arguments,
        arrays: list[Array],
        types: list[TensorType],
        parents: tuple[Record, ...],
    ) -> list[Tensor]:
        """The outputs, recorded as those of one call."""
        closed, residuals = self._recording.of(arguments)
        node = make_call(closed, [record.node for record in parents])
        found = dict(zip(residuals, arrays[len(self._step.graph.outputs) :]))
        known = {node.attr("id"): found}
        region = current_region.get()
        outputs: list[Tensor] = []
        for k, (tracked, array) in enumerate(zip(self._tracked, arrays)):
            record = None
            if tracked:
                record = Record(project(node, k), array, parents, known=known)
                if region is not None:
                    region.add(record)
            outputs.append(result(types[k], array, record=record))
        return outputs

    def _param_records(self, arguments: Arguments) -> Iterable[Record]:
        region = current_region.get()
        for value in self._step.values(arguments):
            value._lend()
            record = value._as_record()
            yield record if region is None else region.bring(record)


def _residuals(closed: Graph, tracked: Sequence[bool]) -> tuple[Node, ...]:
    """The forward values that the backward of a graph reads, params and constants aside."""
    influential = _influential(closed, tracked)
    wanted = tuple(k in influential for k in range(len(closed.params)))
    given = tuple(
        is_tracked and carries_gradient(node) for is_tracked, node in zip(tracked, closed.outputs)
    )
    try:
        backward = inline_calls(call_vjp(closed, wanted, given).graph)
    except StateError:  # no reverse; forward mode goes through it without residuals
        return ()
    forward = with_variants(inline_calls(expand_grads(closed)).nodes, backward.nodes)
    used = [x for node in backward.nodes if node not in forward for x in node.inputs]
    used += backward.outputs
    skip = set(closed.params)
    return tuple(
        x
        for x in dict.fromkeys(used)
        if x in forward
        and x not in skip
        and x.op is not Op.CONST
        and not isinstance(x.type, TupleType)
    )


def _influential(closed: Graph, tracked: Sequence[bool]) -> frozenset[int]:
    """The params that gradients of outputs can flow to."""
    rows = zip(tracked, closed.outputs)
    starts = [node for is_tracked, node in rows if is_tracked and node.dtype.is_inexact]
    reached = set(toposort(starts, into=carries_gradient))
    return frozenset(
        k for k, node in enumerate(closed.params) if node in reached and node.dtype.is_inexact
    )
