"""`Sized`: layers whose input size may be left out, and what they check of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from einkorn.autocast import meet_in_autocast
from einkorn.convert import as_tensor
from einkorn.initializers import Initializer, as_initializer
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.leaf import Parameter
from einkorn.nn.building import built
from einkorn.nn.module import Module, initial
from einkorn.nn.settings import check_size
from einkorn.tensor import Tensor
from einkorn.tunable import module_path

MSG_SIZE = (
    "{path}: {layer} takes {size} {noun} in axis {axis} of its input{because}, got {got}; check "
    "the layer before, or make this one for {found} {noun}"
)
MSG_DTYPE = (
    "{path}: {layer} has parameters of {own} ({name} is {w}) but was called with {got}; cast the "
    "input with x.astype('{own}'), or make the layer with dtype='{other}'"
)
MSG_RANK = "{path}: {layer} takes inputs {order}, got {got}"


class Sized(Module):
    """A layer whose parameters depend on one size of its input.

    A subclass names the attribute that holds the size, defines `_make(size)`, which makes the
    parameters, and `_size_of(x)`. Its `__init__` ends with `self._begin(size or None)`.
    """

    _size_name = "in_features"

    def _begin(self, size: Any) -> None:
        """Make the parameters, or leave that to the first call."""
        name = self._size_name
        setattr(self, name, None)
        if size is not None:
            self._build_for(check_size(type(self).__name__, name, size))
            built(self)

    def _build_for(self, size: int) -> None:
        self._make(size)
        setattr(self, self._size_name, size)

    def build(self, x: Any, *_: Any, **__: Any) -> None:
        """Make the parameters for the size of an input."""
        if getattr(self, self._size_name) is None:
            size = self._size_of(as_tensor(x, type(self).__name__))
            name = self._size_name
            if size < 1:
                raise ShapeError(
                    f"{module_path.get()}: {self} cannot have parameters for {name}={size}"
                )
            self._build_for(size)

    def _make(self, size: int) -> None:
        raise NotImplementedError

    def _size_of(self, x: Tensor) -> int:
        if x.ndim == 0:
            raise ShapeError(f"{module_path.get()}: {self} needs an axis, got {x._type}")
        return x.shape[-1]

    def _shown_size(self) -> str:
        size = self.__dict__.get(self._size_name)
        return "?" if size is None else str(size)


def shifted(layer: str, names: Sequence[str], *values: Any) -> tuple[Any, ...]:
    """Sizes of which the first may be left out: (64, None) becomes (None, 64)."""
    if values[-1] is None:
        values = (None, *values[:-1])
    for name, value in zip(names[1:], values[1:]):
        if value is None:
            raise EinkornError(
                f"{layer} needs {name}: write {layer}({', '.join(names[1:])}), or all of "
                f"{', '.join(names)}"
            )
    return values


def parameter(
    initializer: Any,
    shape: tuple[int, ...],
    dtype: Any,
    fan_in: int | None = None,
    fan_out: int | None = None,
) -> Parameter:
    """A new parameter; einkorn's own initializers are told the fans when given."""
    made: Callable[..., Any] = as_initializer(initializer)
    if isinstance(made, Initializer) and (fan_in is not None or fan_out is not None):
        made = partial(made, fan_in=fan_in, fan_out=fan_out)
    return Parameter(initial(made, shape, dtype), dtype)


def check_dtype_of(layer: Module, x: Tensor, w: Tensor | None, name: str = "w") -> None:
    """DTypeError unless the input has the dtype of the layer's parameters or autocast casts it."""
    if w is None or x.dtype is w.dtype or meet_in_autocast(x.dtype, w.dtype):
        return
    other = x.dtype if x.dtype.is_float else w.dtype
    raise DTypeError(
        MSG_DTYPE.format(
            path=module_path.get(),
            layer=layer,
            own=w.dtype,
            name=name,
            w=w._type,
            got=x._type,
            other=other,
        )
    )


def check_width(
    layer: Module, x: Tensor, size: int, noun: str = "features", axis: int = -1, name: str = "w"
) -> None:
    """ShapeError unless an axis of the input has the size that the parameters were made for."""
    found = x.shape[axis] if -x.ndim <= axis < x.ndim else "other"
    if found != size:
        w = getattr(layer, name, None)
        because = f", as {name} {w._type} says" if isinstance(w, Tensor) else ""
        raise ShapeError(
            MSG_SIZE.format(
                path=module_path.get(),
                layer=layer,
                size=size,
                noun=noun,
                axis=axis,
                because=because,
                got=x._type,
                found=found,
            )
        )


def check_rank(layer: Module, x: Tensor, ranks: Sequence[int], order: str) -> None:
    """ShapeError unless the input has one of these numbers of axes."""
    if x.ndim not in ranks:
        raise ShapeError(
            MSG_RANK.format(path=module_path.get(), layer=layer, order=order, got=x._type)
        )
