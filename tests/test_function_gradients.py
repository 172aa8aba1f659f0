"""Gradients through functions: against finite differences, and compiled against eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from function_checks import both, values

from einkorn.functions import creation as cr
from einkorn.functions import indexing as ix
from einkorn.functions import linear_algebra as la
from einkorn.functions import losses as lo
from einkorn.functions import manipulation as mv
from einkorn.functions import statistical as st
from einkorn.transforms.gradients import grad

LABELS, PLACES = [0, 2, 1, 1], [0, 2, 0]
SHARES = values((4, 3), "float64", seed=5) ** 2

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "cross_entropy": lambda w: lo.cross_entropy(w, LABELS),
    "cross_entropy smooth": lambda w: lo.cross_entropy(w, LABELS, label_smoothing=0.1),
    "cross_entropy shares": lambda w: lo.cross_entropy(w, SHARES, reduction="sum"),
    "mse_loss": lambda w: lo.mse_loss(w, SHARES),
    "std": lambda w: st.std(w, axis=0).sum(),
    "var": lambda w: st.var(w, axis=1, correction=1).sum(),
    "mean": lambda w: (st.mean(w, axis=(0, 1)) * w[0]).sum(),
    "logsumexp": lambda w: st.logsumexp(w, axis=0).sum(),
    "softmax": lambda w: (st.softmax(w, axis=0) * w).sum(),
    "cumulative_sum": lambda w: (st.cumulative_sum(w, axis=0, include_initial=True) ** 2).sum(),
    "max": lambda w: (st.max(w, axis=1) * st.min(w)).sum(),
    "array": lambda w: (w[PLACES] * w[1:]).sum(),
    "arrays": lambda w: (w[PLACES, PLACES] ** 2).sum(),
    "slices": lambda w: (w[::-2, None, 1:] ** 2).sum(),
    "at add": lambda w: (w.at[PLACES].add(w[1:]) ** 2).sum(),
    "at add slice": lambda w: (w.at[::2].add(w[2:]) ** 2).sum(),
    "at set": lambda w: (w.at[PLACES].set(w[1:]) ** 2).sum(),
    "at set slice": lambda w: (w.at[1:3, ::-1].set(w[2:]) ** 2).sum(),
    "at set mask": lambda w: (w.at[w > 0].set(0.5) * w).sum(),
    "take_along_axis": lambda w: (ix.take_along_axis(w, [[0, 1, 2], [3, 3, 3]], axis=0) ** 2).sum(),
    "roll": lambda w: (mv.roll(w, 1, axis=0) * w).sum(),
    "repeat": lambda w: (mv.repeat(w, [1, 0, 2, 1], axis=0) ** 3).sum(),
    "tile": lambda w: (mv.tile(w, (2, 3)) ** 2).sum(),
    "pad": lambda w: (mv.pad(w, 1) ** 2).sum(),
    "stack": lambda w: (mv.stack([w, w * 2], axis=1) ** 2).sum(),
    "unstack": lambda w: (mv.unstack(w, axis=1)[1] ** 2).sum(),
    "tril": lambda w: (cr.tril(w) ** 2).sum(),
    "tensordot": lambda w: (la.tensordot(w, w, axes=((0,), (0,))) ** 2).sum(),
    "linear": lambda w: (la.linear(w, w, w[:, 0]) ** 2).sum(),
    "vecdot": lambda w: (la.vecdot(w, w) ** 2).sum(),
    "matmul": lambda w: (w @ w.T @ w)[0].sum(),
    "matmul batched": lambda w: ((w[:, None] @ (w.T @ w)[None]) ** 2).sum(),
    "outer": lambda w: (la.outer(w[0], w[:, 1]) ** 2).sum(),
}
WITH_FLOAT64 = ("cross_entropy shares", "mse_loss")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient(name: str) -> None:
    function = FUNCTIONS[name]
    x = values((4, 3), "float64")
    got = np.asarray(both(grad(function), x))
    step = 1e-6
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        rise = function(cr.asarray(up)).item() - function(cr.asarray(down)).item()
        assert got[place] == pytest.approx(rise / (2 * step), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", [k for k in FUNCTIONS if k not in WITH_FLOAT64])
def test_gradient_of_float32_has_the_same_bits_compiled(name: str) -> None:
    gradient = both(grad(FUNCTIONS[name]), values((4, 3), seed=2))
    assert gradient.dtype == "float32"
