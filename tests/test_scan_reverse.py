"""The reverse of a scan: what is stacked, the order of sums, and what moves in front of a loop."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest
from compile_checks import both
from same_bits import assert_same_bits
from test_control_gradients import differences

import einkorn as ek
from einkorn.ir.graph import Graph
from einkorn.ir.ops import Op


def floats(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return (np.random.default_rng(seed).normal(size=shape) * 0.5).astype(dtype)


def scans(fn: Any, *args: Any) -> tuple[Graph, list[Graph]]:
    """The graph of a compiled function before fusion, and the bodies of its scans."""
    graph = ek.compile(fn).lower(*args).stages["dce"]
    return graph, [node.attr("body") for node in graph.nodes if node.op is Op.SCAN]


def dots(graph: Graph) -> int:
    return sum(node.op is Op.DOT for node in graph.nodes)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_gradient_of_a_weight_is_one_product_over_all_steps(
    turned: bool, reverse: bool
) -> None:
    """Rows ascend whatever the direction; a sum over the rows of a factor is one sum."""
    w = ek.Parameter(floats(9, 8, seed=1) if turned else floats(8, 9, seed=1), name="w")
    b = ek.Parameter(floats(9, seed=2), name="b")
    x, c = floats(6, 5, 8, seed=3), floats(6, 5, 9, seed=4)

    def loss(x: Any, c: Any) -> Any:
        step = lambda k, row: (k + 1, ((row[0] @ (w.T if turned else w) + b) * row[1]).sum())  # noqa: E731
        return ek.scan(step, 0, (x, c), reverse=reverse)[1].sum()

    by_w, by_b = both(ek.grad(loss, [w, b]), x, c)
    flat = ek.asarray(x.reshape(30, 8)), ek.asarray(c.reshape(30, 9))
    assert_same_bits(np.asarray(by_w.T if turned else by_w), np.asarray(flat[0].T @ flat[1]))
    assert_same_bits(np.asarray(by_b), np.asarray(ek.asarray(c).sum(axis=(0, 1))))


def test_contributions_larger_than_the_weight_add_up_from_the_last_step() -> None:
    w = ek.Parameter(floats(3, 2, seed=1), name="w")
    x, c = floats(4, 20, 3, seed=3), floats(4, 20, 2, seed=4)

    def loss(x: Any, c: Any) -> Any:
        return ek.map(lambda row: ((row[0] @ w) * row[1]).sum(), (x, c)).sum()

    found = both(ek.grad(loss, w), x, c)
    parts = [ek.asarray(a).T @ ek.asarray(b) for a, b in zip(x[::-1], c[::-1])]
    want = reduce(lambda total, part: total + part, parts, ek.zeros((3, 2)))
    assert_same_bits(np.asarray(found), np.asarray(want))


def test_a_step_of_the_reverse_computes_no_forward_product() -> None:
    w = ek.Parameter(floats(16, 16, seed=1), name="w")
    x = floats(7, 4, 16)

    def loss(x: Any, wrap: Any = lambda f: f) -> Any:
        step = wrap(lambda h, x: (ek.tanh(h @ w + x) * ek.exp(-h), None))
        return ek.scan(step, x[0], x)[0].sum()

    graph, (forward, backward) = scans(ek.grad(loss, w), x)
    assert (dots(graph), dots(forward), dots(backward)) == (1, 1, 1)
    assert not any(node.op in (Op.TANH, Op.EXP) for node in backward.nodes)
    graph, (_, again) = scans(ek.grad(lambda x: loss(x, ek.checkpoint), w), x)
    assert (dots(graph), dots(again)) == (1, 2)
    kept, less = (
        np.asarray(ek.compile(ek.grad(lambda x, wrap=wrap: loss(x, wrap), w))(x))
        for wrap in (lambda f: f, ek.checkpoint)
    )
    assert_same_bits(kept, less)


def _mixed(x: Any, w: Any, b: Any) -> Any:
    """A weight used in many ways: twice as a factor, in part, elementwise, and in a carry."""

    def step(carry: Any, x: Any) -> Any:
        h, total = carry
        first, second = ek.split(h @ w + x @ w[:, ::-1], 2, axis=1)
        h = ek.tanh(ek.concat([second, first * b], axis=1)) + (w * w).sum(axis=0)
        return (h, total + (h @ w[:, :1]).sum()), first

    (h, total), ys = ek.scan(step, (x[0], ek.asarray(np.float64(0))), x)
    return (h * h).sum() + total + (ys * ys).sum()


def test_weights_that_are_used_in_many_ways() -> None:
    x, w, b = (floats(*s, dtype="float64") for s in ((3, 2, 4), (4, 4), (2,)))
    for k, (value, grad) in enumerate(zip((x, w, b), both(ek.grad(_mixed, (0, 1, 2)), x, w, b))):
        rest = [x, w, b]

        def at(new: Any, k: int = k, rest: Any = rest) -> Any:
            return _mixed(*(ek.asarray(new if n == k else old) for n, old in enumerate(rest)))

        np.testing.assert_allclose(
            np.asarray(grad), differences(ek.compile(at), value), rtol=1e-5, atol=1e-7
        )


def test_cotangents_of_slices_are_joined_where_they_do_not_overlap() -> None:
    x, c = floats(6), floats(7, seed=1)

    def loss(x: Any) -> Any:
        return (x[4:] * c[:2]).sum() + (x[:3] * c[2:5]).sum() + (x[2:4] * c[5:]).sum()

    found = both(ek.grad(loss), x)
    want = np.zeros(6, "float32")
    for at, part in ((slice(4, 6), c[:2]), (slice(0, 3), c[2:5]), (slice(2, 4), c[5:])):
        want[at] += part
    assert_same_bits(np.asarray(found), want)
    joined = both(ek.grad(lambda x: (x[4:] * -0.0).sum() + (x[:3] * c[:3]).sum()), x)
    assert_same_bits(np.asarray(joined), np.array([*c[:3], 0, -0.0, -0.0], "float32"))
    split = ek.compile(ek.grad(lambda x: sum((y * y).sum() for y in ek.split(x, 3)))).lower(x)
    assert not any(node.op is Op.PAD for node in split.stages["dce"].nodes)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_what_depends_on_consts_alone_is_computed_once(threads: int) -> None:
    w = ek.Parameter(floats(64, 64, seed=1) * 0.2, name="w")
    x = floats(5, 40, 64)

    def loop(x: Any) -> Any:
        step = lambda h, x: (ek.tanh(h @ w.T) + x, None)  # noqa: E731
        h = ek.scan(step, x[0], x)[0]
        return ek.while_loop(lambda v: v[0] < 3, lambda v: (v[0] + 1, ek.sin(v[1] @ w.T)), (0, h))[
            1
        ]

    program = ek.compile(loop).lower(x).program
    nested = [row for number, row in program.walk() if "." in number]
    assert len(nested) >= 3
    assert not any(type(row.kernel).__name__ == "Pack" for row in nested)
    assert any(type(row.kernel).__name__ == "Pack" for row in program.instructions)
    with ek.settings(threads=threads):
        both(loop, x)
        both(
            ek.grad(
                lambda x: ek.scan(lambda h, x: (ek.tanh(h @ w.T) + x, None), x[0], x)[0].sum(),
                (0, w),
            ),
            x,
        )


def test_loops_in_loops_share_what_moves() -> None:
    w = ek.Parameter(floats(32, 32, seed=1) * 0.3, name="w")

    def loss(x: Any) -> Any:
        inner = lambda h, x: (ek.tanh(h @ w + x), h.sum())  # noqa: E731
        outer = lambda h, row: ek.scan(inner, h @ w.T, row)  # noqa: E731
        return ek.scan(outer, x[0, 0], x)[1].sum()

    both(ek.value_and_grad(loss, (0, w)), floats(3, 4, 9, 32))
