"""dtypes and the promotion table.

Promotion follows the Python array API standard within a kind. Between kinds, which the standard
leaves open, an integer or bool array takes the dtype of the float or complex array it meets, and
float16 with bfloat16 gives float32. A float with a complex dtype gives the complex dtype that holds
both. uint64 with a signed integer has no common dtype and is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from einkorn.ir.errors import DTypeError


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """An element type. There is one object of each, so `is` is equality.

    Attributes:
        name: the NumPy name, "float32".
        short: the name in printed IR, "f32".
        kind: "f" float, "c" complex, "i" signed, "u" unsigned, "b" bool.
        itemsize: bytes of one stored element.
    """

    name: str
    short: str
    kind: str
    itemsize: int

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype of stored arrays."""
        return _numpy_dtype(self)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The same under the name by which NumPy asks: np.zeros(2, dtype=einkorn.float32)."""
        return _numpy_dtype(self)

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_complex(self) -> bool:
        return self.kind == "c"

    @property
    def is_inexact(self) -> bool:
        """Whether it is a float or complex dtype: what gradients are for."""
        return self.kind in "fc"

    @property
    def real(self) -> DType:
        """The dtype of the parts of a complex number; of any other the dtype itself."""
        return {"complex64": float32, "complex128": float64}.get(self.name, self)

    @property
    def complex(self) -> DType:
        """The complex dtype whose parts have at least this precision."""
        wide = self.name in ("float64", "complex128")
        return complex128 if wide else complex64

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    @property
    def bits(self) -> int:
        return 8 * self.itemsize

    def __repr__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DType) or other is None:
            return self is other
        try:
            return as_dtype(other) is self
        except DTypeError:
            return False

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (self.name,)


float16 = DType("float16", "f16", "f", 2)
bfloat16 = DType("bfloat16", "bf16", "f", 2)
float32 = DType("float32", "f32", "f", 4)
float64 = DType("float64", "f64", "f", 8)
int8 = DType("int8", "i8", "i", 1)
int16 = DType("int16", "i16", "i", 2)
int32 = DType("int32", "i32", "i", 4)
int64 = DType("int64", "i64", "i", 8)
uint8 = DType("uint8", "u8", "u", 1)
uint16 = DType("uint16", "u16", "u", 2)
uint32 = DType("uint32", "u32", "u", 4)
uint64 = DType("uint64", "u64", "u", 8)
bool_ = DType("bool", "bool", "b", 1)
complex64 = DType("complex64", "c64", "c", 8)
complex128 = DType("complex128", "c128", "c", 16)

FLOATS = (float16, bfloat16, float32, float64)
SIGNED = (int8, int16, int32, int64)
UNSIGNED = (uint8, uint16, uint32, uint64)
COMPLEX = (complex64, complex128)
ALL = (bool_, *SIGNED, *UNSIGNED, *FLOATS)
"""Every dtype that kernels compute with; complex numbers are computed on the host (ir/ops.py)."""

_BY_NAME = {d.name: d for d in (*ALL, *COMPLEX)} | {d.short: d for d in (*ALL, *COMPLEX)}
_PYTHON = {complex: complex64, float: float32, int: int64, bool: bool_}


@cache
def _numpy_dtype(dtype: DType) -> np.dtype[Any]:
    if dtype is bfloat16:
        import ml_dtypes  # loaded at the first bfloat16 only: importing einkorn must stay quick

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype.name)


def as_dtype(spec: object) -> DType:
    """The dtype that a name, NumPy dtype or Python number type stands for; DTypeError if none."""
    if isinstance(spec, DType):
        return spec
    found = _PYTHON.get(spec) if isinstance(spec, type) else None
    if found is None and isinstance(spec, str):
        found = _BY_NAME.get(spec)
    # Nothing else: NumPy also takes any object that has a dtype, such as an array, and None.
    if found is None and isinstance(spec, (str, type, np.dtype)):
        try:
            found = _BY_NAME.get(np.dtype(spec).name)
        except (TypeError, ValueError, SyntaxError):
            found = None
    if found is None:
        supported = ", ".join(d.name for d in (*ALL, *COMPLEX))
        raise DTypeError(f"{spec!r} is not a dtype that einkorn supports; use one of {supported}")
    return found


def promote(a: DType, b: DType) -> DType:
    """The dtype in which values of dtypes `a` and `b` meet; DTypeError when there is none."""
    if a is b:
        return a
    if a.kind == b.kind:
        return float32 if {a, b} == {float16, bfloat16} else max(a, b, key=lambda d: d.itemsize)
    if a.kind == "b" or b.kind == "b":
        return b if a.kind == "b" else a
    if a.is_complex or b.is_complex:
        wide, other = (a, b) if a.is_complex else (b, a)
        return promote(wide, other.complex) if other.is_float else wide
    if a.is_float or b.is_float:
        return a if a.is_float else b
    unsigned, signed = (a, b) if a.kind == "u" else (b, a)
    if unsigned.itemsize < signed.itemsize:
        return signed
    if unsigned is uint64:
        raise DTypeError(
            f"{a} and {b} have no common dtype (no integer holds both ranges); "
            "cast one of them with .astype(...)"
        )
    return (
        SIGNED[SIGNED.index(signed) + 1]
        if unsigned.itemsize == signed.itemsize
        else next(d for d in SIGNED if d.itemsize > unsigned.itemsize)
    )
