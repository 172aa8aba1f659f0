"""What `ek.__array_namespace_info__()` tells: devices, dtypes and capabilities."""

from __future__ import annotations

from typing import Any

from einkorn.convert import check_device
from einkorn.functions.data_types import isdtype
from einkorn.ir.dtypes import ALL, COMPLEX, DType, bfloat16, complex64, float32, int64
from einkorn.ir.shape_rules import MAX_RANK


class NamespaceInfo:
    """The inspection functions of the array namespace."""

    __slots__ = ()

    def capabilities(self) -> dict[str, bool | int]:
        """What the namespace can do; shapes that depend on data are for eager code only."""
        return {
            "boolean indexing": True,
            "data-dependent shapes": True,
            "max dimensions": MAX_RANK,
        }

    def default_device(self) -> str:
        """The device of new tensors."""
        return "cpu"

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """The dtypes of new tensors by kind."""
        check_device("default_dtypes", device)
        return {
            "real floating": float32,
            "complex floating": complex64,
            "integral": int64,
            "indexing": int64,
        }

    def devices(self) -> list[str]:
        """Every device."""
        return ["cpu"]

    def dtypes(
        self, *, device: Any = None, kind: str | tuple[str, ...] | None = None
    ) -> dict[str, DType]:
        """The dtypes of the standard that there are, by name; only those of `kind` if given."""
        check_device("dtypes", device)
        standard = (
            dtype for dtype in (*ALL, *COMPLEX) if dtype is not bfloat16 and dtype.name != "float16"
        )
        return {x.name: x for x in standard if kind is None or isdtype(x, kind)}


def namespace_info() -> NamespaceInfo:
    """The object with the inspection functions of the Python array API standard."""
    return NamespaceInfo()
