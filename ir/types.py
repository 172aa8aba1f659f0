"""The types of IR values: tensors, and tuples of them for operations with several results."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from einkorn.ir.cached import cached_property
from einkorn.ir.dtypes import DType


@dataclass(frozen=True, slots=True)
class TensorType:
    """A dtype and a shape; rank 0 is a scalar. Printed as f32[64,784]."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of a dense array of this type."""
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        return TensorType(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.short}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class TupleType:
    """The result type of an operation with several results; `project` takes one out."""

    items: tuple[TensorType, ...]

    @cached_property
    def size(self) -> int:
        return sum(item.size for item in self.items)

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


Type = TensorType | TupleType


def same_shape(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes are equal; sizes that are open are only asked where ranks agree."""
    return len(a) == len(b) and a == b
