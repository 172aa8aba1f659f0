"""Hand-made kernels and native tables for the tests of the driver."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from einkorn.codegen.llvm.objects import load
from einkorn.codegen.llvm.text import Value, Writer
from einkorn.ir import program
from einkorn.runtime.team import run_function, team_for

KERNEL_PARAMS = [
    ("ptr", "pointers"),
    ("ptr", "params"),
    ("i64", "begin"),
    ("i64", "end"),
    ("ptr", "status"),
]
ARM = platform.machine().lower() in ("aarch64", "arm64")
FLUSH = 1 << 24 if ARM else 0x9FC0  # flush subnormals to zero
CONTROL = 0xFFFFFFFF if ARM else 0xFFC0  # the control register without the sticky flags

Build = Callable[[Writer, Value, Value, Value, Value, Value], None]


def kernel(build: Build) -> int:
    """The address of a kernel whose body `build` writes."""
    w = Writer()
    with w.function("k", KERNEL_PARAMS) as values:
        build(w, *values)
    return load(w.module(), "k")


@lru_cache
def mirror() -> int:
    """out[i] = 3 * in[n - 1 - i] + i, modulo 2**64; params: n."""

    def build(w: Writer, pointers: Value, params: Value, begin: Value, end: Value, _: Value):
        source = w.load("ptr", pointers)
        out = w.load("ptr", w.gep("ptr", pointers, w.i64(1)))
        last = w.sub(w.load("i64", params), w.i64(1))
        with w.loop(begin, end) as loop:
            number = w.load("i64", w.gep("i64", source, w.sub(last, loop.index)))
            number = w.add(w.mul(number, w.i64(3)), loop.index)
            w.store(number, w.gep("i64", out, loop.index))

    return kernel(build)


@lru_cache
def increment() -> int:
    """out[i] += 1: shows an item that ran twice or never."""

    def build(w: Writer, pointers: Value, params: Value, begin: Value, end: Value, _: Value):
        out = w.load("ptr", pointers)
        with w.loop(begin, end) as loop:
            at = w.gep("i64", out, loop.index)
            w.store(w.add(w.load("i64", at), w.i64(1)), at)

    return kernel(build)


@lru_cache
def refuse() -> int:
    """Sets bit 0 of the status word."""

    def build(w: Writer, pointers: Value, params: Value, begin: Value, end: Value, status: Value):
        w.emit("i64", f"atomicrmw or {status}, i64 1 monotonic, align 8")

    return kernel(build)


@lru_cache
def halve() -> int:
    """out[i] = in[i] / 2 for float32."""

    def build(w: Writer, pointers: Value, params: Value, begin: Value, end: Value, _: Value):
        source = w.load("ptr", pointers)
        out = w.load("ptr", w.gep("ptr", pointers, w.i64(1)))
        with w.loop(begin, end) as loop:
            number = w.load("float", w.gep("float", source, loop.index))
            half = w.mul(number, w.const("float", 0.5))
            w.store(half, w.gep("float", out, loop.index))

    return kernel(build)


@lru_cache
def meet() -> int:
    """Counts itself in out[0], and waits a while until out[0] is the parameter."""

    def build(w: Writer, pointers: Value, params: Value, begin: Value, end: Value, _: Value):
        out, want = w.load("ptr", pointers), w.load("i64", params)
        w.emit("i64", f"atomicrmw add {out}, i64 1 seq_cst, align 8")
        left = w.alloca("i64", align=8)
        w.store(w.i64(300_000_000), left)
        with w.while_() as loop:
            here = w.emit("i64", f"load atomic i64, {out} acquire, align 8")
            loop.leave_unless(w.icmp("slt", here, want))
            turns = w.load("i64", left)
            loop.leave_unless(w.icmp("sgt", turns, w.i64(0)))
            w.store(w.sub(turns, w.i64(1)), left)
        with w.if_(w.icmp("sge", w.load("i64", left), w.i64(1))):
            w.emit("i64", f"atomicrmw add {w.gep('i64', out, w.i64(1))}, i64 1 seq_cst, align 8")

    return kernel(build)


@lru_cache
def control_register() -> tuple[Callable[[int], int], Callable[[], int]]:
    """Functions that set and read the floating-point control register of the calling thread."""
    w = Writer()
    with w.function("set", [("i64", "bits")]) as (bits,):
        if ARM:
            w.call("llvm.aarch64.set.fpcr", "void", bits)
        else:
            word = w.alloca("i32", align=4)
            w.store(w.cast("trunc", bits, "i32"), word)
            w.call("llvm.x86.sse.ldmxcsr", "void", word)
    with w.function("get", [], "i64"):
        if ARM:
            w.ret(w.call("llvm.aarch64.get.fpcr", "i64"))
        else:
            word = w.alloca("i32", align=4)
            w.call("llvm.x86.sse.stmxcsr", "void", word)
            w.ret(w.cast("zext", w.load("i32", word), "i64"))
    text = w.module()
    setter = ctypes.PYFUNCTYPE(None, ctypes.c_int64)(load(text, "set"))
    getter = ctypes.PYFUNCTYPE(ctypes.c_int64)(load(text, "get"))
    return setter, getter


@dataclass
class Step:
    """One instruction of a hand-made block."""

    kernel: int
    slots: tuple[int, ...] = ()
    params: tuple[int, ...] = ()
    work: int = 0
    chunk: int = 1
    after: int = 0
    run: int = 1


class Block:
    """A native block over NumPy arrays; the arrays are its slots."""

    def __init__(self, steps: list[Step], arrays: list[np.ndarray], threads: int = 1) -> None:
        self.arrays, self.threads = arrays, threads
        self.slots = np.array([array.ctypes.data for array in arrays], np.int64)
        self.table = np.zeros((len(steps), program.INSTRUCTION_WORDS), np.int64)
        self.pointers = np.zeros((len(steps), 4), np.int64)
        self.params = np.zeros((len(steps), 4), np.int64)
        self.counters = np.full((len(steps), program.COUNTER_WORDS), 77, np.int64)
        binds = []
        for row, step in enumerate(steps):
            self.params[row, : len(step.params)] = step.params
            words = self.pointers[row].ctypes.data, self.params[row].ctypes.data
            self.table[row, :6] = step.kernel, *words, step.work, step.chunk, step.after
            self.table[row, program.RUN] = step.run
            for column, slot in enumerate(step.slots):
                binds.append((self.pointers[row].ctypes.data + 8 * column, slot, 0))
        self.binds = np.array(binds, np.int64).reshape(-1, 3)
        self.words = np.zeros(program.BLOCK_WORDS, np.int64)
        self.words[program.COUNT] = len(steps)
        self.words[program.INSTRUCTIONS] = self.table.ctypes.data
        self.words[program.BINDS] = len(self.binds)
        self.words[program.BIND_TABLE] = self.binds.ctypes.data
        self.words[program.SLOTS] = self.slots.ctypes.data
        self.words[program.STATUS] = 99
        self.words[program.COUNTERS] = self.counters.ctypes.data

    def run(self, keep_gil: bool = False) -> int:
        self.words[program.THREADS] = self.threads
        self.words[program.TEAM] = team_for(self.threads)
        return run_function()[keep_gil](self.words.ctypes.data)


def chain(n: int, length: int, chunk: int, threads: int) -> Block:
    """A ring of three arrays through `length` steps, each of which reads what the last wrote."""
    arrays = [np.arange(n, dtype=np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)]
    steps = [Step(mirror(), (k % 3, (k + 1) % 3), (n,), n, chunk, after=k) for k in range(length)]
    return Block(steps, arrays, threads)


def chained(n: int, length: int) -> np.ndarray:
    """What the last step of `chain` writes."""
    value = np.arange(n, dtype=np.int64)
    for _ in range(length):
        value = 3 * value[::-1] + np.arange(n)
    return value


def check_chain(block: Block, length: int) -> None:
    n = len(block.arrays[0])
    block.arrays[0][:] = np.arange(n)
    assert block.run() == 0
    assert np.array_equal(block.arrays[length % 3], chained(n, length))
