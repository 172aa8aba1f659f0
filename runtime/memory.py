"""Memory that native code is given: where arrays lie, and aligned bytes."""

from __future__ import annotations

import ctypes

import numpy as np

ndarray = np.ndarray
ALIGNMENT = 64
WORD = 8

# An ndarray begins with the head of every object and then the address of its data; code that was
# compiled against NumPy's headers relies on it. Read so, an address takes 0.1 us instead of 0.9.
_HEAD = object.__basicsize__
_words = (ctypes.c_int64 * (1 << 59)).from_address(0)


def _in_object(values: np.ndarray) -> int:
    """The address of an array's first element."""
    if not isinstance(values, ndarray):  # a scalar of NumPy is laid out in another way
        raise TypeError(f"only an array has an address, got {type(values).__name__}")
    return _words[(id(values) + _HEAD) // WORD]


def _in_interface(values: np.ndarray) -> int:
    """The address of an array's first element."""
    return values.__array_interface__["data"][0]


def _is_where_expected() -> bool:
    """Whether arrays of this interpreter and NumPy hold the address where it is looked for."""
    whole = np.arange(12.0)
    samples = (whole, whole[3:], whole[::-2], whole.reshape(3, 4).T, np.empty(0), np.zeros(()))
    return all(_in_object(x) == _in_interface(x) for x in samples)


address_of = _in_object if _HEAD % WORD == 0 and _is_where_expected() else _in_interface


def aligned_bytes(nbytes: int) -> np.ndarray:
    """Uninitialised bytes that start on a cache line."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -address_of(raw) % ALIGNMENT
    return raw[start : start + nbytes]
