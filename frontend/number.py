"""`Number`: what stands for a Python number whose value is known when the step runs."""

from __future__ import annotations

import math
from operator import index
from typing import Any

import numpy as np

from einkorn.recording import Value
from einkorn.tensor import Tensor


class Number(Tensor):
    """An int or float among a compiled function's arguments and settings, and what they make.

    `isinstance` takes it for the int or float that it is in eager mode, and not for a Tensor.
    Where Python needs the number itself, as a key or a text, the trace is specialised to it.
    """

    __slots__ = ()

    @property
    def __class__(self) -> Any:  # type: ignore[override] # pyright: ignore
        return float if self._type.dtype.is_float else int

    def __hash__(self) -> int:
        if self._trace is None:
            return hash(self.item())
        return hash(self._one("the hash of a number").item())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(self.__class__, name):
            kind = self.__class__.__name__
            raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=self)
        return getattr(self._one(f".{name} of a number").item(), name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self._one("np.asarray(n)"), dtype)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, (list, tuple)):
            return other * index(self)
        return super().__mul__(other)

    def __rmul__(self, other: Any) -> Any:
        if isinstance(other, (list, tuple)):
            return other * index(self)
        return super().__rmul__(other)

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Any, Any]:
        return other // self, other % self

    def __trunc__(self) -> int:
        return math.trunc(self._one("trunc(n)").item())

    def __floor__(self) -> int:
        return math.floor(self._one("floor(n)").item())

    def __ceil__(self) -> int:
        return math.ceil(self._one("ceil(n)").item())

    def __repr__(self) -> str:
        if self._trace is None or not self._trace.active:
            known = None if self._trace is None else self._trace.number_of(self._node)
            return super().__repr__() if known is None else repr(known)
        return repr(self._one("the text of a number").item())


Value._number_class = Number
