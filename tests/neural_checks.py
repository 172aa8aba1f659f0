"""Checks of neural functions: the same bits eager and compiled, and errors beside PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import einkorn as ek

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]


def outcomes(
    f: Function, arrays: Sequence[Array], cotangent: Array, compiled: bool = True
) -> list[Array]:
    """The value of f and its gradients by all operands that are floats.

    Args:
        compiled: whether compiled code is checked to give the same bits.
    """
    floats = [k for k, x in enumerate(arrays) if x.dtype.kind == "f" or x.dtype.name == "bfloat16"]

    def weighted(*operands: Any) -> Any:
        y = f(*operands)
        return ek.sum(y * cotangent.astype(y.dtype.numpy)), y

    step = ek.value_and_grad(weighted, tuple(floats), has_aux=True)

    def both(*operands: Any) -> Any:
        (_, y), gradients = step(*operands)
        return y, *gradients

    eager = [np.asarray(x) for x in both(*map(ek.asarray, arrays))]
    if compiled:
        native = [np.asarray(x) for x in ek.compile(both)(*map(ek.asarray, arrays))]
        for one, other in zip(eager, native, strict=True):
            same_bits(one, other)
    return eager


def same_bits(one: Array, other: Array) -> None:
    """Equal to the bit, all NaNs counting as one."""
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    nan = one != one
    assert np.array_equal(nan, other != other)
    assert np.where(nan, 0, one).tobytes() == np.where(nan, 0, other).tobytes()


def torch_outcomes(f: Function, arrays: Sequence[Array], cotangent: Array) -> list[Array]:
    """The same by PyTorch."""
    import torch

    tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in arrays]
    floats = [x.requires_grad_() for x in tensors if x.dtype.is_floating_point]
    y = f(*tensors)
    gradients = torch.autograd.grad(
        y, floats, torch.from_numpy(cotangent).to(y.dtype), allow_unused=True
    )
    found = [np.zeros(x.shape) if g is None else g.numpy() for x, g in zip(floats, gradients)]
    return [y.detach().numpy(), *found]


def compare(
    ours: Function,
    theirs: Function,
    arrays: Sequence[Array],
    ulps: float = 8.0,
    limit: float = 1e-10,
) -> None:
    """Values and gradients: `limit` in float64; in float32 twice PyTorch's error and some ulps.

    Args:
        ulps: of the largest element of each result.
        limit: in float64.
    """
    shape = np.shape(ours(*map(ek.asarray, arrays)))
    cotangent = np.random.default_rng(5).standard_normal(shape)
    exact = torch_outcomes(theirs, arrays, cotangent)
    narrow = [x.astype("float32") if x.dtype.kind == "f" else x for x in arrays]
    wide = outcomes(ours, arrays, cotangent, compiled=False)
    single = outcomes(ours, narrow, cotangent.astype("float32"))
    # PyTorch's float32 is compared with what float64 gives for the same rounded operands.
    rounded = [x.astype("float64") if x.dtype.kind == "f" else x for x in narrow]
    reference = torch_outcomes(theirs, rounded, cotangent.astype("float32").astype("float64"))
    other = torch_outcomes(theirs, narrow, cotangent.astype("float32"))
    for k, want in enumerate(exact):
        np.testing.assert_allclose(wide[k], want, rtol=limit, atol=limit, err_msg=f"result {k}")
        true = reference[k]
        size = np.abs(true[np.isfinite(true)]).max(initial=0) if true.size else 0
        with np.errstate(invalid="ignore"):
            mine, own = np.abs(single[k] - true), np.abs(other[k] - true)
        same = (single[k] == true) | (np.isnan(single[k]) & np.isnan(true))
        allowed = 2 * np.nanmax(own, initial=0) + ulps * 2.0**-23 * size
        assert (same | (mine <= allowed)).all(), (k, np.nanmax(mine), np.nanmax(own), size)
