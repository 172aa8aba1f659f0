"""`Tensor`: a value with a gradient, and the graph of what it was computed from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from einkorn.convert import as_tensor
from einkorn.dialects.pygrad import tape
from einkorn.dialects.pygrad.constants import floating
from einkorn.functions import elementwise as ew
from einkorn.functions import manipulation, statistical
from einkorn.functions.convolution import conv
from einkorn.functions.indexing import getitem
from einkorn.functions.linear_algebra import matmul
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError, StateError
from einkorn.leaf import Leaf
from einkorn.recording import Value, current_trace

Axis = int | tuple[int, ...] | None

MSG_ACCUMULATE = "backward: accumulate is 'all' or 'leaf', got {found!r}"
MSG_SHAPE = (
    "{name}.value has shape {old}, got {new}; new_value(x) gives a tensor a value of another shape"
)


class Tensor:
    """A value that remembers what it was computed from.

    `leaf=True` says that a tensor is an input or a result and no weight, the opposite of what other
    libraries call a leaf; `learnable=False` says that it is a constant.

    Args:
        value: a number, a list or an array.
        label: a name.
        dtype: float64 unless `set_default_dtype` chose another one.
        learnable: whether gradients reach it.
        leaf: whether it is no weight.

    Attributes:
        value: an array; assign another one of the same shape.
        grad: an array of the shape of the value, zeros before `backward`.
        topo: after `backward` or `create_graph` all tensors that it was computed from and itself.
        weights: those of them that are weights.
    """

    # NumPy leaves `array + tensor` to __radd__.
    __array_ufunc__ = None
    __slots__ = (
        "__weakref__", "_data", "_examples", "_grad", "_prev", "_send",
        "dtype", "label", "leaf", "learnable", "topo", "weights",
    )  # fmt: skip

    def __init__(
        self,
        value: Any,
        label: str = "",
        dtype: Any = None,
        learnable: bool = True,
        leaf: bool = False,
        _prev: tuple[Tensor, ...] = (),
    ) -> None:
        if not isinstance(learnable, bool) or not isinstance(leaf, bool):
            raise EinkornError(f"Tensor: learnable and leaf are bools, got {learnable!r}, {leaf!r}")
        self.dtype = floating(dtype)
        given = value.data if isinstance(value, Tensor) else value
        self._data = self._cell(_numbers(given, self.dtype))
        self._grad = self._cell(tape.no_gradient(self.shape, self.dtype))
        self.label, self.learnable, self.leaf, self._prev = label, learnable, leaf, _prev
        self.topo: list[Tensor] | None = None
        self.weights: list[Tensor] | None = None
        self._send: Callable[[Any], None] = _nowhere
        self._examples = 1

    @classmethod
    def result(cls, value: Any, label: str = "") -> Self:
        """An intermediate tensor around a value that einkorn computed."""
        new = cls.__new__(cls)
        new.dtype = value.dtype.numpy.type
        new._data, new._grad = value, tape.no_gradient(value.shape, value.dtype)
        new.label, new.learnable, new.leaf, new._prev = label, True, True, ()
        new.topo = new.weights = None
        new._send, new._examples = _nowhere, 1
        return new

    def _cell(self, value: Any) -> Any:
        """State that compiled steps write to, or, inside of one, a value of that step."""
        return value if current_trace.get() is not None else Leaf(value, name="pygrad")

    # -- value and gradient --------------------------------------------------------------------

    @property
    def data(self) -> Any:
        """The value as einkorn's tensor."""
        return self._data

    @property
    def value(self) -> Any:
        return _shown(self._data)

    @value.setter
    def value(self, new: Any) -> None:
        value = _numbers(new, self.dtype)
        if tuple(value.shape) != self.shape:
            name = self.label or "Tensor"
            raise ShapeError(MSG_SHAPE.format(name=name, old=self.shape, new=value.shape))
        self._data = _written(self._data, value)

    def new_value(self, x: Any) -> None:
        """Give the tensor a value, perhaps of another shape, and a gradient of zeros."""
        value = _numbers(x, self.dtype)
        if tuple(value.shape) == self.shape:
            self._data = _written(self._data, value)
            self.reset_grad()
        elif current_trace.get() is not None:
            raise StateError("new_value: a compiled step keeps the shapes of tensors")
        else:
            self._data = self._cell(value)
            self._grad = self._cell(tape.no_gradient(self.shape, self.dtype))

    @property
    def grad(self) -> Any:
        return _shown(self._grad)

    @grad.setter
    def grad(self, new: Any) -> None:
        self.set_grad(_numbers(new, self.dtype))

    def set_grad(self, new: Any) -> None:
        """Exchange the gradient."""
        self._grad = _written(self._grad, new)

    def add_grad(self, more: Any) -> None:
        """Add to the gradient."""
        self.set_grad(tape.added(self._grad, more))

    def reset_grad(self) -> None:
        """Make the gradient zeros."""
        self.set_grad(tape.no_gradient(self.shape, self.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._data.shape)

    @property
    def requires_grad(self) -> bool:
        """The same as `learnable`."""
        return self.learnable

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        self.learnable = on

    def __repr__(self) -> str:
        name = f"name={self.label}, " if self.label else ""
        value = f"value={self.value}, " if self.shape == () else ""
        return f"Tensor({name}{value}shape={self.shape}, dtype={np.dtype(self.dtype)})"

    # -- the graph -----------------------------------------------------------------------------

    def create_graph(self) -> tuple[list[Tensor], list[Tensor]]:
        """All tensors that this one was computed from, operands first, and the weights of them.

        Constants (`learnable=False`) are left out; the last one is the tensor itself.
        """
        self.topo = tape.ordered(self)
        self.weights = [x for x in self.topo if x.learnable and not x.leaf]
        return self.topo, self.weights

    def bpass(self) -> None:
        """Send the gradient to the operands."""
        self._send(self._grad)

    def backward(self, reset_grad: bool = True, accumulate: str = "all") -> None:
        """Fill the gradients of all tensors that this one was computed from.

        Args:
            reset_grad: clear what earlier calls left. Otherwise gradients add up, also those of
                intermediate tensors, which are sent on once more: x**2 + x + 1 at 1 gives 3, and
                then 11.
            accumulate: "leaf" adds up only the gradients of weights: 3, and then 6.
        """
        if accumulate not in ("all", "leaf"):
            raise EinkornError(MSG_ACCUMULATE.format(found=accumulate))
        topo, _ = self.create_graph()
        if not reset_grad:
            topo = [x for x in topo if x.leaf] if accumulate == "leaf" else []
        tape.backward(self, topo)

    # -- operators -----------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return apply(ew.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return apply(ew.add, self, other)

    def __sub__(self, other: Any) -> Tensor:
        return apply(ew.subtract, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return apply(lambda x, y: ew.subtract(y, x), self, other)

    def __mul__(self, other: Any) -> Tensor:
        return apply(ew.multiply, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return apply(ew.multiply, self, other)

    def __truediv__(self, other: Any) -> Tensor:
        return apply(ew.divide, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return apply(lambda x, y: ew.divide(y, x), self, other)

    def __neg__(self) -> Tensor:
        return apply(ew.negative, self)

    def __pow__(self, n: Any) -> Tensor:
        if isinstance(n, Tensor):
            return apply(ew.pow, self, n)
        exponent = int(n) if isinstance(n, (int, np.integer)) else n
        return apply(lambda x: ew.pow(x, exponent), self)

    def __rpow__(self, other: Any) -> Tensor:
        return apply(lambda x, y: ew.pow(y, x), self, other)

    def __matmul__(self, other: Any) -> Tensor:
        return apply(matmul, self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return apply(lambda x, y: matmul(y, x), self, other)

    def __getitem__(self, idcs: Any) -> Tensor:
        return apply(lambda x: getitem(x, _index(idcs)), self)

    # -- methods -------------------------------------------------------------------------------

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The sum over axes."""
        return apply(lambda x: statistical.sum(x, axis=axis, keepdims=keepdims), self)

    def mean(self, axis: Axis = -1, keepdims: bool = True) -> Tensor:
        """The mean over axes, the last one unless others are given."""
        return apply(lambda x: statistical.mean(x, axis=_axes(x, axis), keepdims=keepdims), self)

    def std(self, axis: Axis = -1, keepdim: bool = True) -> Tensor:
        """The standard deviation over axes, without correction."""
        return apply(lambda x: statistical.std(x, axis=_axes(x, axis), keepdims=keepdim), self)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape, of which one size may be -1."""
        new = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return apply(lambda x: manipulation.reshape(x, tuple(new)), self)

    def transpose(self, axes: Any = None) -> Tensor:
        """The axes in another order, backwards unless one is given."""
        order = tuple(reversed(range(len(self.shape)))) if axes is None else tuple(axes)
        return apply(lambda x: manipulation.permute_dims(x, order), self)

    @property
    def T(self) -> Tensor:
        """The last two axes exchanged."""
        if len(self.shape) < 2:
            raise ShapeError(f"T exchanges the last two axes, got shape {self.shape}")
        return apply(lambda x: manipulation.swapaxes(x, -2, -1), self)

    def mask_idcs(self, idcs: Any, value: float = 0.0) -> Tensor:
        """`value` at some indices, which pass no gradient on."""
        mask = np.zeros(self.shape, bool)
        mask[_index(idcs)] = True
        return apply(lambda x: ew.where(mask, value, x), self)

    def relu(self) -> Tensor:
        """max(x, 0)."""
        return apply(ew.relu, self)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return apply(ew.tanh, self)

    def log(self) -> Tensor:
        """The natural logarithm."""
        return apply(ew.log, self)

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x))."""
        return apply(ew.sigmoid, self)

    def softmax(self) -> Tensor:
        """exp(x) divided by its sum over the last axis."""
        return apply(statistical.softmax, self)

    def softmax_log(self) -> Tensor:
        """The logarithm of softmax."""
        return apply(statistical.log_softmax, self)

    def conv2D(self, other: Any) -> Tensor:
        """This kernel, [O, C, kH, kW] or [1, O, C, kH, kW], over images [B, C, H, W]."""
        return apply(_convolved, self, other)

    Conv2D = conv2D


def apply(fn: Callable[..., Any], *operands: Any) -> Tensor:
    """The result of an operation of einkorn as a Tensor; arrays and numbers become constants."""
    dtype = next(x.dtype for x in operands if isinstance(x, Tensor))
    tensors = tuple(x if isinstance(x, Tensor) else _constant(x, dtype) for x in operands)
    value, send = tape.evaluate(fn, tensors)
    new = Tensor.result(value)
    if tape.is_recording():
        new._prev, new._send = tensors, send
    return new


def array(value: Any, dtype: Any = None) -> Tensor:
    """A constant: no weight, and nothing that gradients reach."""
    return Tensor(value, dtype=dtype, learnable=False, leaf=True)


def _constant(value: Any, dtype: Any) -> Tensor:
    new = Tensor.result(as_tensor(_numbers(value, dtype), "Tensor"))
    new.learnable = False
    return new


def _nowhere(grad: Any) -> None:
    """What a tensor that was not computed sends on."""


def _numbers(value: Any, dtype: Any) -> Any:
    """Numbers as an array of this dtype, or a tensor of einkorn."""
    if isinstance(value, Tensor):
        value = value.data
    if isinstance(value, Value):
        return ew.astype(as_tensor(value, "Tensor"), dtype)
    found = np.asarray(value)
    if found.dtype.kind not in "fiub":
        raise DTypeError(f"Tensor holds real numbers, got {type(value).__name__}: {value!r}")
    return as_tensor(found.astype(dtype), "Tensor")


def _shown(data: Any) -> Any:
    """An array, or inside of a compiled step the tensor of that step."""
    if isinstance(data, Leaf):
        return data.value
    return data if current_trace.get() is not None else data.numpy()


def _written(cell: Any, value: Any) -> Any:
    """What holds the new value: the leaf itself when there is one."""
    if isinstance(cell, Leaf):
        cell.value = value
        return cell
    return value


def _index(index: Any) -> Any:
    """An index in which tensors are arrays of whole numbers."""
    if isinstance(index, tuple):
        return tuple(_index(x) for x in index)
    return np.asarray(index.value).astype(np.int64) if isinstance(index, Tensor) else index


def _axes(x: Any, axis: Axis) -> Axis:
    """A scalar has no last axis: it is its own mean."""
    return None if x.shape == () and axis == -1 else axis


def _convolved(kernel: Any, images: Any) -> Any:
    if len(kernel.shape) == 5 and kernel.shape[0] == 1:
        kernel = manipulation.squeeze(kernel, axis=0)
    if len(kernel.shape) != 4 or len(images.shape) != 4:
        raise ShapeError(
            "conv2D: a kernel [O, C, kH, kW] or [1, O, C, kH, kW] goes over images [B, C, H, W], "
            f"got {tuple(kernel.shape)} and {tuple(images.shape)}"
        )
    last = manipulation.permute_dims(kernel, (0, 2, 3, 1))
    return conv(images, last, data_format="NCHW")
