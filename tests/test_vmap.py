"""vmap: each op's batching rule, axes and nests, derivatives inside and outside, and its errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from op_samples import SAMPLES, Sample
from same_bits import assert_same_bits
from transform_checks import Array, ends, normal, same

import einkorn as ek
from einkorn.codegen import reference
from einkorn.ir.graph import Graph
from einkorn.ir.ops import Op
from einkorn.passes.batching import BATCHING, NOT_BATCHED
from einkorn.passes.batching.regions import batch_graph


def loop(fn: Callable[..., Any], *columns: Any) -> list[Array]:
    """What vmap computes, one example after the other."""
    rows = [ends(fn(*map(ek.asarray, row))) for row in zip(*columns)]
    return [np.stack(column) for column in zip(*rows)]


def check(fn: Callable[..., Any], *columns: Any) -> None:
    for got, want in zip(same(ek.vmap(fn), *columns), loop(fn, *columns), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


# -- rules -----------------------------------------------------------------------------------------


def test_every_op_has_a_rule_or_a_reason() -> None:
    assert BATCHING.keys() | NOT_BATCHED.keys() == set(Op)
    assert not BATCHING.keys() & NOT_BATCHED.keys()


BATCHED = [sample for sample in SAMPLES if sample.op in BATCHING]


@pytest.mark.parametrize("sample", BATCHED, ids=str)
def test_rules_agree_with_one_example_at_a_time(sample: Sample) -> None:
    dtype = sample.dtypes[-1]
    examples = [sample.arrays(dtype, seed) for seed in range(3)]
    node, inputs = sample.build(examples[0])
    graph = Graph("one", tuple(inputs), (), (node,))
    for flags in product((False, True), repeat=len(inputs)):
        if not any(flags):
            continue
        columns = [
            np.stack(column) if many else column[0] for column, many in zip(zip(*examples), flags)
        ]
        batched = batch_graph(graph, flags, 3)
        assert batched.outputs == (True,)
        (got,) = reference.run(batched.graph, columns)[0]
        for k, row in enumerate(got):
            arrays = [column[k] if many else column for column, many in zip(columns, flags)]
            sample.check(np.asarray(row), sample.reference([np.asarray(x) for x in arrays]))


def test_what_all_examples_share_is_computed_once() -> None:
    w = ek.asarray(normal(4, 4))
    graph = ek.trace(ek.vmap(lambda x: x + ek.exp(w @ w)))(normal(3, 4, 4))
    assert [node.shape for node in graph.nodes if node.op is Op.EXP] == [(4, 4)]


def test_rows_of_all_examples_are_rows_of_one_product() -> None:
    w = ek.asarray(normal(4, 5))
    for fn, shape in ((lambda x: x @ w, (7, 4)), (lambda x: w @ x, (7, 5))):
        graph = ek.trace(ek.vmap(fn))(normal(*shape))
        (dot,) = [node for node in graph.nodes if node.op is Op.DOT]
        assert len(dot.shape) == 2
        check(fn, normal(*shape))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "normalise": lambda x, y: (x - x.mean(axis=0)) / (x.std(axis=0) + 1) + y,
    "products": lambda x, y: (x @ y.T, ek.outer(x[0], y[1]), ek.tensordot(x, y, axes=2)),
    "softmax": lambda x, y: ek.nn.softmax(x) * ek.logsumexp(y, axis=0),
    "index": lambda x, y: x[ek.argmax(y, axis=0)] + x[:, ::-1][1:2],
    "gather": lambda x, y: ek.take_along_axis(x, ek.argmin(y, axis=1, keepdims=True), axis=1),
    "change": lambda x, y: x.at[ek.argmax(y, axis=0)].add(y[:1] * ek.ones((4, 4))),
    "set": lambda x, y: x.at[1:, ::2].set(y[:2, :2]),
    "pad": lambda x, y: ek.pad(x, 1, constant_values=3.0) if False else ek.roll(x, 1) + y,
    "scan": lambda x, y: ek.cumulative_sum(x, axis=1) * y.max(axis=0),
    "joins": lambda x, y: ek.concat([x, y], axis=1)[:, 1:-1].reshape(-1)[::3],
    "shared": lambda x, y: {"a": [ek.arange(4) * 2.0 + x], "b": ek.ones(2), "c": y.sum()},
    "where": lambda x, y: ek.where(x > y, ek.sin(x), ek.cos(y)),
}


@pytest.mark.parametrize("fn", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_as_one_example_at_a_time(fn: Callable[..., Any]) -> None:
    check(fn, normal(5, 3, 4), normal(5, 3, 4))


def test_indices_of_each_example() -> None:
    table = ek.asarray(normal(6, 2))
    at = np.array([[0, -1], [5, 2], [-6, -6]])
    check(lambda i: table[i], at)
    check(lambda x, i: x[i], normal(3, 6, 2), at)
    check(lambda x, i: x[:, i], normal(3, 2, 6), at)
    check(lambda x, i, u: x.at[i].add(u), normal(3, 6), at, normal(3, 2))
    check(lambda x, i, u: x.at[:, i].set(u), normal(3, 2, 6), at, normal(3, 2, 2))


def test_an_index_out_of_range_does_not_reach_the_next_example() -> None:
    x, at = ek.asarray(normal(3, 4)), np.array([0, 4, 1])
    for run in (ek.vmap(lambda x, i: x[i]), ek.compile(ek.vmap(lambda x, i: x[i]))):
        with pytest.raises(ek.BoundsError):
            run(x, at)


# -- axes and nests --------------------------------------------------------------------------------


def test_axes_of_arguments_and_results() -> None:
    x, y = normal(4, 5, 3), normal(5)
    got = same(ek.vmap(lambda x, y: x * y, in_axes=(1, 0), out_axes=-1), x, y)[0]
    np.testing.assert_array_equal(got, x.transpose(0, 2, 1) * y)
    got = same(ek.vmap(lambda x, y: (x + y).sum(), in_axes=(-2, None)), x, 2.0)[0]
    np.testing.assert_allclose(got, (x + 2).sum(axis=(0, 2)))


def test_axes_in_nests_that_end_where_they_agree() -> None:
    params = {"w": normal(3, 4), "b": [normal(4), normal(5, 4)]}
    axes = ({"w": None, "b": (None, 0)}, 1)
    fn = ek.vmap(
        lambda p, x: {"y": x @ p["w"] + p["b"][0], "z": (p["b"][1], p["b"][0])},
        in_axes=axes,
        out_axes={"y": 1, "z": (0, None)},
    )
    y, z0, z1 = same(fn, params, normal(3, 5))
    assert (y.shape, z0.shape, z1.shape) == ((4, 5), (5, 4), (4,))
    np.testing.assert_array_equal(z1, params["b"][0])


def test_keywords_numbers_and_axis_size() -> None:
    x = normal(3)
    got = ek.vmap(lambda x, y, scale: x * y * scale, in_axes=(0, None))(x, 2, scale=x)
    np.testing.assert_allclose(np.asarray(got), 2 * x * x)
    assert ek.vmap(lambda: ek.ones(2), axis_size=4)().shape == (4, 2)
    assert ek.vmap(lambda x: x.sum())(np.zeros((0, 3))).shape == (0,)


@dataclass
class Pair:
    a: Any
    b: Any


def test_dataclasses_containers_and_leaves() -> None:
    got = ek.vmap(lambda p: Pair(p.a * 2, p.b))(Pair(normal(2, 3), normal(2)))
    assert isinstance(got, Pair)
    assert got.a.shape == (2, 3)
    stacked = ek.Container(w=ek.Parameter(normal(5, 3, 4)), b=ek.Parameter(normal(5, 3)))
    x = ek.asarray(normal(4))
    loss = ek.vmap(lambda p: ek.tanh(p.w @ x + p.b).sum())(stacked).sum()
    loss.backward()
    grads = ek.grad(lambda p: ek.vmap(lambda p: ek.tanh(p.w @ x + p.b).sum())(p).sum())(stacked)
    assert_same_bits(np.asarray(grads.w), np.asarray(stacked.w.grad))


def test_vmap_of_vmap() -> None:
    x, y = normal(3, 4), normal(5, 4)
    outer = ek.vmap(ek.vmap(lambda a, b: (a * b).sum(), in_axes=(None, 0)), in_axes=(0, None))
    np.testing.assert_allclose(same(outer, x, y)[0], x @ y.T)


def test_vmap_of_a_compiled_function_and_of_a_module() -> None:
    model = ek.nn.Linear(4, 3)
    x = normal(6, 4).astype("float32")
    want = np.asarray(model(x))
    for fn in (model, ek.compile(model), lambda x: model(x)):
        np.testing.assert_allclose(same(ek.vmap(fn), x)[0], want, rtol=1e-5)


# -- derivatives -----------------------------------------------------------------------------------


def loss_of(w: Any, x: Any) -> Any:
    return (ek.tanh(w @ x) ** 2).sum()


def test_gradients_of_each_example() -> None:
    w, x = ek.asarray(normal(3, 4)), normal(5, 4)
    (got,) = same(ek.vmap(ek.grad(loss_of), in_axes=(None, 0)), w, x)
    want = [np.asarray(ek.grad(loss_of)(w, ek.asarray(row))) for row in x]
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_gradients_of_each_example_by_the_parameters_of_a_module() -> None:
    model = ek.nn.Linear(4, 3)
    x = normal(5, 4).astype("float32")
    each = ek.vmap(ek.grad(lambda x: (model(x) ** 2).sum(), model))
    same(lambda x: each(x), x)
    got = each(x)
    mean = ek.grad(lambda x: (model(x) ** 2).sum(), model)(x)
    assert got.w.shape == (5, 3, 4)
    np.testing.assert_allclose(np.asarray(got.w).sum(0), np.asarray(mean.w), rtol=1e-4)
    assert not got.w.requires_grad


def test_gradients_through_vmap() -> None:
    w, x = ek.Parameter(normal(3, 4)), ek.asarray(normal(5, 4))

    def total(x: Any) -> Any:
        return ek.vmap(lambda x: loss_of(w, x))(x).sum()

    got, by_x = same(ek.grad(total, (w, 0)), x)
    want, want_x = ends(ek.grad(lambda x: (ek.tanh(x @ w.T) ** 2).sum(), (w, 0))(x))
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(by_x, want_x, rtol=1e-12)
    total(x).backward()
    assert_same_bits(np.asarray(w.grad), got)


def test_derivatives_of_derivatives_of_each_example() -> None:
    w, x = ek.asarray(normal(3, 4)), normal(5, 4)

    def penalty(w: Any, x: Any) -> Any:
        each = ek.vmap(ek.grad(loss_of, 1), in_axes=(None, 0))(w, x)
        return (each * each).sum()

    (got,) = same(ek.grad(penalty), w, x)
    h, direction = 1e-6, normal(3, 4)
    up, down = (float(penalty(ek.asarray(np.asarray(w) + s * direction), x)) for s in (h, -h))
    np.testing.assert_allclose((got * direction).sum(), (up - down) / (2 * h), rtol=1e-6)


def test_every_transform_inside_vmap() -> None:
    x, t = normal(4, 3), normal(4, 3)
    fn = lambda x: ek.sin(x) * x.sum()  # noqa: E731

    def each(x: Any, t: Any) -> Any:
        out, pull = ek.vjp(fn, x)
        hvp = ek.hvp(lambda x: fn(x).sum(), (x,), (t,))
        return out, pull(t), ek.jvp(fn, (x,), (t,)), ek.jacobian(fn)(x), hvp

    for got, want in zip(same(ek.vmap(each), x, t), loop(each, x, t), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_gradients_of_each_example_cost_a_few_gradients() -> None:
    model = [ek.asarray(normal(128, 128).astype("float32")) for _ in range(3)]
    x = ek.asarray(normal(128, 128).astype("float32"))

    def loss(ws: Any, x: Any) -> Any:
        for w in ws:
            x = ek.tanh(x @ w)
        return x.sum()

    def flops(fn: Callable[..., Any]) -> int:
        return ek.compile(fn).lower(model, x).cost.flops

    def norms(ws: Any, x: Any) -> Any:
        """The gradients of each example, reduced so that writing them does not count."""
        each = ek.vmap(ek.grad(loss), in_axes=(None, 0))(ws, x)
        return [(g * g).sum(axis=(1, 2)) for g in each]

    assert flops(norms) < 3 * flops(ek.grad(loss))  # 128 examples


# -- state and randomness --------------------------------------------------------------------------


def test_each_key_has_its_own_draw() -> None:
    keys = np.array([0, 1, 2**64 - 1, 2**40], np.uint64)
    zero = ek.asarray(np.uint64(0))

    def draws(word: Any) -> Any:
        key = (word, zero)
        normal = ek.random.normal((5,), key=key)
        return normal, ek.random.bits((3, 3), key=key), ek.random.uniform((), key=key)

    got = same(ek.vmap(draws), keys)
    for a, b in zip(got, loop(draws, keys), strict=True):
        assert_same_bits(a, b)
    assert len({row.tobytes() for row in got[1]}) == 4


def test_split_keys_and_a_shared_draw() -> None:
    keys = ek.random.split(ek.random.key(7), 3)
    words = ek.stack([word for word, _ in keys])
    counters = ek.stack([counter for _, counter in keys])
    got = ek.vmap(lambda *key: ek.random.normal((4,), key=key))(words, counters)
    want = [np.asarray(ek.random.normal((4,), key=key)) for key in keys]
    np.testing.assert_array_equal(np.asarray(got), want)
    ek.random.seed(3)
    shared = np.asarray(ek.vmap(lambda x: x + ek.random.normal((2,)))(np.zeros((3, 2), "float32")))
    after = np.asarray(ek.random.normal((2,)))
    ek.random.seed(3)
    first = np.asarray(ek.random.normal((2,)))
    np.testing.assert_array_equal(shared, [first] * 3)
    np.testing.assert_array_equal(after, np.asarray(ek.random.normal((2,))))


def test_state_that_all_examples_share_is_written_once() -> None:
    for compiled in (False, True):
        count = ek.tensor(0)

        def fn(x: Any, count: Any = count) -> Any:
            count.value = count + 1
            return x * 2

        run = ek.vmap(lambda x: fn(x))
        (ek.compile(run) if compiled else run)(normal(3))
        assert count.item() == 1


# -- errors ----------------------------------------------------------------------------------------


def test_errors_name_arguments_axes_and_sizes() -> None:
    x, y = normal(3, 2), {"b": normal(4)}
    with pytest.raises(ek.ShapeError, match=r"x has 3 along axis 0, y/b has 4 along axis 0"):
        ek.vmap(lambda x, y: x)(x, y)
    with pytest.raises(ek.ShapeError, match=r"x is f64\[3,2\], which has no axis 2"):
        ek.vmap(lambda x: x, in_axes=2)(x)
    with pytest.raises(ek.ShapeError, match=r"the result at a is f64\[3,2\].* no axis 5"):
        ek.vmap(lambda x: {"a": x}, out_axes=5)(x)
    with pytest.raises(ek.EinkornError, match=r"lr is a float.*in_axes=None"):
        ek.vmap(lambda x, lr: x * lr)(x, 0.1)
    with pytest.raises(ek.EinkornError, match=r"in_axes is an int.*\(\*, \{b: \*\}\)"):
        ek.vmap(lambda x, y: x, in_axes=(0, {"c": 0}))(x, y)
    with pytest.raises(ek.EinkornError, match="out_axes=None"):
        ek.vmap(lambda x: x, out_axes=None)(x)
    with pytest.raises(ek.EinkornError, match="axis_size"):
        ek.vmap(lambda x: x, in_axes=None)(x)
    with pytest.raises(ek.EinkornError, match="function is needed"):
        ek.vmap(x)  # type: ignore[arg-type] # what is tested


def test_branching_on_a_value_is_refused() -> None:
    def branch(x: Any) -> Any:
        return x if x.sum() > 0 else -x

    for run in (ek.vmap(branch), ek.compile(ek.vmap(branch))):
        with pytest.raises(ek.TraceError, match=r"ek\.vmap records branch once.*ek\.where"):
            run(normal(3, 2))
    with pytest.raises(ek.TraceError, match=r"depends on the values"):
        ek.vmap(lambda x: ek.nonzero(x)[0])(normal(3, 2))


def test_a_leaf_holds_no_batch() -> None:
    mean = ek.tensor(0.0, name="mean")
    w = ek.Parameter(np.ones(2, "float32"), name="w")
    for fn in (
        lambda x: setattr(mean, "value", x.sum()),
        lambda x: (x * w).sum().backward(),
    ):
        with pytest.raises(ek.EinkornError, match="a leaf holds one"):
            ek.vmap(fn)(normal(3, 2).astype("float32"))
    assert w.grad is None
