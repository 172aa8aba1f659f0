"""Fourier transforms: the extension `fft` of the Python array API standard.

They are computed by NumPy, float32 and complex64 in single precision. Each is linear, and has
gradients of every order. An axis that is given another size is cut, or padded with zeros, at its
end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from einkorn.convert import (
    as_choice,
    as_int,
    as_number,
    as_tensor,
    check_device,
    check_dtype,
    normal_axes,
    normal_axis,
)
from einkorn.functions.creation import arange
from einkorn.functions.elementwise import cast, multiply
from einkorn.functions.floating import conj, floats
from einkorn.functions.manipulation import cut, pad, roll
from einkorn.host import host_op
from einkorn.ir.dtypes import float32, float64
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.host.fourier import NORMS

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

__all__ = [
    "fft",
    "fftfreq",
    "fftn",
    "fftshift",
    "hfft",
    "ifft",
    "ifftn",
    "ifftshift",
    "ihfft",
    "irfft",
    "irfftn",
    "rfft",
    "rfftfreq",
    "rfftn",
]

Axes = Sequence[int] | None
Sizes = Sequence[int] | None

_OTHER = {"backward": "forward", "ortho": "ortho", "forward": "backward"}


def fft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The discrete Fourier transform along an axis; real numbers become complex first.

    Args:
        n: the size of the axis, before the transform and after it.
        norm: which direction is scaled by 1/n: "backward" the inverse, "forward" this one, "ortho"
            both by its root.
    """
    return _transform("fft", x, n, axis, norm, inverse=0)


def ifft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of `fft`."""
    return _transform("ifft", x, n, axis, norm, inverse=1)


def fftn(x: Any, /, *, s: Sizes = None, axes: Axes = None, norm: str = "backward") -> Tensor:
    """The discrete Fourier transform along several axes.

    Args:
        s: the size of each of the axes; their own by default.
        axes: all by default, with `s` the last ones.
        norm: as of `fft`.
    """
    return _transforms("fftn", x, s, axes, norm, inverse=0)


def ifftn(x: Any, /, *, s: Sizes = None, axes: Axes = None, norm: str = "backward") -> Tensor:
    """The inverse of `fftn`."""
    return _transforms("ifftn", x, s, axes, norm, inverse=1)


def rfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The first half of the transform of real numbers: n // 2 + 1 elements; the rest is symmetric.

    Args:
        n: the size of the axis before the transform.
        norm: as of `fft`.
    """
    (tensor,) = floats("rfft", x)
    _check_real("rfft", tensor)
    return _forward_half("rfft", tensor, n, axis, norm)


def irfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of `rfft`: real numbers.

    Args:
        n: the size of the axis after it; 2 (m - 1) for an axis of m elements by default.
        norm: as of `fft`.
    """
    return _backward_half("irfft", _complex("irfft", x), n, axis, norm)


def rfftn(x: Any, /, *, s: Sizes = None, axes: Axes = None, norm: str = "backward") -> Tensor:
    """`rfft` along the last of the axes, then `fft` along the others."""
    (tensor,) = floats("rfftn", x)
    _check_real("rfftn", tensor)
    sizes, places = _places("rfftn", tensor, s, axes)
    found = _forward_half("rfftn", tensor, sizes[-1], places[-1], norm)
    for n, axis in zip(sizes[:-1], places[:-1]):
        found = _transform("rfftn", found, n, axis, norm, inverse=0)
    return found


def irfftn(x: Any, /, *, s: Sizes = None, axes: Axes = None, norm: str = "backward") -> Tensor:
    """The inverse of `rfftn`.

    Args:
        s: the size of each of the axes after it; of the last one 2 (m - 1) by default.
        axes: all by default, with `s` the last ones.
        norm: as of `fft`.
    """
    tensor = _complex("irfftn", x)
    sizes, places = _places("irfftn", tensor, s, axes)
    for n, axis in zip(sizes[:-1], places[:-1]):
        tensor = _transform("irfftn", tensor, n, axis, norm, inverse=1)
    return _backward_half("irfftn", tensor, None if s is None else sizes[-1], places[-1], norm)


def hfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The transform of a signal with Hermitian symmetry, given its first half: real numbers.

    Args:
        n: the size of the axis after it; 2 (m - 1) for an axis of m elements by default.
        norm: as of `fft`.
    """
    other = _OTHER[as_choice("hfft", "norm", norm, NORMS)]
    return _backward_half("hfft", conj(_complex("hfft", x)), n, axis, other)


def ihfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of `hfft`: the first half of a signal whose transform is real."""
    (tensor,) = floats("ihfft", x)
    _check_real("ihfft", tensor)
    other = _OTHER[as_choice("ihfft", "norm", norm, NORMS)]
    return conj(_forward_half("ihfft", tensor, n, axis, other))


# -- parts -----------------------------------------------------------------------------------------


def _wide(what: str, x: Any) -> Tensor:
    """An operand of single or double precision; half types are refused."""
    (tensor,) = floats(what, x)
    if tensor.dtype.itemsize == 2:
        raise DTypeError(
            f"{what}: needs float32, float64 or a complex dtype, got {tensor._type}; cast with "
            ".astype('float32')"
        )
    return tensor


def _complex(what: str, x: Any) -> Tensor:
    tensor = _wide(what, x)
    return cast(tensor, tensor.dtype.complex)


def _check_real(what: str, x: Tensor) -> None:
    _wide(what, x)
    if x.dtype.is_complex:
        raise DTypeError(f"{what}: needs real numbers, got {x._type}; use fft or ifft")


def _sized(what: str, x: Tensor, axis: int, n: int) -> Tensor:
    """The axis cut, or padded with zeros, at its end."""
    if n < 1:
        raise ShapeError(f"{what}: a transform needs at least one element, got n={n} of {x._type}")
    size = x.shape[axis]
    if n <= size:
        return x if n == size else cut(x, axis, 0, n)
    return pad(x, tuple((0, n - size if k == axis else 0) for k in range(x.ndim)))


def _axis_of(what: str, x: Tensor, n: int | None, axis: int) -> tuple[int, int]:
    """The axis, not negative, and its size in the transform."""
    if not x.ndim:
        raise ShapeError(f"{what}: needs at least one axis, got {x._type}")
    axis = normal_axis(what, axis, x.ndim)
    return axis, x.shape[axis] if n is None else as_int(what, n, "n is an integer")


def _transform(what: str, x: Any, n: int | None, axis: int, norm: str, inverse: int) -> Tensor:
    tensor = _complex(what, x)
    number = NORMS.index(as_choice(what, "norm", norm, NORMS))
    axis, size = _axis_of(what, tensor, n, axis)
    tensor = _sized(what, tensor, axis, size)
    return host_op("fft", tensor, params=(tensor.ndim - axis, inverse, number))


def _transforms(what: str, x: Any, s: Sizes, axes: Axes, norm: str, inverse: int) -> Tensor:
    tensor = _complex(what, x)
    as_choice(what, "norm", norm, NORMS)
    for n, axis in zip(*_places(what, tensor, s, axes)):
        tensor = _transform(what, tensor, n, axis, norm, inverse)
    return tensor


def _forward_half(what: str, x: Tensor, n: int | None, axis: int, norm: str) -> Tensor:
    number = NORMS.index(as_choice(what, "norm", norm, NORMS))
    axis, size = _axis_of(what, x, n, axis)
    x = _sized(what, x, axis, size)
    return host_op("rfft", x, params=(x.ndim - axis, number))


def _backward_half(what: str, x: Tensor, n: int | None, axis: int, norm: str) -> Tensor:
    number = NORMS.index(as_choice(what, "norm", norm, NORMS))
    axis, size = _axis_of(what, x, n, axis)
    size = 2 * (size - 1) if n is None else size
    if size < 1:
        raise ShapeError(f"{what}: {x._type} gives no elements along axis {axis}; give n")
    x = _sized(what, x, axis, size // 2 + 1)
    return host_op("irfft", x, params=(x.ndim - axis, size, number))


def _places(what: str, x: Tensor, s: Sizes, axes: Axes) -> tuple[list[int], list[int]]:
    """The sizes in the transforms, and the axes, in the order in which they are given."""
    if not x.ndim:
        raise ShapeError(f"{what}: needs at least one axis, got {x._type}")
    sizes = None if s is None else [as_int(what, n, "s is made of integers") for n in s]
    if axes is None:
        count = x.ndim if sizes is None else len(sizes)
        if count > x.ndim:
            raise ShapeError(f"{what}: s names {count} sizes, but {x._type} has {x.ndim} axes")
        places = list(range(x.ndim - count, x.ndim))
    else:
        normal_axes(what, tuple(axes), x.ndim)  # none twice
        places = [normal_axis(what, axis, x.ndim) for axis in axes]
    if sizes is None:
        sizes = [x.shape[axis] for axis in places]
    if len(sizes) != len(places) or not places:
        raise ShapeError(f"{what}: s must name a size for each axis, got s={s!r} and axes={axes!r}")
    return sizes, places


# -- frequencies -----------------------------------------------------------------------------------


def _frequencies(what: str, numbers: Tensor, n: int, d: Any, dtype: Any) -> Tensor:
    wanted = float32 if dtype is None else check_dtype(dtype)
    if wanted.kind != "f":
        raise DTypeError(f"{what}: needs a real floating-point dtype, got {wanted}")
    step = float(as_number(what, d, "d is a number"))
    if step == 0:
        raise ShapeError(f"{what}: d must not be 0")
    return cast(multiply(cast(numbers, float64), 1.0 / (n * step)), wanted)


def _count(what: str, n: Any) -> int:
    count = as_int(what, n, "n is an integer")
    if count < 1:
        raise ShapeError(f"{what}: n must be at least 1, got {count}")
    return count


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of the elements of `fft`: 0, 1, ..., -2, -1 divided by n d.

    Args:
        d: the distance of samples.
    """
    check_device("fftfreq", device)
    count = _count("fftfreq", n)
    half = (count - 1) // 2 + 1
    numbers = roll(arange(half - count, half), half, axis=0)
    return _frequencies("fftfreq", numbers, count, d, dtype)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of the elements of `rfft`: 0, 1, ..., n // 2 divided by n d."""
    check_device("rfftfreq", device)
    count = _count("rfftfreq", n)
    return _frequencies("rfftfreq", arange(count // 2 + 1), count, d, dtype)


def fftshift(x: Any, /, *, axes: int | Axes = None) -> Tensor:
    """The frequency 0 moved to the middle of axes, of all by default."""
    return _shifted("fftshift", x, axes, 1)


def ifftshift(x: Any, /, *, axes: int | Axes = None) -> Tensor:
    """The inverse of `fftshift`."""
    return _shifted("ifftshift", x, axes, -1)


def _shifted(what: str, x: Any, axes: int | Axes, sign: int) -> Tensor:
    tensor = as_tensor(x, what)
    places = normal_axes(what, axes, tensor.ndim)
    if not places:
        return tensor
    shifts = [sign * (tensor.shape[axis] // 2) for axis in places]
    return roll(tensor, shifts, axis=places)


def __dir__() -> list[str]:
    return __all__
