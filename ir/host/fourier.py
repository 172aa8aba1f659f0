"""Host functions of Fourier transforms: NumPy's (PocketFFT), along one axis.

The axis counts from the end, 1 being the last one. `norm` is the number of a word in NORMS.
"""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np

from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.host.rule import HostFunction, inexact
from einkorn.ir.types import TensorType

Array = np.ndarray[Any, Any]

NORMS = ("backward", "ortho", "forward")


def _axis(x: TensorType, axis: int) -> int:
    """The number of elements along an axis, of which there must be some."""
    if not 1 <= axis <= inexact(x).rank:
        raise ShapeError(f"axis -{axis} is out of range for {x}")
    n = x.shape[-axis]
    if n == 0:
        raise ShapeError(f"axis -{axis} of {x} has no elements to transform")
    return n


def _with_axis(x: TensorType, axis: int, n: int) -> TensorType:
    shape = list(x.shape)
    shape[-axis] = n
    return x.with_shape(tuple(shape))


def _fft(x: TensorType, axis: int, inverse: int, norm: int) -> TensorType:
    _axis(x, axis)
    if not x.dtype.is_complex:
        raise DTypeError(f"needs complex numbers, got {x}")
    return x


def _rfft(x: TensorType, axis: int, norm: int) -> TensorType:
    n = _axis(x, axis)
    if x.dtype.is_complex:
        raise DTypeError(f"needs real numbers, got {x}; use fft")
    return _with_axis(x, axis, n // 2 + 1).with_dtype(x.dtype.complex)


def _irfft(x: TensorType, axis: int, n: int, norm: int) -> TensorType:
    if not x.dtype.is_complex:
        raise DTypeError(f"needs complex numbers, got {x}")
    if _axis(x, axis) != n // 2 + 1 or n < 1:
        raise ShapeError(f"axis -{axis} of {x} must have {n // 2 + 1} elements for {n} results")
    return _with_axis(x, axis, n).with_dtype(x.dtype.real)


def _run_fft(x: Array, axis: int, inverse: int, norm: int) -> Array:
    function = np.fft.ifft if inverse else np.fft.fft
    return function(x, axis=-axis, norm=NORMS[norm])  # type: ignore[call-overload]


def _run_rfft(x: Array, axis: int, norm: int) -> Array:
    return np.fft.rfft(x, axis=-axis, norm=NORMS[norm])  # type: ignore[call-overload]


def _run_irfft(x: Array, axis: int, n: int, norm: int) -> Array:
    return np.fft.irfft(x, n, axis=-axis, norm=NORMS[norm])  # type: ignore[call-overload]


def _flops(x: TensorType) -> float:
    """About 5 n log2(n) operations for n elements, as if all were one transform."""
    return 5.0 * x.size * log2(max(2, x.size))


FUNCTIONS: dict[str, HostFunction] = {
    "fft": HostFunction(_fft, _run_fft, _flops),
    "irfft": HostFunction(_irfft, _run_irfft, _flops),
    "rfft": HostFunction(_rfft, _run_rfft, _flops),
}
