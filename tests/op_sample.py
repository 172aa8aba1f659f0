"""`Sample`: one row of the table of tests/op_samples.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from op_makers import EPS, LEAST, Array, Maker

from einkorn.ir.dtypes import ALL, FLOATS, DType
from einkorn.ir.node import Node, make, placeholder
from einkorn.ir.ops import OPS, Op
from einkorn.ir.types import TensorType


@dataclass(frozen=True)
class Sample:
    """Operands for one op.

    Attributes:
        op: the op.
        args: for each operand a function (rng, dtype) -> array.
        attrs: the op's attributes.
        dtypes: the dtypes that the row is for; operands of a fixed dtype ignore it.
        grad_order: how often finite differences may differentiate it; 0 is forward only.
        tol: relative tolerance of finite differences in float64.
        ulps: how far from the reference a result may be, in units of eps * max(|result|, floor).
            0 is the same bits, all NaNs being equal.
        floor: the size of what is added up, where results may cancel.
        note: tells rows of one op apart.
    """

    op: Op
    args: tuple[Maker, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[DType, ...] = FLOATS
    grad_order: int = 2
    tol: float = 1e-6
    ulps: float = 0.0
    floor: float = 0.0
    note: str = ""

    def arrays(self, dtype: DType, seed: int = 0) -> list[Array]:
        """The operands, always the same ones for a seed."""
        rng = np.random.default_rng(seed)
        return [make_array(rng, dtype) for make_array in self.args]

    def build(self, arrays: list[Array]) -> tuple[Node, list[Node]]:
        """The op on new placeholders for such operands, and the placeholders."""
        inputs = [placeholder(TensorType(_dtype_of(a), a.shape)) for a in arrays]
        return make(self.op, *inputs, **self.attrs), inputs

    def reference(self, arrays: list[Array]) -> Array:
        """What the NumPy reference of the op gives."""
        with np.errstate(all="ignore"):
            return np.asarray(OPS[self.op].numpy(*arrays, **self.attrs))  # type: ignore[misc]

    def check(self, got: Array, want: Array) -> None:
        """Raise AssertionError where `got` is further from `want` than the row allows."""
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        if want.dtype.name not in EPS:
            np.testing.assert_array_equal(got, want)
            return
        a, b = got.astype(np.float64), want.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if self.ulps == 0:
            same &= (np.signbit(a) == np.signbit(b)) | np.isnan(b)
        size = np.maximum(np.abs(b), self.floor)
        with np.errstate(all="ignore"):
            allowed = self.ulps * (EPS[want.dtype.name] * size + LEAST[want.dtype.name])
            close = np.isfinite(b) & (np.abs(a - b) <= allowed)
        bad = ~(same | close)
        assert not bad.any(), f"{self}: got {got[bad][:5]}, want {want[bad][:5]}"

    def __str__(self) -> str:
        attrs = "-".join(f"{k}={v}" for k, v in self.attrs.items())
        return "-".join(x for x in (self.op.name.lower(), attrs, self.note) if x).replace(" ", "")


def _dtype_of(array: Array) -> DType:
    return next(d for d in ALL if d.name == array.dtype.name)
