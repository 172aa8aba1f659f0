"""A step for padded arguments: what is run, and what its results are in the call of one size."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from einkorn.arguments import Arguments
from einkorn.ir.errors import SizeError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node
from einkorn.ir.ops import Op
from einkorn.ir.sizes import Length
from einkorn.ir.types import TensorType
from einkorn.padded_arguments import PaddedArguments
from einkorn.passes.autodiff import expand_grads
from einkorn.passes.padding import pad
from einkorn.passes.padding.context import sizes_in
from einkorn.passes.padding.fixed import Fixed
from einkorn.step import Step

Array = np.ndarray[Any, Any]

MSG_FOREIGN = (
    "{name} uses {size}, the size of an axis in a trace that is over; take it from x.shape in each "
    "call, and keep no shapes of traced tensors outside of the function"
)

KEPT = 64  # sizes for which the graph of a recorded call is kept


def padded_step(step: Step, arguments: Arguments) -> Step:
    """The step that is run for arguments of a kind: the padded one where they are padded."""
    known = arguments.lengths if isinstance(arguments, PaddedArguments) else {}
    _check_sizes(step.graph, known)
    if not isinstance(arguments, PaddedArguments):
        return step
    graph = pad(step.graph)
    padded = dict(zip(step.graph.outputs, graph.outputs))
    checks = tuple([padded[node] for node in step.checks])
    return replace(step, graph=graph, kinds=arguments.plan.longest, checks=checks)


def _check_sizes(graph: Graph, known: Collection[Length]) -> None:
    """Refuse a size that the function kept from another trace."""
    for node in graph.nodes:
        found = [node.attr("size")] if node.op is Op.SIZE else sizes_in(node.type)
        for size in found:
            if not all(length in known for length in size.lengths):
                raise SizeError(MSG_FOREIGN.format(name=graph.name, size=size))


def unpadded(
    arguments: Arguments, arrays: Sequence[Array], types: Sequence[TensorType]
) -> tuple[list[Array], list[TensorType]]:
    """Results of a padded step without padding, and their types in this call.

    Args:
        arguments: of the call.
        arrays: what the step gave.
        types: of the results, with sizes.
    """
    if not isinstance(arguments, PaddedArguments):
        return list(arrays), list(types)
    found = [arguments.at(type) for type in types]
    return [_cut(array, type.shape) for array, type in zip(arrays, found)], found


def _cut(array: Array, shape: tuple[int, ...]) -> Array:
    if shape == array.shape:
        return array
    return np.ascontiguousarray(array[tuple(map(slice, shape))])


class Recording:
    """The closed graph that a recorded call stands for, and its residuals, for each size."""

    def __init__(self, closed: Graph, residuals: Sequence[Node]) -> None:
        self._closed, self._residuals = closed, tuple(residuals)
        self._known: dict[Any, tuple[Graph, tuple[Node, ...]]] = {}

    def of(self, arguments: Arguments) -> tuple[Graph, tuple[Node, ...]]:
        """The graph and the residuals of a call: those of a call without padding."""
        if not isinstance(arguments, PaddedArguments):
            return self._closed, self._residuals
        key = tuple(arguments.lengths.items())
        known = self._known.get(key)
        if known is None:
            fixed = Fixed(arguments.lengths)
            # Expanded before, so that the residuals are nodes of it.
            graph = fixed.graph(expand_grads(self._closed))
            known = graph, tuple(fixed.nodes(self._residuals))
            self._known = {**dict(list(self._known.items())[1 - KEPT :]), key: known}
        return known
