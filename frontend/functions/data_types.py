"""The dtype functions of the array namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.convert import check_dtype, is_weak, meet_dtype
from einkorn.ir.dtypes import DType, bfloat16, promote
from einkorn.ir.errors import DTypeError
from einkorn.recording import Value

_KINDS = {
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "f",
    "complex floating": "c",
    "numeric": "iufc",
}


@dataclass(frozen=True, slots=True)
class FloatInfo:
    """The limits of a floating-point dtype, as Python floats."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True, slots=True)
class IntegerInfo:
    """The limits of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: DType


def finfo(type: Any, /) -> FloatInfo:
    """The limits of a floating-point dtype, or of a tensor's; of complex ones of the parts."""
    dtype = _dtype_of(type)
    if not dtype.is_inexact:
        raise DTypeError(f"finfo: needs a floating-point dtype, got {dtype}; use iinfo")
    info = _bfloat16_limits() if dtype is bfloat16 else np.finfo(dtype.numpy)
    return FloatInfo(
        bits=dtype.real.bits,
        eps=float(info.eps),
        max=float(info.max),
        min=float(info.min),
        smallest_normal=float(info.smallest_normal),
        dtype=dtype.real,
    )


def _bfloat16_limits() -> Any:
    import ml_dtypes  # loaded at the first bfloat16 only: importing einkorn must stay quick

    return ml_dtypes.finfo(ml_dtypes.bfloat16)


def iinfo(type: Any, /) -> IntegerInfo:
    """The limits of an integer dtype, or of a tensor's."""
    dtype = _dtype_of(type)
    if not dtype.is_integer:
        raise DTypeError(f"iinfo: needs an integer dtype, got {dtype}")
    info = np.iinfo(dtype.numpy)
    return IntegerInfo(dtype.bits, int(info.max), int(info.min), dtype)


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether `dtype` is of a kind: a dtype, a name such as "integral", or a tuple of these."""
    found = check_dtype(dtype)
    if isinstance(kind, tuple):
        return any([isdtype(found, one) for one in kind])
    if isinstance(kind, str) and kind in _KINDS:
        return found.kind in _KINDS[kind]
    if isinstance(kind, str):
        listed = ", ".join(map(repr, _KINDS))
        raise DTypeError(f"isdtype: {kind!r} is no kind of dtype; there are {listed}")
    return found is check_dtype(kind)


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype in which arrays, dtypes and Python numbers meet."""
    numbers = [x for x in arrays_and_dtypes if is_weak(x)]
    dtypes = [_dtype_of(x) for x in arrays_and_dtypes if not is_weak(x)]
    if not dtypes:
        raise DTypeError("result_type: needs at least one array or dtype")
    return meet_dtype("result_type", dtypes, numbers)


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion takes the first dtype, or that of a tensor, to the second."""
    source, target = _dtype_of(from_), check_dtype(to)
    try:
        return promote(source, target) is target
    except DTypeError:
        return False


def _dtype_of(x: Any) -> DType:
    if isinstance(x, Value):
        return x._type.dtype
    return check_dtype(x.dtype if isinstance(x, (np.ndarray, np.generic)) else x)
