"""Every sampled op on the llvm target against the NumPy reference; operands stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_samples import SAMPLES, Sample
from same_bits import assert_same_bits, bits, split_finely

from einkorn.ir.dtypes import DType
from einkorn.ir.graph import Graph
from einkorn.ir.ops import CONTROL, OPS, Op
from einkorn.runtime.compiler import compile_graph
from einkorn.runtime.eager import run_arrays
from einkorn.runtime.settings import override

Array = np.ndarray[Any, Any]


def run(sample: Sample, arrays: list[Array]) -> Array:
    """The op as a program of its own, by the llvm target."""
    node, inputs = sample.build(arrays)
    graph = Graph(sample.op.name.lower(), tuple(inputs), (), (node,))
    return run_arrays(compile_graph(graph), arrays, [node.tensor], graph.name)[0]


def scattered(array: Array) -> Array:
    """The same values, neither adjacent nor in order in memory."""
    room = np.zeros(tuple(2 * n + 1 for n in array.shape), array.dtype)
    view = room[(*(slice(2 * n - 1 if n else 0, None, -2) for n in array.shape), ...)]
    view = view[(*(slice(0, n) for n in array.shape), ...)]
    view[...] = array
    return view


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_sample_agrees_with_the_reference(sample: Sample) -> None:
    for dtype in sample.dtypes:
        arrays = sample.arrays(dtype)
        before = [x.copy() for x in arrays]
        sample.check(run(sample, arrays), sample.reference(arrays))
        assert list(map(bits, arrays)) == list(map(bits, before)), f"{dtype}: an operand changed"


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_memory_layout_changes_no_bit(sample: Sample) -> None:
    dtype = sample.dtypes[-1]
    arrays = sample.arrays(dtype)
    spread = [scattered(x) for x in arrays]
    assert all(x.size < 2 or not x.flags.c_contiguous for x in spread)
    assert_same_bits(run(sample, spread), run(sample, arrays))


def test_threads_and_split_points_change_no_bit() -> None:
    """Every op, one thread and whole launches against three threads and many pieces."""
    chosen: list[tuple[Sample, DType]] = [(s, d) for s in SAMPLES for d in s.dtypes[-1:]]
    want = [run(sample, sample.arrays(dtype)) for sample, dtype in chosen]
    for threads in (2, 3):
        with split_finely(), override(threads=threads):
            for (sample, dtype), expected in zip(chosen, want):
                assert_same_bits(run(sample, sample.arrays(dtype)), expected, str(sample))


def test_every_op_but_regions_is_sampled() -> None:
    regions = {Op.INPUT, Op.SIZE, Op.CALLBACK, Op.PROJECT, Op.GRAD, Op.CALL, *CONTROL}
    assert {sample.op for sample in SAMPLES} == set(OPS) - regions
