"""Runs templates of ir/loops.py in hostile surroundings, and the pieces of their oracles.

Every buffer lies against a page that cannot be touched, once at its end and once at its start, and
the rest of its own pages holds a pattern that must survive. Every run does its work items in random
pieces and in random order, each from the original result buffer: no two may write the same byte.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import mmap
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from einkorn.codegen.llvm import objects
from einkorn.codegen.llvm.templates import TEMPLATES
from einkorn.codegen.llvm.text import Value, Writer
from einkorn.codegen.llvm.vectors import load, pointer, signature, storage, store
from einkorn.ir import dtypes as dt
from einkorn.ir.dtypes import DType

Array = np.ndarray[Any, Any]
Variant = tuple[str, int]  # feature level, lanes

CALL = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
)
HOST = objects.host_features()
VARIANTS: list[Variant] = [(HOST.name, lanes) for lanes in (16, 8, 4)]
VARIANTS += [("avx2", 8)] if HOST.name == "avx512" else []
NUMERIC = [d for d in dt.ALL if d is not dt.bool_]
INTEGERS = [*dt.SIGNED, *dt.UNSIGNED]
FLOAT_TYPE = {dt.float32: ctypes.c_float, dt.float64: ctypes.c_double}


def address_of(text: str, level: str) -> int:
    features = objects.features_of(level)
    data = objects.compile_object(text, features)
    (address,) = objects.load_object(data, ("kernel",), objects.object_key(text, features))
    return address


@cache
def compiled(kernel: Any, variant: Variant) -> Any:
    level, lanes = variant
    return CALL(address_of(TEMPLATES[type(kernel)](kernel, lanes), level))


class Guarded:
    """A copy of an array against a page that cannot be touched, at its end or at its start."""

    PATTERN = 0xA5

    def __init__(self, array: Array, at_end: bool) -> None:
        page = mmap.PAGESIZE
        inner = -(-array.nbytes // page) * page
        self.memory = mmap.mmap(-1, inner + 2 * page)
        self.bytes = np.frombuffer(self.memory, np.uint8)
        self.bytes[:] = self.PATTERN
        self.start = page + (inner - array.nbytes if at_end else 0)
        self.stop = self.start + array.nbytes
        self.view = self.bytes[self.start : self.stop].view(array.dtype).reshape(array.shape)
        self.view[...] = array
        self.address = self.view.ctypes.data
        self.fences = [(self.bytes.ctypes.data + at, page) for at in (0, page + inner)]
        self.protect(0)

    def protect(self, mode: int) -> None:
        libc = ctypes.CDLL(None)
        for at, size in self.fences:
            assert libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(size), mode) == 0

    def check(self) -> None:
        self.protect(mmap.PROT_READ | mmap.PROT_WRITE)
        assert (self.bytes[: self.start] == self.PATTERN).all()
        assert (self.bytes[self.stop :] == self.PATTERN).all()


def pieces(work: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """[0, work) cut at random, in random order; an empty piece too."""
    cuts = np.sort(rng.integers(0, work + 1, rng.integers(0, 5)))
    bounds = [0, *map(int, cuts), work]
    return [(bounds[i], bounds[i + 1]) for i in rng.permutation(len(bounds) - 1)]


def run(
    kernel: Any,
    variant: Variant,
    inputs: Sequence[Array],
    out: Array,
    params: list[int],
    work: int,
    results: int = 1,
) -> tuple[Array, int]:
    """The buffer `out` after the kernel, and the status word.

    Args:
        results: how many results the first axis of `out` holds, each with an address of its own.
    """
    seed = zlib.crc32(repr((kernel, variant, params)).encode())
    rng = np.random.default_rng(seed)
    before = out.reshape(-1).view(np.uint8)
    found: list[tuple[Array, int]] = []
    for at_end in (True, False):
        buffers = [Guarded(a, at_end) for a in (*inputs, out)]
        status = np.zeros(1, np.int64)
        parts = [buffers[-1].address + i * (out.nbytes // results) for i in range(results)]
        addresses = np.array([*(b.address for b in buffers[:-1]), *parts], np.uint64)
        words = np.array(params, np.int64)
        call = compiled(kernel, variant)
        result = np.zeros(out.nbytes, np.uint8)
        for begin, end in pieces(work, rng):
            buffers[-1].view[...] = out
            call(addresses.ctypes.data, words.ctypes.data, begin, end, status.ctypes.data)
            # Each piece starts from the original, so two that change one byte would show here.
            changed = buffers[-1].view.reshape(-1).view(np.uint8) ^ before
            assert not ((changed != 0) & (result != 0)).any()
            result |= changed
        for buffer, array in zip(buffers, inputs):
            assert buffer.view.tobytes() == array.tobytes()
        for buffer in buffers:
            buffer.check()
        found.append(((result ^ before).view(out.dtype).reshape(out.shape), int(status[0])))
    (first, status), (second, again) = found
    assert first.tobytes() == second.tobytes()
    assert status == again
    return first, status


def assert_same_bits(got: Array, expected: Array) -> None:
    """Equal to the bit, all NaNs counting as one value."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    nan = got != got
    assert np.array_equal(nan, expected != expected)
    bits = f"u{got.dtype.itemsize}"
    different = (got.view(bits) != expected.view(bits)) & ~nan
    assert not different.any(), (got[different][:4], expected[different][:4])


def same_on_all(
    kernel: Any,
    inputs: Sequence[Array],
    out: Array,
    params: list[int],
    work: int,
    results: int = 1,
) -> tuple[Array, int]:
    """Run every variant; they must agree to the bit."""
    first, *others = [run(kernel, v, inputs, out, params, work, results) for v in VARIANTS]
    for result, status in others:
        assert_same_bits(result, first[0])
        assert status == first[1]
    return first


def sample(dtype: DType, shape: tuple[int, ...], seed: int = 0, special: bool = False) -> Array:
    """Random numbers of a dtype; `special` mixes in zeros of both signs, infinities and NaN."""
    rng = np.random.default_rng([seed, *shape])
    if dtype is dt.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if not dtype.is_float:
        info = np.iinfo(dtype.numpy)
        return rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)
    x = rng.standard_normal(shape).astype(dtype.numpy)
    if special:
        values = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype.numpy)
        where = rng.random(shape) < 0.2
        x = np.where(where, values[rng.integers(0, 5, shape)], x)
    return x


def garbage(dtype: DType | np.dtype[Any], size: int | tuple[int, ...]) -> Array:
    """What a result buffer holds before."""
    numpy = dtype.numpy if isinstance(dtype, DType) else np.dtype(dtype)
    count = int(np.prod(size))
    return np.full(count * numpy.itemsize, 0x3B, np.uint8).view(numpy).reshape(size).copy()


def joined(partials: Array) -> Array:
    """The tree of ir/ops.py over the first axis, 16 long, with addition."""
    for half in (8, 4, 2, 1):
        partials = partials[:half] + partials[half : 2 * half]
    return partials[0]


@cache
def libm_fma(dtype: DType) -> Callable[..., Any]:
    name = ctypes.util.find_library("m")
    if name is None:
        pytest.skip("no C math library to compare fused multiply-adds with")
    function = getattr(ctypes.CDLL(name), "fmaf" if dtype is dt.float32 else "fma")
    function.restype = FLOAT_TYPE[dtype]
    function.argtypes = [FLOAT_TYPE[dtype]] * 3
    return np.frompyfunc(function, 3, 1)


def multiply_add(a: Array, b: Array, c: Array, dtype: DType) -> Array:
    """a * b + c with one rounding for floats, wrapping for integers."""
    if dtype.is_float:
        return libm_fma(dtype)(a, b, c).astype(dtype.numpy)
    with np.errstate(over="ignore"):
        return a * b + c


def elementwise(write: Callable[[Writer, Value], Value], source: DType, result: DType) -> Any:
    """A compiled loop out[i] = write(x[i])."""
    w = Writer()
    with w.function("kernel", signature()) as (pointers, _params, begin, end, _status):
        x, out = pointer(w, pointers, 0), pointer(w, pointers, 1)
        with w.loop(begin, end) as loop:
            value = load(w, source, w.gep(storage(source), x, loop.index))
            store(w, result, write(w, value), w.gep(storage(result), out, loop.index))
    return CALL(address_of(w.module(), HOST.name))


def apply(call: Any, x: Array, result: DType) -> Array:
    x = np.ascontiguousarray(x)
    out = np.empty(x.shape, result.numpy)
    addresses = np.array([x.ctypes.data, out.ctypes.data], np.uint64)
    call(addresses.ctypes.data, 0, 0, x.size, 0)
    return out
