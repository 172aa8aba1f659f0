"""One trace of a compiled function: its program, what to bind at each call, and the commit."""

from __future__ import annotations

import ctypes
from array import array as words
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from einkorn.arguments import Arguments
from einkorn.ir.dtypes import float64, int64
from einkorn.ir.errors import BoundsError
from einkorn.ir.graph import Graph
from einkorn.ir.loops import Gather, Scatter
from einkorn.ir.node import Node, make_call, project, toposort
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType, TupleType
from einkorn.leaf import Leaf, structure_epoch
from einkorn.passes.autodiff import call_vjp, expand_grads, inline_calls
from einkorn.recording import Record, current_region, result
from einkorn.runtime.compiler import compile_graph, run_reference
from einkorn.runtime.executable import Executable, address_of
from einkorn.runtime.locks import LOCKS
from einkorn.tensor import Tensor
from einkorn.tracing import Trace, carries_gradient
from einkorn.tree import unflatten

Array = np.ndarray[Any, Any]

_SCALAR = {"float": float64, "int": int64}
OUTPUT: Any = object()  # stands for an output tensor among the ends of what a function returned

MSG_STEP_BOUNDS = (
    "{name}: an index is out of range in one of these: {places}. Every index must be at least -n "
    "and less than n for an axis of n elements. The step was not applied, no state changed."
)


class Entry:
    """A trace that can be called again while its guards hold."""

    def __init__(
        self,
        trace: Trace,
        outputs: list[Tensor],
        structure: Any,
        plain: list[Any],
        arguments: Arguments,
        backend: str,
        why: str,
    ) -> None:
        self.graph, self._updated, self._with_grad = trace.finish(outputs)
        self._cleared = trace.cleared_grads
        self._captures = trace.captures
        self._guards = trace.guards
        self._stateful = any(capture.kind == "leaf" for capture in trace.captures)
        self._specialised = self._specialised_arguments(trace, arguments)
        self._count = len(outputs)
        self._tracked = [trace.tracks(x) for x in outputs]
        self._numbers = [k for k, x in enumerate(outputs) if x._weak]
        self._structure, self._plain = structure, plain
        self._backend, self.why, self.reasons = backend, why, trace.reasons
        self.epoch = structure_epoch()
        self.calls = 0
        self._plain_variant = _Variant(self.graph, backend)

    @staticmethod
    def _specialised_arguments(trace: Trace, arguments: Arguments) -> list[tuple[int, Any]]:
        """(position among the ends, value) of number arguments whose value the trace needed."""
        positions = [
            k
            for k, kind in enumerate(arguments.kinds)
            if isinstance(kind, TensorType) or (isinstance(kind, str) and trace.outer is None)
        ]
        return [
            (position, trace.specialised[node])
            for position, node in zip(positions, trace.inputs)
            if node in trace.specialised
        ]

    # -- guards --------------------------------------------------------------------------------

    def holds(self, arguments: Arguments) -> bool:
        """Whether this trace stands for a call with these arguments now."""
        if self.epoch != structure_epoch():
            return False
        ends = arguments.ends
        if any(repr(ends[k]) != repr(value) for k, value in self._specialised):
            return False
        return all(guard.holds() for guard in self._guards)

    def why_not(self, arguments: Arguments) -> str:
        """Why this trace cannot be used, for people."""
        if self.epoch != structure_epoch():
            return "a module that was traced has changed"
        for k, value in self._specialised:
            if repr(arguments.ends[k]) != repr(value):
                return f"the number {value} became {arguments.ends[k]}: {'; '.join(self.reasons)}"
        failed = [guard.reason for guard in self._guards if not guard.holds()]
        return "; ".join(failed) or "the arguments differ"

    def describe(self) -> Iterable[str]:
        """The trace for people: why it was made, its size and its guards."""
        nodes = len(self.graph.nodes)
        yield f"trace because: {self.why} ({nodes} nodes, called {self.calls} times)"
        for reason in self.reasons:
            yield f"  specialised: {reason}"
        for guard in self._guards:
            yield f"  guard: {guard.reason}"

    # -- the call ------------------------------------------------------------------------------

    def call(self, arguments: Arguments, threads: int) -> Any:
        """Run the step on at most `threads` threads. If it refuses, no state has changed."""
        self.calls += 1
        tracked = any(self._tracked)
        if tracked:
            arguments.own()
        variant = self._recorded_variant if tracked else self._plain_variant
        with LOCKS.state if self._stateful else nullcontext():
            # Before the step writes: a recording keeps the values that the step saw.
            parents = tuple(self._param_records(arguments)) if tracked else ()
            arrays = variant.run(self, self._bind(arguments), threads)
        count = self._count
        values = [
            result(node.tensor, array) for node, array in zip(self.graph.outputs, arrays[:count])
        ]
        if tracked:
            values = self._record(parents, values, variant, arrays)
        for k in self._numbers:  # scalars of Python stay numbers of Python
            values[k] = values[k].item()
        found = iter(values)
        return unflatten(self._structure, [next(found) if x is OUTPUT else x for x in self._plain])

    def commit(self, fresh: list[tuple[Leaf, Array | None]], arrays: list[Array]) -> None:
        """Make the new values and gradients the leaves' own; once more does no harm.

        Args:
            fresh: the updated leaves with the storage that was written, None for their own.
            arrays: the outputs of the program, gradients behind what the function returned.
        """
        for leaf, storage in fresh:
            if storage is None:
                leaf._new_version()
            else:
                leaf._replace(storage)
        for leaf, array in zip(self._with_grad, arrays[self._count :]):
            leaf._grad = result(leaf._type, array)
        for leaf in self._cleared:
            leaf._grad = None

    def _bind(self, arguments: Arguments) -> tuple[list[int], list[Any]]:
        """The addresses of inputs and captures, and what has to stay alive while they are used.

        Arguments and leaves are kept by their owners: a leaf's storage changes under the state
        lock only.
        """
        addresses: list[int] = []
        numbers = np.empty(len(arguments.ends) + len(self._captures), np.float64)
        base, held = address_of(numbers), [numbers]
        place = 0
        for end, kind in zip(arguments.ends, arguments.kinds):
            if isinstance(kind, TensorType):
                addresses.append(address_of(end))
            elif isinstance(kind, str):
                if kind == "float":
                    numbers[place] = end
                else:
                    numbers.view(np.int64)[place] = end
                addresses.append(base + 8 * place)
                place += 1
        for capture in self._captures:
            if capture.kind == "leaf":
                addresses.append(capture.source._address)
            elif capture.kind == "setting":
                owner, name = capture.source
                numbers[place] = owner.__dict__[name]
                addresses.append(base + 8 * place)
                place += 1
            else:
                array = _dense(capture)
                held.append(array)
                addresses.append(address_of(array))
        return addresses, held

    # -- recording -----------------------------------------------------------------------------

    @cached_property
    def _closed(self) -> Graph:
        """The graph without updates: what a recorded call computes."""
        graph = self.graph
        outputs = graph.outputs[: self._count]
        return Graph(
            graph.name, graph.inputs, graph.captures, outputs, (), graph.names, graph.origins
        )

    @cached_property
    def _influential(self) -> frozenset[int]:
        """The params that gradients of outputs can flow to."""
        rows = zip(self._tracked, self._closed.outputs)
        starts = [node for tracked, node in rows if tracked and node.dtype.is_float]
        reached = set(toposort(starts, into=carries_gradient))
        return frozenset(
            k
            for k, node in enumerate(self._closed.params)
            if node in reached and node.dtype.is_float
        )

    @cached_property
    def _recorded_variant(self) -> _Variant:
        """The program that also returns what a backward needs."""
        return _Variant(self.graph, self._backend, self._residuals())

    def _residuals(self) -> tuple[Node, ...]:
        closed = self._closed
        wanted = tuple(k in self._influential for k in range(len(closed.params)))
        given = tuple(
            tracked and carries_gradient(node)
            for tracked, node in zip(self._tracked, closed.outputs)
        )
        backward = inline_calls(call_vjp(closed, wanted, given).graph)
        forward = set(inline_calls(expand_grads(closed)).nodes)
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

    def _record(
        self,
        parents: tuple[Record, ...],
        values: list[Any],
        variant: _Variant,
        arrays: list[Array],
    ) -> list[Any]:
        """Record the call as one `call` node with the values that its backward needs."""
        node = make_call(self._closed, [record.node for record in parents])
        residuals = dict(zip(variant.residuals, arrays[len(self.graph.outputs) :]))
        known = {node.attr("id"): residuals}
        region = current_region.get()
        recorded: list[Any] = []
        for k, (value, tracked) in enumerate(zip(values, self._tracked)):
            if not tracked:
                recorded.append(value)
                continue
            record = Record(project(node, k), value._eager(), parents, known=known)
            if region is not None:
                region.add(record)
            recorded.append(result(value._type, value._eager(), record=record))
        return recorded

    def _param_records(self, arguments: Arguments) -> Iterable[Record]:
        region = current_region.get()
        for value in self._param_values(arguments):
            value._lend()
            record = value._as_record()
            yield record if region is None else region.bring(record)

    def _param_values(self, arguments: Arguments) -> Iterable[Any]:
        for end, kind, value in zip(arguments.ends, arguments.kinds, arguments.values):
            if isinstance(kind, TensorType):
                yield value if value is not None else result(kind, end)
            elif isinstance(kind, str):
                number = np.asarray(end, np.float64 if kind == "float" else np.int64)
                yield result(TensorType(_SCALAR[kind], ()), number)
        for capture in self._captures:
            if capture.kind == "setting":
                owner, name = capture.source
                number = np.asarray(owner.__dict__[name], np.float64)
                yield result(TensorType(_SCALAR["float"], ()), number)
            elif capture.kind == "grad":
                yield capture.source._grad
            else:
                yield capture.source


def _dense(capture: Any) -> Array:
    """The array of a captured tensor or gradient, adjacent in memory."""
    source = capture.source if capture.kind == "value" else capture.source._grad
    return np.ascontiguousarray(source._eager())


class _Variant:
    """One program of an entry: its outputs, and residuals when the call is recorded."""

    def __init__(self, graph: Graph, backend: str, residuals: Sequence[Node] = ()) -> None:
        self.residuals = tuple(residuals)
        outputs = (*graph.outputs, *self.residuals)
        self.graph = replace(graph, outputs=outputs)
        self._executable: Executable | None = None
        self._types = [node.tensor for node in outputs]
        if backend != "reference":
            self._executable = compile_graph(self.graph, backend)

    def run(self, entry: Entry, bound: tuple[list[int], list[Any]], threads: int) -> list[Array]:
        """Run the program and commit the updates; the arrays of outputs and residuals."""
        inputs, _held = bound
        if self._executable is None:
            return self._run_reference(entry, inputs)
        outputs = [np.empty(type.shape, type.dtype.numpy) for type in self._types]
        addresses = inputs + [x.__array_interface__["data"][0] for x in outputs]
        fresh: list[tuple[Leaf, Array | None]] = []
        in_place = self._executable.program.in_place
        for index, leaf in enumerate(entry._updated):
            storage = None if index in in_place and not leaf._lent else leaf._fresh()
            fresh.append((leaf, storage))
            addresses.append(leaf._address if storage is None else address_of(storage))

        def commit() -> None:
            entry.commit(fresh, outputs)

        if self._executable.run(words("q", addresses), threads, commit):
            for leaf, storage in fresh:
                leaf._spare = storage if storage is not None else leaf._spare
            rows = self._executable.program.instructions
            found = {row.label for row in rows if isinstance(row.kernel, (Gather, Scatter))}
            places = "; ".join(sorted(found))
            raise BoundsError(MSG_STEP_BOUNDS.format(name=self.graph.name, places=places))
        return outputs

    def _run_reference(self, entry: Entry, bound: list[int]) -> list[Array]:
        arrays = [
            _array_at(address, node.tensor) for address, node in zip(bound, self.graph.params)
        ]
        outputs, updates = run_reference(self.graph, arrays)
        fresh: list[tuple[Leaf, Array | None]] = []
        for leaf, value in zip(entry._updated, updates):
            storage = leaf._fresh()
            np.copyto(storage, value)
            fresh.append((leaf, storage))
        entry.commit(fresh, outputs)
        return outputs


def _array_at(address: int, type: TensorType) -> Array:
    """A read-only view of memory that a caller keeps alive."""
    if type.nbytes == 0:
        return np.zeros(type.shape, type.dtype.numpy)
    raw = (ctypes.c_uint8 * type.nbytes).from_address(address)
    return np.frombuffer(memoryview(raw), np.uint8).view(type.dtype.numpy).reshape(type.shape)
