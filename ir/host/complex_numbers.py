"""Host functions of complex numbers: their parts, and the inverse tangent.

All other functions of complex numbers are ops that have real operands, too (ir/host_calls.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.host.rule import HostFunction
from einkorn.ir.types import TensorType

Array = np.ndarray[Any, Any]


def _complex(x: TensorType) -> TensorType:
    if not x.dtype.is_complex:
        raise DTypeError(f"needs complex numbers, got {x}")
    return x


def _part(x: TensorType) -> TensorType:
    return _complex(x).with_dtype(x.dtype.real)


def _joined(re: TensorType, im: TensorType) -> TensorType:
    if re != im:
        raise ShapeError(f"the parts must agree in shape and dtype, got {re} and {im}")
    if re.dtype.kind != "f" or re.dtype.itemsize < 4:
        raise DTypeError(f"the parts must be float32 or float64, got {re}")
    return re.with_dtype(re.dtype.complex)


def _join(re: Array, im: Array) -> Array:
    found = np.empty(re.shape, np.result_type(re.dtype, np.complex64))
    found.real, found.imag = re, im
    return found


def _flops(*types: TensorType) -> float:
    return float(types[0].size)


FUNCTIONS: dict[str, HostFunction] = {
    "atan": HostFunction(_complex, np.arctan, _flops),
    "complex": HostFunction(_joined, _join, _flops),
    "conj": HostFunction(_complex, np.conj, _flops),
    "imag": HostFunction(_part, np.imag, _flops),
    "real": HostFunction(_part, np.real, _flops),
}
