"""Calls of the host from native code: one callback for all, and what each call site is about.

The callback takes the GIL, in whichever thread of a step runs the kernel, makes arrays of the
buffers' memory, calls the op's reference and writes its results. What it raises is kept at the site
until the step has ended; the kernel sees that the word DONE is not set, and the step refuses. The
word is set last, so an interrupt (Ctrl-C) anywhere in the callback refuses the step, too.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from types import FrameType, TracebackType
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from einkorn.ir import program as layout
from einkorn.ir.errors import HostError
from einkorn.ir.host_calls import call_host
from einkorn.ir.loops import HostCall
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType

Array = np.ndarray[Any, Any]

MSG_FAILED = (
    "{error} It was called here: {label}, with {types}. The step was not applied, no state changed."
)

_sites: WeakValueDictionary[int, HostSite] = WeakValueDictionary()
_numbers = itertools.count(1)
_Words = ctypes.c_int64 * (layout.DONE + 1)


class HostSite:
    """One kernel that calls the host, in the tables of one call at a time.

    Attributes:
        number: what native code knows it by.
        error: what the last call raised.
    """

    def __init__(self, kernel: HostCall, label: str) -> None:
        self.number = next(_numbers)
        self.error: BaseException | None = None
        self._kernel, self._label = kernel, label
        self._attrs = dict(kernel.attrs)
        shown = kernel.operands[:-1] if kernel.op is Op.CALLBACK else kernel.operands
        self._types = [str(type) for type in shown]  # without the token
        self._operands = [_Memory(type) for type in kernel.operands]
        self._results = [_Memory(type) for type in kernel.results]
        self._pointers = ctypes.c_int64 * (len(self._operands) + len(self._results))
        _sites[self.number] = self

    def call(self, pointers: int) -> None:
        """Compute the results from the operands at these addresses."""
        addresses = self._pointers.from_address(pointers)
        count = len(self._operands)
        arrays = [memory.at(x) for memory, x in zip(self._operands, addresses[:count])]
        for x in arrays:
            x.flags.writeable = False
        found = call_host(self._kernel.op, self._attrs, arrays, self._kernel.results)
        for x, memory, address in zip(found, self._results, addresses[count:]):
            memory.at(address)[...] = x

    def failure(self) -> BaseException | None:
        """What the last call raised, with the place of the call; forgotten from now on."""
        error, self.error = self.error, None
        _forget_frames(error, keeps_users=self._kernel.op is Op.CALLBACK)
        if isinstance(error, HostError):
            types = ", ".join(self._types) or "no operands"
            text = MSG_FAILED.format(error=_sentence(error), label=self._label, types=types)
            error.args = (text,)
        return error


class _Memory:
    """Memory of one type at an address that is told at each call."""

    __slots__ = ("_bytes", "_dtype", "_shape")

    def __init__(self, type: TensorType) -> None:
        self._shape, self._dtype = type.shape, type.dtype.numpy
        self._bytes = ctypes.c_char * max(1, type.nbytes)

    def at(self, address: int) -> Array:
        memory: Any = self._bytes.from_address(address)
        return np.ndarray(self._shape, self._dtype, memory)


def _forget_frames(error: BaseException | None, keeps_users: bool) -> None:
    """Drop the frames of an exception and of those behind it.

    Their variables are arrays of memory that belongs to the step, and must not outlive it. What a
    callback got are copies: its own frames stay, and those around it are emptied.
    """
    seen: set[int] = set()
    stack = [error]
    while stack:
        found = stack.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            entry, found.__traceback__ = found.__traceback__, None
            if keeps_users:
                found.__traceback__ = _without_ours(entry)
            stack += [found.__cause__, found.__context__]


def _without_ours(entry: TracebackType | None) -> TracebackType | None:
    while entry is not None and _is_ours(entry.tb_frame):
        with suppress(RuntimeError):  # one that still runs holds no array
            entry.tb_frame.clear()
        entry = entry.tb_next
    return entry


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "einkorn"


def _sentence(error: BaseException) -> str:
    text = str(error)
    return text if text.endswith(".") else f"{text}."


def _call(pointers: int, params: int) -> None:
    words = _Words.from_address(params)
    site: HostSite | None = None
    try:
        site = _sites[words[layout.SITE]]
        site.call(pointers)
        words[layout.DONE] = 1
    except BaseException as error:
        words[layout.DONE] = 0
        if site is not None:
            site.error = error


_callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(_call)  # never freed


@lru_cache(maxsize=1)
def call_address() -> int:
    """The address of the callback, for the params of kernels."""
    address = ctypes.cast(_callback, ctypes.c_void_p).value
    assert address is not None
    return address


def first_failure(sites: Sequence[HostSite]) -> BaseException | None:
    """What the first of the sites that failed has raised; all forget theirs."""
    failures = [site.failure() for site in sites]
    return next((error for error in failures if error is not None), None)
