"""Rows of tests/op_samples.py for windows over spatial axes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from op_makers import Shape, apart, fixed, uniform
from op_sample import Sample

from einkorn.ir.dtypes import FLOATS, SIGNED, UNSIGNED
from einkorn.ir.ops import Op
from einkorn.ir.windows import window_counts

NUMBERS = (*SIGNED, *UNSIGNED, *FLOATS)

# sizes of the spatial axes, window, strides, low, high, dilation, interior.
WINDOWS: tuple[tuple[Shape, ...], ...] = (
    ((8,), (2,), (2,), (0,), (0,), (1,), (0,)),
    ((7,), (3,), (2,), (1,), (2,), (2,), (1,)),
    ((5, 6), (2, 2), (2, 2), (0, 0), (0, 0), (1, 1), (0, 0)),
    ((6, 5), (3, 2), (1, 2), (1, 0), (1, 1), (1, 2), (0, 1)),
    ((4, 3, 4), (2, 2, 3), (2, 1, 1), (0, 1, 1), (0, 0, 1), (1, 1, 1), (2, 0, 1)),
    ((9, 4), (1, 2), (3, 1), (0, 0), (0, 0), (1, 1), (0, 0)),
    ((11, 2), (5, 4), (2, 2), (2, 2), (2, 2), (1, 1), (0, 2)),
)


def windows() -> Iterator[Sample]:
    """Pooling of all kinds, over one to three axes."""
    names = ("window", "strides", "low", "high", "dilation", "interior")
    # Few channels everywhere, one and many where there is no padding and where there is.
    for (sizes, *rows), channels in (*product(WINDOWS, (3,)), *product(WINDOWS[2:4], (1, 18))):
        attrs = dict(zip(names, rows))
        x = (2, *sizes, channels)
        note, taps = f"{sizes}x{channels}", float(np.prod(rows[0]))
        dtypes = NUMBERS if channels == 3 and len(sizes) == 1 else FLOATS
        order = 2 if channels == 3 else 0
        args = (uniform(x),)
        yield Sample(Op.WINDOW_SUM, args, attrs, dtypes, order, 1e-6, 2.0, 3 * taps, note)
        gaps = attrs["interior"]
        attrs = {name: attrs[name] for name in names[:-1]}
        counts = window_counts(sizes, *rows[:-1], (0,) * len(gaps))
        keys, updates = apart(x), uniform((2, *counts, channels))
        yield Sample(Op.WINDOW_PICK, (keys, uniform(x)), attrs, dtypes, order, note=note)
        row = (Op.WINDOW_PLACE, (keys, updates), attrs, dtypes, order)
        yield Sample(*row, ulps=2.0, floor=3 * taps, note=note)
    one = dict(zip(names[:-1], WINDOWS[2][1:-1]))
    ties = fixed([1.0, 1.0, 0.0, -0.0, np.nan, 2.0, -np.inf, -np.inf, np.nan, np.nan] * 6)
    keys = lambda rng, dtype: ties(rng, dtype).reshape(2, 5, 6, 1)  # noqa: E731
    yield Sample(Op.WINDOW_PICK, (keys, uniform((2, 5, 6, 1))), one, FLOATS, 0, note="ties")
    yield Sample(Op.WINDOW_PLACE, (keys, uniform((2, 2, 3, 1))), one, FLOATS, 0, note="ties")
    for empty in ((0, 5, 6, 3), (2, 5, 6, 0)):
        yield Sample(Op.WINDOW_PICK, (uniform(empty),) * 2, one, note=str(empty))
        counts = (empty[0], 2, 3, empty[-1])
        yield Sample(Op.WINDOW_PLACE, (uniform(empty), uniform(counts)), one, note=str(empty))
        yield Sample(Op.WINDOW_SUM, (uniform(empty),), {**one, "interior": (0, 0)}, note=str(empty))
