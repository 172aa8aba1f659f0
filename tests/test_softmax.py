"""softmax, log_softmax and logsumexp: the canonical order to the bit, special rows, memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from guarded_run import guarded_run
from same_bits import build
from template_harness import Array, apply, assert_same_bits, elementwise, joined, sample

from einkorn.codegen.llvm.mathlib import MATH
from einkorn.codegen.llvm.vectors import accumulator
from einkorn.ir import dtypes as dt
from einkorn.ir import numpy_rules as ref
from einkorn.ir.dtypes import DType
from einkorn.ir.graph import Graph
from einkorn.ir.node import make, placeholder
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType

ROWS = [(1, 1, 0), (3, 10, 3), (5, 16, 0), (2, 100, 1), (2, 4096, 0), (2, 4097, 0), (2, 9001, 0)]
SOFTMAX = [Op.SOFTMAX, Op.LOG_SOFTMAX, Op.LOGSUMEXP]
REFERENCE = {
    Op.SOFTMAX: ref.softmax,
    Op.LOG_SOFTMAX: ref.log_softmax,
    Op.LOGSUMEXP: ref.logsumexp,
}
TOLERANCE = {dt.float16: 1e-3, dt.bfloat16: 8e-3, dt.float32: 2e-6, dt.float64: 1e-14}


def run_softmax(op: Op, dtype: DType, x: Array, pad: int = 0) -> Array:
    """The op on rows that lie `pad` elements apart."""
    rows, n = x.shape
    held = np.zeros((rows, n + pad), x.dtype)
    held[:, :n] = x
    whole = placeholder(TensorType(dtype, held.shape))
    part = make(Op.SLICE, whole, starts=(0, 0), stops=(rows, n), steps=(1, 1))
    graph = Graph("rows", (whole,), (), (make(op, part),))
    program = build(graph)
    assert len(program.program.instructions) == 1
    (first,) = guarded_run(program, graph, [held], 1, True)
    (again,) = guarded_run(program, graph, [held], 2, False)
    assert_same_bits(first, again)
    return first


@cache
def math_call(name: str, dtype: DType) -> Any:
    return elementwise(lambda w, value: MATH[name](w, value), dtype, dtype)


def softmax_by_the_book(op: Op, dtype: DType, x: Array) -> Array:
    """The canonical order of ir/ops.py for finite rows, with einkorn's own exp and log."""
    wide = accumulator(dtype)
    x = x.astype(wide.numpy)
    top = np.max(x, axis=1, keepdims=True)
    term = apply(math_call("exp", wide), x - top, wide)
    total = np.full(len(x), -0.0, wide.numpy)
    for start in range(0, x.shape[1], 4096):
        partials = np.full((16, len(x)), -0.0, wide.numpy)
        for i, column in enumerate(term[:, start : start + 4096].T):
            partials[i % 16] += column
        total = total + joined(partials)
    if op is Op.SOFTMAX:
        return (term / total[:, None]).astype(dtype.numpy)
    log = apply(math_call("log", wide), total, wide)
    if op is Op.LOGSUMEXP:
        return (log + top[:, 0]).astype(dtype.numpy)
    return ((x - top) - log[:, None]).astype(dtype.numpy)


@pytest.mark.parametrize("dtype", dt.FLOATS, ids=repr)
@pytest.mark.parametrize("op", SOFTMAX, ids=lambda op: op.name)
def test_softmax(op: Op, dtype: DType) -> None:
    for rows, n, pad in ROWS:
        x = (sample(dtype, (rows, n)) * 3 - 20).astype(dtype.numpy)
        out = run_softmax(op, dtype, x, pad)
        assert_same_bits(out, softmax_by_the_book(op, dtype, x))
        tolerance = TOLERANCE[dtype]
        expected = REFERENCE[op](x).astype(np.float64)
        np.testing.assert_allclose(
            out.astype(np.float64), expected, rtol=20 * tolerance, atol=tolerance / n
        )


@pytest.mark.parametrize("dtype", dt.FLOATS, ids=repr)
def test_softmax_of_special_rows(dtype: DType) -> None:
    low, top, nan = -np.inf, np.inf, np.nan
    rows = [[low] * 3, [top, 0, 1], [nan, 0, 1], [low, 0, 0], [top, top, low], [60000, -60000, 0]]
    x = np.array([row * 7 for row in rows], dtype.numpy)
    out = run_softmax(Op.LOGSUMEXP, dtype, x).astype(np.float64)
    assert out[0] == -np.inf
    assert out[1] == out[4] == np.inf
    assert np.isnan(out[2])
    np.testing.assert_allclose(out[3], np.log(14), rtol=1e-2)
    softmax = run_softmax(Op.SOFTMAX, dtype, x).astype(np.float64)
    logs = run_softmax(Op.LOG_SOFTMAX, dtype, x).astype(np.float64)
    assert np.isnan(softmax[[0, 1, 2, 4]]).all()
    assert np.isnan(logs[[0, 1, 2, 4]]).all()
    np.testing.assert_allclose(softmax[3, :3], [0, 1 / 14, 1 / 14], rtol=1e-2)
    np.testing.assert_allclose(softmax[5, :3], [1 / 7, 0, 0], rtol=1e-2)
