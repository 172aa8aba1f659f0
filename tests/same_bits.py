"""Comparing to the bit, and running programs split among threads however short they are."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from einkorn.codegen.llvm.target import LLVM
from einkorn.codegen.target import Target
from einkorn.ir.errors import BoundsError
from einkorn.ir.graph import Graph
from einkorn.ir.rewrite import always
from einkorn.passes import costs
from einkorn.passes.pipeline import stages
from einkorn.runtime import eager, executable
from einkorn.runtime.compiler import clear_caches
from einkorn.runtime.executable import Executable
from einkorn.runtime.memory import address_of

Array = np.ndarray[Any, Any]


def bits(values: Any) -> tuple[Any, ...]:
    """What must be equal: dtype, shape and bits, all NaNs counting as one."""
    found = np.ascontiguousarray(values)
    if found.dtype.kind not in "iub":
        found = np.where(np.isnan(found), found.dtype.type(np.nan), found)
    return found.dtype.name, np.shape(values), found.tobytes()


def assert_same_bits(got: Any, want: Any, message: str = "") -> None:
    """The same dtype, shape and bits; the message shows where they differ."""
    if bits(got) == bits(want):
        return
    got, want = np.asarray(got), np.asarray(want)
    assert (got.dtype, got.shape) == (want.dtype, want.shape), message
    with np.errstate(all="ignore"):
        wrong = (got != want) & ~((got != got) & (want != want))
        wrong |= np.signbit(got) != np.signbit(want) if got.dtype.kind not in "iub" else False
    raise AssertionError(
        f"{int(wrong.sum())} of {wrong.size} elements differ, first got "
        f"{got[wrong][:5]}, want {want[wrong][:5]}\n{message}"
    )


@contextmanager
def split_finely(split_ns: float = 1e-3, handoff_ns: float = 0.0) -> Generator[None]:
    """Every launch is worth splitting and every program worth all threads that it may use.

    Without a cost of handing over each launch is a unit of its own; a high one makes units long.
    """
    before = costs.SPLIT_NS, costs.HANDOFF_NS, executable.ALONE_NS, executable.PAYS
    _forget()
    costs.SPLIT_NS, costs.HANDOFF_NS = split_ns, handoff_ns
    executable.ALONE_NS, executable.PAYS = 0.0, float("inf")
    try:
        yield
    finally:
        costs.SPLIT_NS, costs.HANDOFF_NS, executable.ALONE_NS, executable.PAYS = before
        _forget()


def _forget() -> None:
    clear_caches()
    eager._programs.clear()


def build(graph: Graph, without: Sequence[str] = (), target: Target = LLVM) -> Executable:
    """The executable of a graph, not cached, some stages left out."""
    stage: Any = graph
    for name, run in stages(target.machine, always):
        if name not in without:
            stage = run(stage)
    return Executable(stage, target)


def execute(
    program: Executable, graph: Graph, arrays: Sequence[Any], threads: int, in_place: bool = False
) -> list[Array]:
    """Outputs, then the new values of updates; with `in_place` old values are overwritten."""
    dense = [np.array(x, order="C") for x in arrays]
    outputs = [np.empty(node.shape, node.dtype.numpy) for node in graph.outputs]
    updates: list[Array] = []
    for index, (leaf, value) in enumerate(graph.updates):
        over = in_place and index in program.program.in_place
        storage = np.empty(value.shape, value.dtype.numpy)
        updates.append(dense[graph.params.index(leaf)] if over else storage)
    found = [address_of(x) for x in (*dense, *outputs, *updates)]
    if program.run(array("q", found), threads):
        raise BoundsError("an index is out of range")
    kept = [k for k, x in enumerate(dense) if not any(x is update for update in updates)]
    assert all(bits(dense[k]) == bits(arrays[k]) for k in kept), "an operand was changed"
    return outputs + updates
