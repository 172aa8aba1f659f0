"""`Number`: what stands for a Python number whose value is known when the step runs."""

from __future__ import annotations

from typing import Any

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

    def __repr__(self) -> str:
        if self._trace is None or not self._trace.active:
            known = None if self._trace is None else self._trace.number_of(self._node)
            return super().__repr__() if known is None else repr(known)
        return repr(self._one("the text of a number").item())


Value._number_class = Number
