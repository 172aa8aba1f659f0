"""`Tensor`: an array with operators, methods and, when something tracked made it, its recording."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from einkorn.convert import check_device, snapshot
from einkorn.functions import elementwise as ew
from einkorn.functions import linear_algebra as la
from einkorn.functions import manipulation as mv
from einkorn.functions import statistical as st
from einkorn.functions.changing import Indexer
from einkorn.functions.exchange import CPU, to_dlpack
from einkorn.functions.indexing import getitem
from einkorn.functions.numpy_calls import call_function, call_ufunc
from einkorn.functions.operators import binary, unary
from einkorn.ir.dtypes import DType, as_dtype
from einkorn.ir.errors import (
    DTypeError,
    NoGradientError,
    RankError,
    ShapeError,
    StateError,
)
from einkorn.ir.graph import Graph
from einkorn.ir.node import toposort
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.recording import Value, apply, result

Shape = tuple[int, ...]
Axis = int | tuple[int, ...] | None

API_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")

TRACED = ", traced in "  # in the text of a tensor that has no value

MSG_IMMUTABLE = (
    "a Tensor cannot be changed in place: write  x = x.at[{index}].set(value)  instead of  "
    "x[{index}] = value"
)


class _TensorType(type):
    """Says that a number of the run is no Tensor: in eager mode it is an int or float."""

    def __instancecheck__(cls, instance: object) -> bool:
        return type.__instancecheck__(cls, instance) and not (
            cls is Tensor and type(instance) is Value._number_class
        )


class Tensor(Value, metaclass=_TensorType, results=True):
    """An immutable array of one dtype. Make one with `ek.asarray`, a leaf with `ek.tensor`."""

    __slots__ = ()

    __hash__ = object.__hash__

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise StateError("make tensors with ek.asarray(values), leaves with ek.tensor(values)")

    # -- what it is ----------------------------------------------------------------------------

    @property
    def dtype(self) -> DType:
        return self._type.dtype

    @property
    def shape(self) -> Shape:
        return self._type.shape

    @property
    def ndim(self) -> int:
        return self._type.rank

    @property
    def size(self) -> int:
        return self._type.size

    @property
    def device(self) -> str:
        return "cpu"

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        import einkorn  # the namespace is the package itself, complete only after its import

        if api_version is not None and api_version not in API_VERSIONS:
            raise StateError(
                f"array API version {api_version!r} is not there; there are {API_VERSIONS}"
            )
        return einkorn

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return call_ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return call_function(function, args, options)

    # -- values --------------------------------------------------------------------------------

    def _concrete(self, what: str) -> np.ndarray[Any, Any]:
        """The array; TraceError inside a trace, naming what asked for it."""
        if self._array is None and self._trace is not None and self._trace.active:
            raise self._trace.unknown(what, self._node)
        return self._shared()

    def numpy(self) -> np.ndarray[Any, Any]:
        """The value as a read-only NumPy array."""
        self._concrete(".numpy()")
        return _read_only(self._shared())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self._concrete("np.asarray(t)")
        if dtype is not None and np.dtype(dtype) != array.dtype:
            return array.astype(dtype)
        return array.copy() if copy else self.numpy()

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        return to_dlpack(self, stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU

    def item(self) -> Any:
        """The value of a tensor of one element as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item() needs a tensor of one element, got {self._type}")
        return self._concrete(".item()").reshape(())[()].item()

    def tolist(self) -> Any:
        return self._concrete(".tolist()").tolist()

    def _one(self, what: str) -> Any:
        if self._weak and self._trace is not None:
            return np.asarray(self._trace.specialise(self, what))[()]
        if self.size != 1:
            raise ShapeError(f"{what} needs a tensor of one element, got {self._type}")
        return self._concrete(what).reshape(())[()]

    def __reduce__(self) -> tuple[Any, ...]:
        """A tensor is stored as its value."""
        return _restore, (self._concrete("a copy").copy(),)

    def __bool__(self) -> bool:
        trace = self._trace
        if self._weak and trace is not None and trace.attributes.depends(self):
            return bool(self != 0)  # which is a branch
        if trace is not None and not self._weak and self.size == 1:
            outcome = trace.branch(self)
            if outcome is not None:
                return outcome
        return bool(self._one("bool(t), as `if t:` and `while t:` use it,"))

    def __float__(self) -> float:
        return float(self._real("float(t)"))

    def __int__(self) -> int:
        return int(self._real("int(t)"))

    def __complex__(self) -> complex:
        return complex(self._one("complex(t)"))

    def _real(self, what: str) -> Any:
        if self.dtype.is_complex:
            raise DTypeError(
                f"{what}: {self._type} is complex; use complex(t), abs(t) or ek.real(t)"
            )
        return self._one(what)

    def __index__(self) -> int:
        value = self._one("a tensor as an index")
        if not self.dtype.is_integer:
            raise DTypeError(
                f"only integer tensors can be an index, got {self._type}; cast it with "
                ".astype('int64')"
            )
        return int(value)

    def __len__(self) -> int:
        if not self.shape:
            raise DTypeError("a tensor of rank 0 has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        kind = type(self).__name__
        if self._array is None:
            return f"{kind}({self._type}{TRACED}{self._trace.name})"
        body = np.array2string(self._array, separator=", ", prefix=f"{kind}(", threshold=200)
        return f"{kind}({body}, dtype={self.dtype})"

    def __format__(self, spec: str) -> str:
        if spec or self._weak:
            return format(self._one("a format").item(), spec)
        return str(self)

    def __round__(self, digits: int | None = None) -> Any:
        return round(self._one("round(t)").item(), digits)

    def is_integer(self) -> bool:
        """Whether the one element is a whole number, as a Python number tells it."""
        return float(self._one("is_integer")).is_integer()

    def __getitem__(self, index: Any) -> Tensor:
        return getitem(self, index)

    def __setitem__(self, index: object, value: object) -> None:
        shown = repr(index).replace("slice(None, None, None)", ":")
        raise StateError(MSG_IMMUTABLE.format(index=shown))

    @property
    def at(self) -> Indexer:
        """`x.at[index].set(v)`, add, multiply, min, max: a copy with the part changed."""
        return Indexer(self)

    # -- differentiation -----------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether the value depends on something tracked."""
        return self._tracked() is not None or self._array is None

    @property
    def grad(self) -> Tensor | None:
        """Only leaves have one."""
        raise NoGradientError(
            "only leaves have .grad; take ek.grad or ek.value_and_grad with respect to this value, "
            "or make a leaf of it with ek.tensor(values)"
        )

    def detach(self) -> Tensor:
        """The same value with no gradient flowing back through it."""
        return apply(Op.STOP_GRADIENT, self)

    def backward(self, gradient: Any = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this value to `.grad` of every trainable leaf behind it.

        Args:
            gradient: the cotangent, of this tensor's shape; 1 for a scalar by default.
            retain_graph: keep the recording, for another backward.
        """
        from einkorn.transforms.gradients import backward  # it needs leaves, which are tensors

        backward(self, gradient, retain_graph)

    def graph(self) -> Graph:
        """The IR recorded so far behind this value."""
        record = self._as_record()
        sources = [n for n in toposort([record.node]) if n.op is Op.INPUT]
        return Graph("recorded", (), tuple(sources), (record.node,))

    # -- methods -------------------------------------------------------------------------------

    def astype(self, dtype: Any, *, copy: bool = True, device: Any = None) -> Tensor:
        """The values converted to `dtype`; float to integer rounds toward zero and saturates."""
        return ew.astype(self, dtype, copy=copy, device=device)

    def to_device(self, device: str, /, *, stream: Any = None) -> Tensor:
        """The tensor on a device; there is only "cpu"."""
        check_device("to_device", device)
        if stream is not None:
            raise StateError(f"to_device: the CPU has no streams, got stream={stream!r}")
        return snapshot(self)

    def to(self, target: Any) -> Tensor:
        """Convert to a dtype, or move to a device ("cpu")."""
        if isinstance(target, str) and target.split(":")[0] in ("cpu", "cuda"):
            if target != "cpu":
                raise DTypeError(f"device {target!r} is not available; there is 'cpu'")
            return snapshot(self)
        return self.astype(target)

    def reshape(self, *shape: Any) -> Tensor:
        return mv.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """Permute the axes; reversed by default."""
        if not axes or (len(axes) == 1 and axes[0] is None):
            return mv.permute_dims(self, tuple(reversed(range(self.ndim))))
        return mv.permute_dims(self, axes[0] if len(axes) == 1 else axes)

    def squeeze(self, axis: Axis = None) -> Tensor:
        ones = tuple(k for k, n in enumerate(self.shape) if n == 1)
        return mv.squeeze(self, ones if axis is None else axis)

    def flatten(self) -> Tensor:
        return mv.reshape(self, (-1,))

    @property
    def T(self) -> Tensor:
        """The last two axes exchanged; with fewer than two axes the tensor as it is."""
        return snapshot(self) if self.ndim < 2 else mv.matrix_transpose(self)

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged; there must be two."""
        if self.ndim < 2:
            raise RankError(f".mT needs at least 2 axes, got {self._type}; use x[:, None]")
        return mv.matrix_transpose(self)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return st.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return st.mean(self, axis=axis, keepdims=keepdims)

    def var(self, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
        return st.var(self, axis=axis, correction=correction, keepdims=keepdims)

    def std(self, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
        return st.std(self, axis=axis, correction=correction, keepdims=keepdims)

    def prod(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return st.prod(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return st.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return st.min(self, axis=axis, keepdims=keepdims)

    def any(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return st.any(self, axis=axis, keepdims=keepdims)

    def all(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return st.all(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return st.argmax(self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return st.argmin(self, axis=axis, keepdims=keepdims)

    def cumsum(self, axis: int | None = None) -> Tensor:
        return st.cumulative_sum(self, axis=axis)

    def exp(self) -> Tensor:
        return ew.exp(self)

    def log(self) -> Tensor:
        return ew.log(self)

    def sqrt(self) -> Tensor:
        return ew.sqrt(self)

    def tanh(self) -> Tensor:
        return ew.tanh(self)

    def sigmoid(self) -> Tensor:
        return ew.sigmoid(self)

    def relu(self) -> Tensor:
        return ew.relu(self)

    def softmax(self, axis: int = -1) -> Tensor:
        return st.softmax(self, axis=axis)

    # -- operators -----------------------------------------------------------------------------

    def __neg__(self) -> Tensor:
        return unary(ew.negative, self)

    def __pos__(self) -> Tensor:
        return self if self._weak else ew.positive(self)

    def __abs__(self) -> Tensor:
        return unary(ew.abs, self)

    def __invert__(self) -> Tensor:
        return unary(ew.bitwise_invert, self)

    def __add__(self, other: Any) -> Tensor:
        return binary(ew.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return binary(ew.add, other, self)

    def __sub__(self, other: Any) -> Tensor:
        return binary(ew.subtract, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return binary(ew.subtract, other, self)

    def __mul__(self, other: Any) -> Tensor:
        return binary(ew.multiply, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return binary(ew.multiply, other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return binary(ew.divide, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return binary(ew.divide, other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return binary(ew.floor_divide, self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return binary(ew.floor_divide, other, self)

    def __mod__(self, other: Any) -> Tensor:
        return binary(ew.remainder, self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return binary(ew.remainder, other, self)

    def __pow__(self, other: Any) -> Tensor:
        return binary(ew.pow, self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return binary(ew.pow, other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return binary(la.matmul, self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return binary(la.matmul, other, self)

    def __and__(self, other: Any) -> Tensor:
        return binary(ew.bitwise_and, self, other)

    def __rand__(self, other: Any) -> Tensor:
        return binary(ew.bitwise_and, other, self)

    def __or__(self, other: Any) -> Tensor:
        return binary(ew.bitwise_or, self, other)

    def __ror__(self, other: Any) -> Tensor:
        return binary(ew.bitwise_or, other, self)

    def __xor__(self, other: Any) -> Tensor:
        return binary(ew.bitwise_xor, self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return binary(ew.bitwise_xor, other, self)

    def __lshift__(self, other: Any) -> Tensor:
        return binary(ew.bitwise_left_shift, self, other)

    def __rlshift__(self, other: Any) -> Tensor:
        return binary(ew.bitwise_left_shift, other, self)

    def __rshift__(self, other: Any) -> Tensor:
        return binary(ew.bitwise_right_shift, self, other)

    def __rrshift__(self, other: Any) -> Tensor:
        return binary(ew.bitwise_right_shift, other, self)

    def __eq__(self, other: object) -> Any:
        return binary(ew.equal, self, other)

    def __ne__(self, other: object) -> Any:
        return binary(ew.not_equal, self, other)

    def __lt__(self, other: Any) -> Tensor:
        return binary(ew.less, self, other)

    def __le__(self, other: Any) -> Tensor:
        return binary(ew.less_equal, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return binary(ew.greater, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return binary(ew.greater_equal, self, other)


def _restore(array: np.ndarray[Any, Any]) -> Tensor:
    return result(TensorType(as_dtype(array.dtype), array.shape), array)


def _read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A view that cannot be made writable again; NumPy allows that for a plain view."""
    if array.dtype.isbuiltin != 1:  # bfloat16 has no buffer format
        view = array.view()
        view.flags.writeable = False
        return view
    return np.asarray(memoryview(cast(Any, array)).toreadonly())
