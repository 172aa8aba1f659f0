"""Window kernels on this CPU: bits, work splits, and memory outside the buffers."""

from __future__ import annotations

from math import prod
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from template_harness import assert_same_bits, garbage, same_on_all, sample

from einkorn.codegen.llvm import objects
from einkorn.codegen.llvm.templates import TEMPLATES
from einkorn.codegen.llvm.vectors import accumulator
from einkorn.ir import dtypes as dt
from einkorn.ir import windows
from einkorn.ir.dtypes import DType
from einkorn.ir.windows import (
    WINDOW_CHUNK,
    WindowPick,
    WindowPlace,
    WindowSum,
    channel_kind,
    reach,
    window_counts,
)

Ints = tuple[int, ...]

# sizes, window, strides, low, high, dilation: with and without padding, small and large windows.
SHAPES: tuple[tuple[Ints, ...], ...] = (
    ((70,), (2,), (1,), (0,), (0,), (1,)),
    ((9,), (5,), (2,), (2,), (2,), (2,)),
    ((6, 7), (2, 2), (2, 2), (0, 0), (0, 0), (1, 1)),
    ((5, 6), (3, 7), (1, 2), (1, 3), (2, 3), (1, 1)),
    ((3, 4, 5), (2, 2, 2), (2, 1, 2), (1, 0, 1), (0, 1, 1), (1, 2, 1)),
)
CHANNELS = (6, 33)  # all by powers of two; sixteen at once and the rest
CASES = [(row, dt.float32) for row in SHAPES]
CASES += [(SHAPES[3], dtype) for dtype in (dt.bfloat16, dt.float16, dt.float64, dt.uint8, dt.int16)]


def attributes(row: tuple[Ints, ...]) -> dict[str, Ints]:
    return dict(zip(("window", "strides", "low", "high", "dilation"), row[1:]))


def axes(sizes: Ints, counts: Ints, attrs: dict[str, Ints], channels: int) -> list[int]:
    rows = zip(sizes, counts, attrs["strides"], attrs["low"])
    return [*(n for row in rows for n in row), channels]


def counts_of(row: tuple[Ints, ...], interior: Ints | None = None) -> Ints:
    return window_counts(*row, interior or (0,) * len(row[0]))


@pytest.mark.filterwarnings("ignore:invalid value")  # NaN of bfloat16
@pytest.mark.parametrize(("row", "dtype"), CASES, ids=str)
def test_picking_and_placing(row: tuple[Ints, ...], dtype: DType) -> None:
    attrs, sizes, counts = attributes(row), row[0], counts_of(row)
    for channels in CHANNELS:
        kind, shape = channel_kind(channels), (2, *counts, channels)
        keys = sample(dtype, (2, *sizes, channels), special=True)
        values = sample(dtype, keys.shape, seed=1)
        updates = sample(dtype, shape, seed=2)
        given = axes(sizes, counts, attrs, channels)
        chunks = -(-counts[-1] // WINDOW_CHUNK)
        known = (dtype, attrs["window"], attrs["dilation"], kind, True)
        for same, inputs in ((True, [keys]), (False, [keys, values])):
            out, _ = same_on_all(
                WindowPick(*known, same), inputs, garbage(dtype, shape), [*given, chunks, 2],
                2 * prod(counts[:-1]) * chunks,
            )  # fmt: skip
            assert_same_bits(out, windows.pick(keys, inputs[-1], **attrs))
        apart = reach(attrs["window"][0], attrs["dilation"][0]) <= attrs["strides"][0]
        blocks = counts[0] if apart else 1
        wide = accumulator(dtype)
        with np.errstate(over="ignore"):
            want = windows.place(keys.astype(wide.numpy), updates.astype(wide.numpy), **attrs)
        out, _ = same_on_all(
            WindowPlace(*known), [keys, updates], garbage(wide, keys.shape),
            [*given, counts[0] // blocks, blocks, 2], 2 * blocks,
        )  # fmt: skip
        assert_same_bits(out, want)


@pytest.mark.parametrize(("row", "dtype"), CASES, ids=str)
def test_sums_of_windows(row: tuple[Ints, ...], dtype: DType) -> None:
    rank = len(row[0])
    for channels, base in ((6, (1, 1, 1)), (33, (2, 1, 3))):
        interior = tuple(n - 1 for n in base[:rank])
        attrs, counts = attributes(row), counts_of(row, interior)
        x = sample(dtype, (2, *row[0], channels), special=dtype.is_float)
        chunks = -(-counts[-1] // WINDOW_CHUNK)
        shape = (attrs["window"], attrs["dilation"], channel_kind(channels), True)
        out, _ = same_on_all(
            WindowSum(dtype, *shape, base[:rank]), [x], garbage(dtype, (2, *counts, channels)),
            [*axes(row[0], counts, attrs, channels), chunks, 2], 2 * prod(counts[:-1]) * chunks,
        )  # fmt: skip
        with np.errstate(over="ignore", invalid="ignore"):
            want = windows.total(x, **attrs, interior=interior)
        assert_same_bits(out, want)


def test_windows_without_padding_take_no_care() -> None:
    row = SHAPES[2]
    attrs, counts = attributes(row), counts_of(row)
    for channels in CHANNELS:
        x = sample(dt.float32, (2, *row[0], channels), special=True)
        given = axes(row[0], counts, attrs, channels)
        known = (dt.float32, attrs["window"], attrs["dilation"], channel_kind(channels), False)
        out = garbage(dt.float32, (2, *counts, channels))
        found, _ = same_on_all(WindowPick(*known, True), [x], out, [*given, 1, 2], 2 * counts[0])
        assert_same_bits(found, windows.pick(x, x, **attrs))
        placed, _ = same_on_all(
            WindowPlace(*known), [x, found], garbage(dt.float32, x.shape),
            [*given, 1, counts[0], 2], 2 * counts[0],
        )  # fmt: skip
        assert_same_bits(placed, windows.place(x, found, **attrs))


def some_kernels() -> list[Any]:
    every: list[Any] = []
    for dtype in (dt.bfloat16, dt.float16, dt.float64, dt.uint8):
        shape = (dtype, (2, 2), (1, 1), 22, True)
        every += [WindowPick(*shape, False), WindowPlace(*shape), WindowSum(*shape, (1, 2))]
    return every


TRIPLES = {"neon": "aarch64-unknown-linux-gnu"}


@pytest.mark.parametrize("level", objects.LEVELS)
def test_every_level_compiles_without_library_calls(level: str) -> None:
    """`compile_object` refuses undefined symbols, for other CPUs than this one too."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    features = objects.features_of(level, TRIPLES.get(level, "x86_64-unknown-linux-gnu"))
    for kernel in some_kernels():
        objects.compile_object(TEMPLATES[type(kernel)](kernel, features.lanes), features)
