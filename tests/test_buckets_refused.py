"""Buckets: what a trace for many sizes of an axis is asked, what it refuses, and misuse."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from compile_checks import both, traces
from same_bits import bits

import einkorn as ek

# -- what a trace for many sizes cannot know -------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda n: range(n),
        lambda n: [0] * n,
        lambda n: np.zeros(n),
        lambda n: ek.asarray((n, 3)),
        lambda n: ek.asarray([n]),
        lambda n: np.arange(n),
        lambda n: int(n),
        lambda n: float(n),
        lambda n: {7: 1}.get(n),
        lambda n: f"{n}",
        lambda n: "%d" % n,  # noqa: UP031
        lambda n: n // 2,
        lambda n: n**0.5,
        lambda n: np.sqrt(n),
        lambda n: hash(n),
        lambda n: str(n),
        lambda n: f"{(n, 3)}",
        lambda n: np.float32(n),
        lambda n: divmod(n, 4),
    ],
)
def test_what_needs_the_number_is_refused(use: Any) -> None:
    step = ek.compile(lambda x: (use(x.shape[0]), x.sum())[1], buckets={"x": {0: "pow2"}})
    with pytest.raises(ek.SizeError, match=r"x\.shape\[0\]") as caught:
        step(np.ones((7, 3)))
    assert any("test_buckets_refused.py" in note for note in caught.value.__notes__)


def test_what_is_decided_for_every_size_is_not() -> None:
    @ek.compile(buckets={"x": {0: "pow2"}})
    def step(x: Any) -> Any:
        n = x.shape[0]
        assert isinstance(n, int)
        assert n > 4
        assert n != 9
        assert n == x.shape[0]
        assert max(n, 4) == n
        assert x.shape[1:] == (3,)
        return (x + n) / n * (1 / n) - n * 0.5 + n * n - (2 * n - 1), n - 1

    for n in (5, 8, 6):
        both(step, np.ones((n, 3), "float32"))
    assert traces(step) == 1


@pytest.mark.parametrize(
    ("fn", "count"),
    [
        (lambda x: x * 2 if x.shape[0] > 6 else x, 2),
        (lambda x: x * 2 if x.shape[0] == 7 else x, 3),
        (lambda x: x * 2 if x.shape == (7, 3) else x, 3),
        (lambda x: x * 2 if np.array_equal(x.shape, (7, 3)) else x, 3),
        (lambda x: x.sum() / min(x.shape[0], 7), 2),
        (lambda x: x.sum() / sorted([x.shape[0], 6.5])[0], 2),
        (lambda x: x[:6], 2),
        (lambda x: x + np.ones((7, 3), "float32") if x.shape[0] == 7 else x, 3),
        (lambda x: x[4:].sum(axis=1) + x[4:].mean(), 2),
        (lambda x: x[-7:], 3),
        (lambda x: x[4:].sum(axis=0) if x.shape[0] > 5 else x[0], 2),
        (lambda x: x[5:].T @ x[5:] if x.shape[0] != 5 else x[0], 2),
    ],
)
def test_a_comparison_cuts_the_bucket(fn: Any, count: int) -> None:
    step = ek.compile(lambda x: fn(x), buckets={"x": {0: "pow2"}}, on_retrace="allow")
    data = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    for n in (5, 6, 7, 8, 8, 7, 6, 5):
        both(step, data[:n])
    assert traces(step) == count
    assert step.trace(data[:6]).inputs[0].shape[0] in (6, 7, 8)


def test_a_function_that_counts_up_to_the_size_cuts_only_so_often() -> None:
    def counted(x: Any) -> Any:
        k = 0
        while k < x.shape[0]:
            k += 1
        return x.sum() * k

    step = ek.compile(counted, buckets={"x": {0: (8, 200)}}, on_retrace="allow")
    for n in (8, 5, 6, 7):
        both(step, np.ones(n, "float32"))
    with pytest.raises(ek.SizeError, match="is not the same for every size"):
        step(np.ones(100, "float32"))


def test_a_comparison_of_two_lengths_pins_one_of_them() -> None:
    step = ek.compile(
        lambda x: x * 2 if x.size > 99 else x - 1,
        buckets={"x": {0: "pow2", 1: 8}},
        on_retrace="allow",
    )
    for n in (5, 7, 8, 10, 7, 5):
        both(step, np.ones((n, n + 2), "float32"))
        both(step, np.ones((n, 9), "float32"))


def _captured(x: Any) -> Any:
    return x + np.ones((9, 3), "float32")


LEAF = ek.tensor(np.zeros((9, 3), "float32"))


def _assigned(x: Any) -> Any:
    LEAF.value = x
    return x


@pytest.mark.parametrize(
    ("fn", "kind", "message"),
    [
        (_captured, ek.ShapeError, r"f32\[x.shape\[0\],3\] and f32\[9,3\] do not broadcast"),
        (_assigned, ek.ShapeError, r"f32\[x.shape\[0\],3\]"),
        (lambda x: len(x), ek.SizeError, "needs the number"),
        (lambda x: list(x), ek.SizeError, "needs the number"),
        (lambda x: x[::2], ek.SizeError, "needs the number"),
        (
            lambda x: ek.linalg.svd(x)[0],
            ek.SizeError,
            r"host at test_buckets_refused.py:\d+ cannot be padded",
        ),
        (
            lambda x: (x * 1j).sum(),
            ek.SizeError,
            r"sum at test_buckets_refused.py:\d+ cannot be padded",
        ),
        (
            lambda x: ek.nn.avg_pool(x[None, :, :, None], 2, stride=1),
            ek.SizeError,
            "cannot be padded|needs the number",
        ),
        (
            lambda x: ek.callback(np.sum, ek.ShapeDtype((), "float32"), x),
            ek.SizeError,
            "callback at .* would see the padding",
        ),
        (
            lambda x: ek.scan(lambda c, row: (c, ek.linalg.svd(x)[1]), 0.0, x)[1],
            ek.SizeError,
            r"host at test_buckets_refused.py:\d+ cannot be padded",
        ),
    ],
)
def test_what_cannot_be_padded_is_refused(fn: Any, kind: Any, message: str) -> None:
    step = ek.compile(lambda x: fn(x), buckets={"x": {0: "pow2"}})
    before = bits(LEAF.numpy())
    with pytest.raises(kind, match=message) as caught:
        step(np.ones((7, 3), "float32"))
    assert any(
        "test_buckets_refused.py" in text for text in (str(caught.value), *caught.value.__notes__)
    )
    assert bits(LEAF.numpy()) == before


def test_sizes_kept_from_another_trace_are_refused() -> None:
    kept: SimpleQueue[Any] = SimpleQueue()  # into which nobody can look

    def first(x: Any) -> Any:
        kept.put(x.shape[0])
        return x

    ek.compile(first, buckets={"x": {0: "pow2"}})(np.ones((7, 3)))
    size = kept.get()
    scaled, summed = (lambda x: x * size), (lambda x: x.sum() + ek.zeros(size).sum())
    for fn in (scaled, summed):
        for buckets in (None, {"x": {1: "pow2"}}):
            step = ek.compile(fn, buckets=buckets)
            with pytest.raises(ek.SizeError, match="in a trace that is over"):
                step(np.ones((7, 6)))
    with pytest.raises(ek.SizeError, match="outside of a trace"):
        size / 2
    with pytest.raises(ek.SizeError):
        ek.zeros(size)


# -- misuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ("pow2", "buckets is like"),
        ({"x": "pow2"}, "buckets is like"),
        ({"x": {}}, "buckets is like"),
        ({"z": {0: "pow2"}}, "names 'z', but step has the parameters x, y"),
        ({"x": {0: "pow3"}}, "the sizes of a bucket are"),
        ({"x": {0: ()}}, "the sizes of a bucket are"),
        ({"x": {0: (8, 4)}}, "the sizes of a bucket are"),
        ({"x": {0: (0, 4)}}, "the sizes of a bucket are"),
        ({"x": {0: 0}}, "the sizes of a bucket are"),
        ({"x": {0: 1.5}}, "the sizes of a bucket are"),
        ({"x": {"0": 8}}, "an axis is an integer"),
    ],
)
def test_options_that_make_no_sense(buckets: Any, message: str) -> None:
    def step(x: Any, y: Any) -> Any:
        return x + y

    with pytest.raises(ek.EinkornError, match=message):
        ek.compile(step, buckets=buckets)


def test_arguments_without_that_axis() -> None:
    step = ek.compile(lambda x: x, buckets={"x": {1: "pow2"}}, name="step")
    with pytest.raises(
        ek.ShapeError, match=r"buckets names x, which is f32\[7\] and no array with"
    ):
        step(np.ones(7, "float32"))
    with pytest.raises(ek.ShapeError, match="which is float and no array"):
        step(2.0)
    assert step(None) is None
