"""Tables of vectors, and positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.convert import as_tensor
from einkorn.functions import attention as fn
from einkorn.functions import elementwise as ew
from einkorn.functions.segments import embedding
from einkorn.functions.statistical import sum as sum_over
from einkorn.initializers import RandomNormal, as_initializer
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.leaf import Parameter
from einkorn.nn.module import Module, initial
from einkorn.nn.settings import check_flag, check_number, check_size
from einkorn.nn.sized import Sized, check_dtype_of, check_width, parameter
from einkorn.tensor import Tensor
from einkorn.tunable import module_path


class Embedding(Module):
    """w[indices]: integers of any shape [...] -> [..., features].

    Args:
        count: rows of the table `w` (count, features).
        padding_idx: a row that starts with zeros and gets no gradient.
        max_norm: rows that are longer are scaled to this length when they are looked up; the table
            itself stays as it is.

    Raises:
        BoundsError: an index is out of range, eager and compiled.
    """

    def __init__(
        self,
        count: int,
        features: int,
        *,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        weight_initializer: Any = RandomNormal,
        dtype: Any = float32,
    ) -> None:
        self.count = check_size("Embedding", "count", count)
        self.features = check_size("Embedding", "features", features)
        values = initial(as_initializer(weight_initializer), (self.count, self.features), dtype)
        self.padding_idx: int | None = None
        if padding_idx is not None:
            row = check_size("Embedding", "padding_idx", padding_idx, -self.count)
            if row >= self.count:
                raise EinkornError(f"Embedding: padding_idx {row} is no row of {self.count}")
            self.padding_idx = row % self.count
            values = np.array(values)
            values[row] = 0
        self.max_norm = max_norm
        if max_norm is not None and not check_number("Embedding", "max_norm", max_norm) > 0:
            raise EinkornError(f"Embedding: max_norm is positive, got {max_norm!r}")
        self.w = Parameter(values, dtype)

    def forward(self, indices: Any) -> Tensor:
        rows = embedding(indices, self.w, padding_idx=self.padding_idx)
        return rows if self.max_norm is None else shortened(rows, self.max_norm)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.count}, {self.features}{padding}"


def shortened(rows: Tensor, max_norm: float) -> Tensor:
    """Rows [..., features] with the longer ones scaled to the length `max_norm`."""
    square = sum_over(ew.multiply(rows, rows), axis=-1, keepdims=True)
    long = ew.greater(square, max_norm * max_norm)
    length = ew.sqrt(ew.where(long, square, 1.0))
    return ew.where(long, ew.multiply(rows, ew.divide(max_norm, length)), rows)


class _Positions(Module):
    def _tokens(self, x: Any) -> Tensor:
        tensor = as_tensor(x, type(self).__name__)
        if tensor.ndim < 2 or not tensor.dtype.is_float:
            raise ShapeError(
                f"{module_path.get()}: {self} takes floats [..., T, features], got {tensor._type}"
            )
        return tensor


class SinusoidalPositions(_Positions):
    """x plus sin(p / base**(2 i / D)) in feature 2 i and the cosine in feature 2 i + 1.

    [..., T, D] -> the same, D even, for positions p = 0 to T - 1 (Vaswani et al., 2017).
    """

    def __init__(self, base: float = 10000.0) -> None:
        self.base = check_number("SinusoidalPositions", "base", base, 1.0)

    def forward(self, x: Any) -> Tensor:
        tensor = self._tokens(x)
        count, width = tensor.shape[-2:]
        added = fn.sinusoidal_positions(count, width, base=self.base, dtype=tensor.dtype)
        return ew.add(tensor, added)

    def extra_repr(self) -> str:
        return "" if self.base == 10000.0 else f"base={self.base}"


class RotaryEmbedding(_Positions):
    """Pairs of features turned by angles that grow with their position (Su et al., 2021).

    [..., T, D] -> the same, D even; meant for the queries and keys of each head.

    Args:
        base: pair i at position p turns by p * base**(-2 i / D).
        interleaved: whether a pair is features 2 i and 2 i + 1, and not i and i + D / 2.
    """

    def __init__(self, base: float = 10000.0, interleaved: bool = False) -> None:
        self.base = check_number("RotaryEmbedding", "base", base, 1.0)
        self.interleaved = check_flag("RotaryEmbedding", "interleaved", interleaved)

    def forward(self, x: Any, positions: Any = None) -> Tensor:
        return fn.rotary_embedding(
            self._tokens(x), positions, base=self.base, interleaved=self.interleaved
        )

    def extra_repr(self) -> str:
        base = "" if self.base == 10000.0 else f"base={self.base}"
        return f"{base}{', ' * bool(base)}interleaved=True" if self.interleaved else base


class LearnedPositions(Sized):
    """x plus the first T rows of a learned table `w` (count, features): [..., T, features].

    Args:
        count: the largest T.
        features: those of the first input by default.
    """

    _size_name = "features"

    def __init__(
        self,
        count: int,
        features: int | None = None,
        *,
        weight_initializer: Any = RandomNormal,
        dtype: Any = float32,
    ) -> None:
        self.count = check_size("LearnedPositions", "count", count)
        self._how = (weight_initializer, dtype)
        self._begin(features)

    def _make(self, size: int) -> None:
        initializer, dtype = self._how
        self.w = parameter(initializer, (self.count, size), dtype)

    def forward(self, x: Any) -> Tensor:
        tensor = as_tensor(x, "LearnedPositions")
        check_width(self, tensor, self.w.shape[1])
        check_dtype_of(self, tensor, self.w)
        if tensor.ndim < 2 or tensor.shape[-2] > self.count:
            raise ShapeError(
                f"{module_path.get()}: {self} takes [..., T, features] with T up to {self.count}, "
                f"got {tensor._type}"
            )
        return ew.add(tensor, self.w[: tensor.shape[-2]])

    def extra_repr(self) -> str:
        return f"{self.count}, {self._shown_size()}"
