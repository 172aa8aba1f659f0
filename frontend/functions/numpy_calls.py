"""What NumPy's functions do with Tensors.

`np.add(t, a)` and the others listed here compute with einkorn: the result is a Tensor, gradients
follow, and compiled functions may call them. Any other NumPy function gets the values as arrays and
gives what it gives; in a compiled function, where there are no values, it raises a TraceError.

A number of the run is no Tensor but a Python number: NumPy computes with it, as in eager code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from einkorn import fft, linalg
from einkorn.convert import as_tensor
from einkorn.functions import creation as cr
from einkorn.functions import elementwise as ew
from einkorn.functions import floating as fl
from einkorn.functions import linear_algebra as la
from einkorn.functions import manipulation as mv
from einkorn.functions import searching as se
from einkorn.functions import sorting as so
from einkorn.functions import statistical as st
from einkorn.functions.einsum import einsum
from einkorn.functions.indexing import take, take_along_axis
from einkorn.functions.operators import OPERATORS, binary, unary
from einkorn.ir.errors import DTypeError, StateError
from einkorn.recording import Value

Function = Callable[..., Any]

MSG_OUT = "np.{name} cannot write into a Tensor (out=), which is immutable; use what it returns"
MSG_ARGUMENTS = (
    "np.{name} of a Tensor computes with einkorn, which does not take these arguments: {error}; "
    "use the function of the einkorn namespace, or np.asarray(t) for NumPy's own"
)

UFUNCS: dict[np.ufunc, Function] = {
    np.absolute: ew.abs,
    np.add: ew.add,
    np.arccos: ew.acos,
    np.arccosh: ew.acosh,
    np.arcsin: ew.asin,
    np.arcsinh: ew.asinh,
    np.arctan2: fl.atan2,
    np.arctan: fl.atan,
    np.arctanh: ew.atanh,
    np.bitwise_and: ew.bitwise_and,
    np.bitwise_or: ew.bitwise_or,
    np.bitwise_xor: ew.bitwise_xor,
    np.ceil: ew.ceil,
    np.conjugate: fl.conj,
    np.copysign: fl.copysign,
    np.cos: ew.cos,
    np.cosh: ew.cosh,
    np.divide: ew.divide,
    np.equal: ew.equal,
    np.exp: ew.exp,
    np.expm1: ew.expm1,
    np.floor: ew.floor,
    np.floor_divide: ew.floor_divide,
    np.greater: ew.greater,
    np.greater_equal: ew.greater_equal,
    np.hypot: fl.hypot,
    np.invert: ew.bitwise_invert,
    np.isfinite: ew.isfinite,
    np.isinf: ew.isinf,
    np.isnan: ew.isnan,
    np.left_shift: ew.bitwise_left_shift,
    np.less: ew.less,
    np.less_equal: ew.less_equal,
    np.log10: ew.log10,
    np.log1p: ew.log1p,
    np.log2: ew.log2,
    np.log: ew.log,
    np.logaddexp: fl.logaddexp,
    np.logical_and: ew.logical_and,
    np.logical_not: ew.logical_not,
    np.logical_or: ew.logical_or,
    np.logical_xor: ew.logical_xor,
    np.matmul: la.matmul,
    np.maximum: ew.maximum,
    np.minimum: ew.minimum,
    np.multiply: ew.multiply,
    np.negative: ew.negative,
    np.nextafter: fl.nextafter,
    np.not_equal: ew.not_equal,
    np.positive: ew.positive,
    np.power: ew.pow,
    np.reciprocal: ew.reciprocal,
    np.remainder: ew.remainder,
    np.right_shift: ew.bitwise_right_shift,
    np.rint: ew.round,
    np.sign: ew.sign,
    np.signbit: fl.signbit,
    np.sin: ew.sin,
    np.sinh: ew.sinh,
    np.sqrt: ew.sqrt,
    np.square: ew.square,
    np.subtract: ew.subtract,
    np.tan: ew.tan,
    np.tanh: ew.tanh,
    np.trunc: ew.trunc,
}


# What NumPy and einkorn compute alike, to the bit, from an array and a number of its kind.
ALIKE = (
    *(np.add, np.subtract, np.multiply, np.divide),
    *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal),
)


def call_ufunc(
    ufunc: np.ufunc, method: str, inputs: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """`Tensor.__array_ufunc__`."""
    if any(isinstance(x, Value) for x in options.get("out", ())):
        raise StateError(MSG_OUT.format(name=ufunc.__name__))
    function = UFUNCS.get(ufunc)
    no_tensor = _only_numbers(inputs) and not (ufunc in ALIKE and _is_alike(ufunc, inputs))
    if method != "__call__" or function is None or options or no_tensor:
        return getattr(ufunc, method)(*_values(inputs), **_values(options))
    if function not in OPERATORS:
        return function(*inputs)
    return unary(function, *inputs) if len(inputs) == 1 else binary(function, *inputs)


def call_function(function: Function, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """`Tensor.__array_function__`."""
    ours = FUNCTIONS.get(function)
    if ours is None or (_only_numbers((args, options)) and function not in _OUTLINES):
        return function(*_values(args), **_values(options))
    try:
        return ours(*args, **options)
    except DTypeError:
        raise
    except TypeError as error:
        message = MSG_ARGUMENTS.format(name=function.__name__, error=error)
        raise DTypeError(message) from None


def _only_numbers(nest: Any) -> bool:
    """Whether there is no Tensor but numbers of the run, in nested lists, tuples and dicts too."""
    if isinstance(nest, Value):
        return nest._weak
    parts = nest.values() if isinstance(nest, dict) else nest
    return not isinstance(nest, (list, tuple, dict)) or all(map(_only_numbers, parts))


def _is_alike(ufunc: np.ufunc, inputs: Sequence[Any]) -> bool:
    """Whether there is an array of floats, or of int64 where the number is an int and stays one."""
    arrays = [x.dtype for x in inputs if isinstance(x, (np.ndarray, np.generic))]
    floats = ufunc is np.divide or any(
        isinstance(x, Value) and x._type.dtype.is_float for x in inputs
    )
    return any(x.kind == "f" or (x == np.int64 and not floats) for x in arrays)


def _values(nest: Any) -> Any:
    """Arrays instead of Tensors, in nested lists, tuples and dicts too."""
    if isinstance(nest, Value):
        value: Any = nest  # a weak one is a Number
        return value._one("NumPy").item() if value._weak else np.asarray(value)
    if isinstance(nest, (list, tuple)):
        return [_values(x) for x in nest] if isinstance(nest, list) else tuple(map(_values, nest))
    return {key: _values(x) for key, x in nest.items()} if isinstance(nest, dict) else nest


def _named(function: Function, *names: str, leading: int = 1) -> Function:
    """`function` called with the arguments behind the first ones by position, as NumPy allows."""

    def call(*args: Any, **options: Any) -> Any:
        more = args[leading:]
        if len(more) > len(names):
            raise TypeError(f"at most {leading + len(names)} arguments go by position")
        return function(*args[:leading], **dict(zip(names, more)), **options)

    return call


def _transpose(a: Any, axes: Any = None) -> Any:
    return as_tensor(a, "transpose").transpose(axes)


def _squeeze(a: Any, axis: Any = None) -> Any:
    return as_tensor(a, "squeeze").squeeze(axis)


_OUTLINES = (np.ndim, np.shape, np.size)  # which need no value

FUNCTIONS: dict[Function, Function] = {
    np.all: _named(st.all, "axis"),
    np.angle: fl.angle,
    np.any: _named(st.any, "axis"),
    np.argmax: _named(st.argmax, "axis"),
    np.argmin: _named(st.argmin, "axis"),
    np.argsort: _named(so.argsort, "axis"),
    np.broadcast_to: mv.broadcast_to,
    np.clip: ew.clip,
    np.concatenate: _named(mv.concat, "axis"),
    np.count_nonzero: _named(se.count_nonzero, "axis"),
    np.cumprod: _named(st.cumulative_prod, "axis", "dtype"),
    np.cumsum: _named(st.cumulative_sum, "axis", "dtype"),
    np.diff: _named(st.diff, "n", "axis", "prepend", "append"),
    np.einsum: einsum,
    np.expand_dims: _named(mv.expand_dims, "axis"),
    np.flip: _named(mv.flip, "axis"),
    np.full_like: _named(cr.full_like, "dtype", leading=2),
    np.imag: fl.imag,
    np.max: _named(st.max, "axis"),
    np.mean: _named(st.mean, "axis"),
    np.min: _named(st.min, "axis"),
    np.moveaxis: mv.moveaxis,
    np.ndim: lambda a: a.ndim,
    np.nonzero: se.nonzero,
    np.ones_like: _named(cr.ones_like, "dtype"),
    np.outer: la.outer,
    np.prod: _named(st.prod, "axis", "dtype"),
    np.real: fl.real,
    np.repeat: _named(mv.repeat, "axis", leading=2),
    np.reshape: mv.reshape,
    np.roll: _named(mv.roll, "axis", leading=2),
    np.searchsorted: _named(se.searchsorted, "side", "sorter", leading=2),
    np.shape: lambda a: a.shape,
    np.size: lambda a: a.size,
    np.sort: _named(so.sort, "axis"),
    np.squeeze: _squeeze,
    np.stack: _named(mv.stack, "axis"),
    np.std: _named(st.std, "axis"),
    np.sum: _named(st.sum, "axis", "dtype"),
    np.swapaxes: mv.swapaxes,
    np.take: _named(take, "axis", leading=2),
    np.take_along_axis: _named(take_along_axis, "axis", leading=2),
    np.tensordot: _named(la.tensordot, "axes", leading=2),
    np.tile: mv.tile,
    np.transpose: _transpose,
    np.tril: _named(cr.tril, "k"),
    np.triu: _named(cr.triu, "k"),
    np.var: _named(st.var, "axis"),
    np.where: ew.where,
    np.zeros_like: _named(cr.zeros_like, "dtype"),
    np.linalg.matrix_norm: linalg.matrix_norm,
    np.linalg.matrix_power: linalg.matrix_power,
    np.linalg.solve: linalg.solve,
    np.linalg.svd: _named(linalg.svd, "full_matrices"),
    np.linalg.vector_norm: linalg.vector_norm,
    **{
        getattr(np.linalg, name): getattr(linalg, name)
        for name in "cholesky det eig eigh eigvals eigvalsh inv pinv qr slogdet svdvals".split()
    },
    **{
        getattr(np.fft, name): _named(getattr(fft, name), "n", "axis", "norm")
        for name in "fft ifft rfft irfft hfft ihfft".split()
    },
    **{
        getattr(np.fft, name): _named(getattr(fft, name), "s", "axes", "norm")
        for name in "fftn ifftn rfftn irfftn".split()
    },
    **{
        getattr(np.fft, name): _named(getattr(fft, name), "axes")
        for name in ("fftshift", "ifftshift")
    },
}
