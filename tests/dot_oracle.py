"""Contractions as ir/ops.py defines them, and operands to try them with."""

from __future__ import annotations

import numpy as np
from template_harness import Array, joined, multiply_add, sample

from einkorn.codegen.llvm.vectors import accumulator
from einkorn.ir import dtypes as dt
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import Access, Epilogue


def plain(dtype: DType, inner: str = "unit") -> Epilogue:
    """Store the result as it is."""
    return Epilogue((), (), ((Access(dtype, inner), 0),))


def steps(x: Array) -> list[int]:
    """Strides in elements."""
    return [stride // x.itemsize for stride in x.strides]


def packed(x: Array, width: int, dtype: DType) -> Array:
    """x[batch, rows, k] as panels [batch, panel, k, width]."""
    batch, rows, k = x.shape
    panels = -(-rows // width)
    full = np.zeros((batch, panels * width, k), dtype.numpy)
    full[:, :rows] = x
    return np.ascontiguousarray(full.reshape(batch, panels, width, k).swapaxes(2, 3))


def small(dtype: DType, shape: tuple[int, ...], seed: int) -> Array:
    """Operands of a contraction: with products that underflow to either zero among the floats."""
    x = sample(dtype, shape, seed)
    if dtype in (dt.float32, dt.float64):
        tiny = np.random.default_rng(seed).random(shape) < 0.3
        x = np.where(tiny, x * np.finfo(dtype.numpy).smallest_normal, x)
    return x


def chains(a: Array, b: Array, dtype: DType, count: int = 1) -> Array:
    """Fused chains over k of a[.., M, k] and b[.., N, k], product k to chain k mod count."""
    wide = accumulator(dtype)
    a, b = a.astype(wide.numpy), b.astype(wide.numpy)
    shape = np.broadcast_shapes((*a.shape[:-1], 1), (*b.shape[:-2], 1, b.shape[-2]))
    acc = np.zeros((count, *shape), wide.numpy)
    for k in range(a.shape[-1]):
        left, right = a[..., :, None, k], b[..., None, :, k]
        acc[k % count] = multiply_add(left, right, acc[k % count], wide)
    return acc


def canonical(a: Array, b: Array, dtype: DType, count: int = 1) -> Array:
    """The dot of a[.., M, k] and b[.., N, k], rounded to its dtype."""
    with np.errstate(over="ignore"):
        found = chains(a, b, accumulator(dtype), count)
        return (joined(found) if count > 1 else found[0]).astype(dtype.numpy)
