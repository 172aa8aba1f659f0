"""Whole programs in hostile surroundings: operands and results lie against forbidden pages."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from template_harness import Guarded

from einkorn.ir.graph import Graph
from einkorn.runtime.executable import Executable

Array = np.ndarray[Any, Any]


def guarded_run(
    program: Executable, graph: Graph, arrays: Sequence[Any], threads: int, at_end: bool
) -> list[Array]:
    """Outputs, then new values of updates; those that may be are written over the old ones."""
    operands = [Guarded(np.array(x, order="C"), at_end) for x in arrays]
    outputs = [_room(node, at_end) for node in graph.outputs]
    updates: list[Guarded] = []
    for index, (leaf, value) in enumerate(graph.updates):
        over = index in program.program.in_place
        updates.append(operands[graph.params.index(leaf)] if over else _room(value, at_end))
    buffers = [*operands, *outputs, *updates]
    assert not program.run(array("q", [buffer.address for buffer in buffers]), threads)
    for buffer in {id(buffer): buffer for buffer in buffers}.values():
        buffer.check()
    for buffer, x in zip(operands, arrays):
        assert buffer in updates or buffer.view.tobytes() == np.asarray(x).tobytes()
    return [buffer.view for buffer in (*outputs, *updates)]


def _room(node: Any, at_end: bool) -> Guarded:
    return Guarded(np.zeros(node.shape, node.dtype.numpy), at_end)
