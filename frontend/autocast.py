"""Mixed precision: `ek.autocast`, and which functions take part in it.

A function says so itself: contractions with `@low_precision`, what loses by few digits with
`@single_precision`. Everything else follows promotion, so the widest operand decides. float64 is
left alone. docs/mixed_precision.md lists both kinds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any, TypeVar

import numpy as np

from einkorn.convert import as_flag, as_tensor, check_dtype, in_dtype, is_weak
from einkorn.ir.dtypes import DType, bfloat16, float16, float32
from einkorn.ir.errors import DTypeError
from einkorn.recording import Value, current_trace

Function = TypeVar("Function", bound=Callable[..., Any])

_HALF = (float16, bfloat16)
_CAST = (*_HALF, float32)

_dtype: ContextVar[DType | None] = ContextVar("einkorn_autocast", default=None)
_opened: ContextVar[Any] = ContextVar(
    "einkorn_autocast_trace", default=None
)  # where it was entered

MSG_DTYPE = "autocast: the low dtype is float16 or bfloat16, got {dtype}"


class autocast(ContextDecorator):
    """Within the block, or the decorated function, contractions run in a low dtype.

    Operands are cast, so parameters and their gradients stay float32. Works eagerly and compiled
    with the same bits; a compiled function that is called under another state is traced once more.

    Args:
        dtype: "bfloat16" or "float16".
        enabled: False turns it off within a block around.
    """

    def __init__(self, dtype: Any = "bfloat16", enabled: bool = True) -> None:
        self._low = check_dtype(dtype)
        if self._low not in _HALF:
            raise DTypeError(MSG_DTYPE.format(dtype=self._low))
        self._enabled = as_flag("autocast", "enabled", enabled)
        self._tokens: list[tuple[Token[Any], Token[Any]]] = []

    def _recreate_cm(self) -> autocast:
        """Each call of a decorated function has a block of its own, also in other threads."""
        return autocast(self._low, self._enabled)

    def __enter__(self) -> autocast:
        low = self._low if self._enabled else None
        self._tokens.append((_dtype.set(low), _opened.set(current_trace.get())))
        return self

    def __exit__(self, *error: object) -> None:
        dtype, opened = self._tokens.pop()
        _dtype.reset(dtype)
        _opened.reset(opened)


def low_dtype() -> DType | None:
    """The dtype of contractions here, None without autocast; a trace holds for this state alone."""
    low, trace = _dtype.get(), current_trace.get()
    if trace is not None:
        opened = _opened.get()
        inside = trace
        while inside is not None and inside is not opened:
            inside = inside.outer
        if inside is None:  # a block that the function opens is part of what is traced
            trace.guard_call("autocast", lambda: _dtype.get() is low, f"autocast was {_name(low)}")
    return low


def meet_in_autocast(*dtypes: DType) -> bool:
    """Whether autocast brings operands of these dtypes to one."""
    return all(dtype in _CAST for dtype in dtypes) and low_dtype() is not None


def _name(low: DType | None) -> str:
    return "off" if low is None else low.name


def low_precision(function: Function) -> Function:
    """A function whose tensors are cast to the low dtype of autocast."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        low = low_dtype()
        if low is None:
            return function(*args, **kwargs)
        named = {name: _in(x, low, _CAST) for name, x in kwargs.items()}
        return function(*(_in(x, low, _CAST) for x in args), **named)

    return wrapped  # type: ignore[return-value] # of the same signature


def single_precision(function: Function) -> Function:
    """A function that casts half types to float32 under autocast, which is off inside of it."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if low_dtype() is None:
            return function(*args, **kwargs)
        named = {name: in_single_precision(x) for name, x in kwargs.items()}
        with autocast(enabled=False):
            return function(*map(in_single_precision, args), **named)

    return wrapped  # type: ignore[return-value] # of the same signature


def in_single_precision(x: Any) -> Any:
    """A tensor of a half type in float32; anything else as it is."""
    return _in(x, float32, _HALF)


def _in(x: Any, dtype: DType, kinds: tuple[DType, ...]) -> Any:
    if is_weak(x) or not isinstance(x, (Value, np.ndarray, np.generic)):
        return x
    tensor = as_tensor(x, "autocast")
    return in_dtype("autocast", tensor, dtype) if tensor.dtype in kinds else x
