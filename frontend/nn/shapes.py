"""Layers that only rearrange or resize."""

from __future__ import annotations

from math import prod
from typing import Any

from einkorn.convert import as_tensor
from einkorn.functions.interpolation import interpolate
from einkorn.functions.manipulation import to_shape
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.nn.module import Module
from einkorn.nn.settings import check_data_format, check_size
from einkorn.tensor import Tensor
from einkorn.tunable import module_path


class Identity(Module):
    """The input itself; any arguments are accepted when it is made."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def forward(self, x: Any) -> Any:
        return x


class Reshape(Module):
    """The axes behind the first `preserve_dims` in another shape: (n, s...) -> (n, *shape).

    Args:
        shape: sizes, of which one may be -1.
    """

    def __init__(self, shape: Any, preserve_dims: int = 1) -> None:
        sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        self.shape = tuple(check_size("Reshape", "shape", n, -1) for n in sizes)
        if self.shape.count(-1) > 1:
            raise EinkornError(f"Reshape: at most one size is -1, got {shape!r}")
        self.preserve_dims = check_size("Reshape", "preserve_dims", preserve_dims, 0)

    def forward(self, x: Any) -> Tensor:
        tensor, kept = as_tensor(x, "Reshape"), self.preserve_dims
        if tensor.ndim < kept:
            raise ShapeError(f"{module_path.get()}: {self} keeps {kept} axes, got {tensor._type}")
        count, known = prod(tensor.shape[kept:]), prod(n for n in self.shape if n != -1)
        fits = known and count % known == 0 if -1 in self.shape else count == known
        if not fits:
            raise ShapeError(
                f"{module_path.get()}: {self} needs {self.shape} for {tensor.shape[kept:]} behind "
                f"the first {kept} axes, got {tensor._type}"
            )
        sizes = (count // known if n == -1 else n for n in self.shape)
        return to_shape(tensor, (*tensor.shape[:kept], *sizes))

    def extra_repr(self) -> str:
        return f"{self.shape}" + (
            "" if self.preserve_dims == 1 else f", preserve_dims={self.preserve_dims}"
        )


class Flatten(Reshape):
    """All axes behind the first `preserve_dims` as one: (n, s...) -> (n, prod(s))."""

    def __init__(self, preserve_dims: int = 1) -> None:
        super().__init__((-1,), preserve_dims)

    def forward(self, x: Any) -> Tensor:
        tensor, kept = as_tensor(x, "Flatten"), self.preserve_dims
        if tensor.ndim < kept:
            raise ShapeError(f"{module_path.get()}: {self} keeps {kept} axes, got {tensor._type}")
        return to_shape(tensor, (*tensor.shape[:kept], prod(tensor.shape[kept:])))

    def extra_repr(self) -> str:
        return "" if self.preserve_dims == 1 else f"preserve_dims={self.preserve_dims}"


class Upsample(Module):
    """Spatial axes resized; see `interpolate`.

    [N, s..., C] -> [N, size..., C] or [N, round(s * scale)..., C].

    Args:
        scale: one number, or one for each axis; or give `size`, integers.
        mode: "nearest", "nearest-exact", "linear", "cubic" or "area".
    """

    def __init__(
        self,
        scale: Any = None,
        mode: str = "nearest",
        *,
        size: Any = None,
        align_corners: bool = False,
        data_format: str = "NHWC",
    ) -> None:
        if (scale is None) == (size is None):
            raise EinkornError("Upsample: give either scale or size")
        check_data_format("Upsample", data_format)
        self.scale, self.size, self.mode = scale, size, mode
        self.align_corners, self.data_format = align_corners, data_format

    def forward(self, x: Any) -> Tensor:
        return interpolate(
            x,
            size=self.size,
            scale=self.scale,
            mode=self.mode,
            align_corners=self.align_corners,
            data_format=self.data_format,
        )

    def extra_repr(self) -> str:
        chosen = f"scale={self.scale}" if self.size is None else f"size={self.size}"
        return f"{chosen}, mode={self.mode!r}"
