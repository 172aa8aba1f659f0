"""`ek.compile(buckets=...)`: one trace for many sizes of an axis, with the bits of each."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from bucket_checks import POISON, check_padded, poisoned
from compile_checks import both, traces
from same_bits import assert_same_bits, bits, split_finely

import einkorn as ek
from einkorn.buckets import bucket
from einkorn.runtime import settings

BATCH = {"x": {0: "pow2"}, "y": {0: "pow2"}}
SIZES = (5, 8, 3, 7, 13, 16, 30, 31, 2, 6, 17, 4)


class Net(ek.nn.Module):
    def __init__(self) -> None:
        self.hidden = ek.nn.Linear(7, 16)
        self.norm = ek.nn.BatchNorm(16)
        self.out = ek.nn.Linear(16, 5)
        self.dropout = ek.nn.Dropout(0.3)

    def forward(self, x: Any) -> Any:
        return self.out(self.dropout(ek.nn.relu(self.norm(self.hidden(x)))))


def _trained(buckets: Any, eager: bool = False) -> tuple[list[Any], Any]:
    """The bits of everything that some steps with batches of different sizes leave behind."""
    ek.random.seed(3)
    net = Net()
    opt = ek.optim.Adam(net, lr=1e-2)

    @ek.compile(buckets=buckets, on_retrace="allow")
    def step(x: Any, y: Any) -> Any:
        loss = lambda x, y: ek.nn.cross_entropy(net(x), y)  # noqa: E731
        value, grads = ek.value_and_grad(loss, net)(x, y)
        opt.step(grads)
        return value

    random = np.random.default_rng(0)
    found: list[Any] = []
    for n in SIZES:
        x, y = random.normal(size=(n, 7)).astype("float32"), random.integers(0, 5, n)
        if eager:
            with ek.eager():
                found.append(bits(step(x, y)))
        else:
            found.append(bits(step(x, y)))
    found += [bits(x) for x in net.state_dict().values()]
    found += [bits(x) for x in ek.tree_leaves(opt.state) if isinstance(x, (ek.Tensor, np.ndarray))]
    return [*found, bits(ek.random.normal(3))], step


@pytest.mark.parametrize("poison", POISON)
def test_a_training_step_has_the_bits_of_one_without_buckets(poison: str) -> None:
    with poisoned(poison):
        found, step = _trained(BATCH)
    assert found == _trained(None)[0]
    assert found == _trained(None, eager=True)[0]
    assert traces(step) == 3 + 3  # 5 to 8, 9 to 16, 17 to 32; and 2, 3, 4


def test_one_trace_for_a_bucket() -> None:
    step = ek.compile(lambda x, y: (x * y).sum(axis=0) / x.shape[0], buckets=BATCH, name="step")
    for n in range(9, 17):
        x = np.random.default_rng(n).normal(size=(n, 3)).astype("float32")
        both(step, x, x + 1)
    (trace,) = step.explain().traces
    assert trace.calls == 8
    assert "x.shape[0] is from 9 to 16" in trace.guards
    assert "f32[x.shape[0],3]" in str(step.explain()) or trace.why == "first call"


@pytest.mark.parametrize(
    ("sizes", "n", "range_"),
    [
        ("pow2", 1, None),
        ("pow2", 4, None),
        ("pow2", 5, (5, 8)),
        ("pow2", 8, (5, 8)),
        ("pow2", 9, (9, 16)),
        ("pow2", 1025, (1025, 2048)),
        (10, 7, (5, 10)),
        (10, 11, (11, 20)),
        (1, 7, None),
        ((6, 50, 100), 5, (5, 6)),
        ((6, 50, 100), 7, (7, 50)),
        ((6, 50, 100), 100, (51, 100)),
        ((6, 50, 100), 101, None),
        ((4, 5), 5, None),
        ("pow2", 0, None),
    ],
)
def test_the_sizes_that_share_a_trace(sizes: Any, n: int, range_: Any) -> None:
    assert bucket(sizes, n) == range_


@pytest.mark.parametrize("n", [0, 1, 2, 4, 65])
def test_sizes_without_a_bucket_have_traces_of_their_own(n: int) -> None:
    step = ek.compile(lambda x: x * 2 + x.shape[0], buckets={"x": {0: (8, 64)}})
    both(step, np.ones((n, 3), "float32"))
    assert not any("is from" in guard for x in step.explain().traces for guard in x.guards)


def test_lengths_of_one_call_are_equal_or_different() -> None:
    step = ek.compile(lambda x, y: (x.sum() + y.sum(), x.shape[0] == y.shape[0]), buckets=BATCH)
    x = np.ones((11, 2), "float32")
    assert both(step, x[:9], x[:9])[1] is True
    assert both(step, x[:10], x[:10])[1] is True
    assert traces(step) == 1
    assert both(step, x[:9], x[:11])[1] is False
    assert traces(step) == 2
    mixed = ek.compile(lambda x, y: x + y, buckets=BATCH)
    with pytest.raises(ek.ShapeError, match=r"f32\[x\.shape\[0\],2\] and f32\[y\.shape\[0\],2\]"):
        mixed(x[:9], x[:11])


def test_nested_arguments() -> None:
    data = {"x": np.ones((6, 2), "float32"), "y": [np.ones(6, "float32"), 3.0]}
    fn = lambda batch: (batch["x"] * batch["y"][0][:, None] * batch["y"][1]).sum()  # noqa: E731
    by_end = ek.compile(fn, buckets={"batch.x": {0: 8}, "batch.y.0": {0: 8}})
    both(by_end, data)
    assert "batch.x.shape[0] is from 5 to 8" in by_end.explain().traces[0].guards
    arrays = [data["x"], data["y"][0][:, None]]
    whole = ek.compile(lambda batch: (batch[0] * batch[1]).sum(), buckets={"batch": {-2: 8}})
    both(whole, arrays)
    assert "batch.0.shape[0] is from 5 to 8" in whole.explain().traces[0].guards


def test_modules_and_any_number_of_arguments() -> None:
    net = Net().eval()
    with ek.no_grad():
        step = ek.compile(net, buckets={"x": {0: "pow2"}})
        both(step, np.ones((7, 7), "float32"))
    assert "x.shape[0] is from 5 to 8" in step.explain().traces[0].guards
    x = np.ones(7, "float32")
    for names in ("xs", "xs.1"):
        total = ek.compile(lambda a, *xs: a + xs[1].sum(), buckets={names: {0: 8}})
        both(total, 1.0, x, x)
        assert "xs.1.shape[0] is from 5 to 8" in str(total.explain()).replace("xs.0.", "xs.1.")
    scaled = ek.compile(lambda a, **by: a * by["factor"], buckets={"a": {0: 8}, "factor": {0: 8}})
    both(scaled, x, factor=x)
    assert "a.shape[0] is from 5 to 8" in scaled.explain().traces[0].guards


def test_methods_keywords_and_tensors() -> None:
    class Scaled:
        @ek.compile(buckets={"x": {0: "pow2"}})
        def run(self, x: Any, *, by: Any) -> Any:
            return x * by

    x = np.arange(21, dtype="float32").reshape(7, 3)
    np.testing.assert_array_equal(Scaled().run(x, by=2.0), x * 2)
    np.testing.assert_array_equal(Scaled().run(by=2.0, x=ek.asarray(x)), x * 2)


@pytest.mark.parametrize("backend", ["llvm", "reference"])
def test_state_prints_and_gradients_of_a_padded_call(backend: str, capsys: Any) -> None:
    count, w = ek.tensor(np.float32(0)), ek.Parameter(np.ones(3, "float32"))

    @ek.compile(buckets={"x": {0: "pow2"}}, backend=backend)
    def step(x: Any) -> Any:
        count.value = count + x.shape[0]
        ek.print("rows", x[:, 0], x.shape[0])
        (x @ w).sum().backward()
        return x.shape[0], x.size, x.sum(axis=1)

    x = np.arange(21, dtype="float32").reshape(7, 3)
    rows, size, sums = step(x)
    assert (rows, size) == (7, 21)
    assert type(rows) is int
    np.testing.assert_array_equal(sums, x.sum(axis=1))
    assert count.item() == 7
    np.testing.assert_array_equal(w.grad, x.sum(axis=0))
    assert capsys.readouterr().out == f"rows {ek.asarray(x[:, 0])} 7\n"
    step(x[:6])
    assert count.item() == 13
    assert traces(step) == 2  # with and without a gradient that was there before


def test_branches_on_tensors_look_at_what_was_passed() -> None:
    @ek.compile(buckets={"x": {0: "pow2"}}, on_retrace="allow")
    def step(x: Any) -> Any:
        return x * 2 if x.max() > 0 else x - 1

    for n in (5, 6, 7, 8):
        both(step, np.full(n, -1.0, "float32"))
        both(step, np.ones(n, "float32"))
    assert traces(step) == 2


class Sized(ek.nn.Module):
    def __init__(self) -> None:
        self.rows, self.shapes = 0, [(0, 0)]

    def forward(self, x: Any) -> Any:
        before = self.rows
        self.rows, self.shapes = x.shape[0], [x.shape, *self.shapes[:1]]
        return x.sum() * before


def test_an_attribute_that_holds_a_size_is_that_of_each_call() -> None:
    model, same = Sized(), Sized()
    step = ek.compile(model, buckets={"x": {0: "pow2"}}, on_retrace="allow")
    for n in (5, 6, 7, 9, 3, 8):
        x = np.ones((n, 2), "float32")
        with ek.eager():
            want = same(x)
        assert_same_bits(np.asarray(step(x)), np.asarray(want))
        assert (repr(model.rows), repr(model.shapes)) == (repr(same.rows), repr(same.shapes))


def test_a_size_that_is_left_in_python_is_refused() -> None:
    rows: list[Any] = []
    shapes = {"last": (0,)}

    @ek.compile(buckets={"x": {0: "pow2"}}, name="step")
    def step(x: Any) -> Any:
        rows.append(x.shape[0])
        return x.sum()

    @ek.compile(buckets={"x": {0: "pow2"}}, name="step")
    def other(x: Any) -> Any:
        shapes["last"] = x.shape
        return x.sum()

    with pytest.raises(ek.TraceError, match="step puts a traced number into rows"):
        step(np.ones(5))
    with pytest.raises(ek.TraceError, match="step puts a traced number into shapes"):
        other(np.ones(5))
    assert not rows
    assert shapes == {"last": (0,)}


def test_an_index_in_the_padding_is_out_of_range() -> None:
    step = ek.compile(lambda x, i: x[i], buckets={"x": {0: "pow2"}}, name="step")
    x = np.arange(7.0)
    assert step(x, np.array([6, -7])).tolist() == [6.0, 0.0]
    for bad in (7, -8, 100):
        with pytest.raises(ek.BoundsError, match="out of range") as caught:
            step(x, np.array([0, bad]))
        assert "x.shape[0] is 7, padded to 8" in caught.value.__notes__


@pytest.mark.parametrize("poison", POISON)
def test_derivatives_through_a_padded_call(poison: str) -> None:
    def fn(x: Any) -> Any:
        return (ek.tanh(x) ** 3).mean() + x.sum(axis=0).max()

    step = ek.compile(fn, buckets={"x": {0: "pow2"}})
    plain = ek.compile(fn, on_retrace="allow")
    random = np.random.default_rng(0)
    with poisoned(poison):
        for n in (5, 7, 8):
            x, t = ek.asarray(random.normal(size=(2, n, 2)).astype("float32"))
            for found, want in (
                (ek.grad(step)(x), ek.grad(plain)(x)),
                (ek.jvp(step, (x,), (t,)), ek.jvp(plain, (x,), (t,))),
                (ek.vjp(step, x)[1](1.0), ek.vjp(plain, x)[1](1.0)),
                (ek.hessian(step)(x), ek.hessian(plain)(x)),
                (ek.vmap(lambda row: step(row) * 2)(x[:, None]), ek.vmap(plain)(x[:, None]) * 2),
            ):
                for a, b in zip(ek.tree_leaves(found), ek.tree_leaves(want), strict=True):
                    assert_same_bits(a, b)


@pytest.mark.parametrize("threads", [2, 3])
def test_padded_programs_split_among_threads(threads: int) -> None:
    want = _trained(None)[0]
    with split_finely(), settings.override(threads=threads), poisoned("nan"):
        assert _trained(BATCH)[0] == want


def test_several_threads_at_once() -> None:
    step = ek.compile(lambda x: (x * 2, x.mean(axis=0)), buckets={"x": {0: 8}}, on_retrace="allow")
    data = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    sizes = list(range(5, 41)) * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: step(data[:n]), sizes))
    for n, (doubled, mean) in zip(sizes, found):
        np.testing.assert_array_equal(doubled, data[:n] * 2)
        assert_same_bits(mean, ek.asarray(data[:n]).mean(axis=0))


def test_arguments_are_left_alone() -> None:
    step = ek.compile(lambda x: x * 2, buckets={"x": {0: "pow2"}})
    x = np.ones((6, 2), "float32")
    found = step(x)
    again = step(x + 1)
    np.testing.assert_array_equal(x, 1)
    np.testing.assert_array_equal(found, 2)
    np.testing.assert_array_equal(again, 4)
    assert found.shape == (6, 2)


def test_lowering_shows_the_padded_program() -> None:
    step = ek.compile(lambda x: x.mean(axis=0), buckets={"x": {0: "pow2"}}, name="step")
    text = step.lower(np.ones((6, 2), "float32")).ir()
    assert 'graph step(x: f32[8,2], shape_0_: i64[] = "x.shape[0]")' in text


def test_a_size_that_varies_without_buckets_names_the_option() -> None:
    def step(x: Any, batch: Any) -> Any:
        return x.sum() + batch[0].sum()

    compiled = ek.compile(step, on_retrace="warn")
    x = np.ones((3, 2), "float32")
    compiled(x, [x])
    hint = "buckets={'x': {0: 'pow2'}, 'batch.0': {0: 'pow2', 1: 'pow2'}}"
    with pytest.warns(ek.RetraceWarning, match=re.escape(hint)):
        compiled(x[:2], [x[:2, :1]])
    assert hint in str(compiled.explain())
    with pytest.warns(ek.RetraceWarning, match=r"f64\[3,2\], f32\[3,2\]$"):
        compiled(x.astype("float64"), [x])


# -- calls that are recorded, and calls inside of others -------------------------------------------


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("make", [Net, lambda: ek.nn.LSTM(7, 4)])
def test_calls_that_are_recorded_for_backward(make: Any, poison: str) -> None:
    def trained(buckets: Any) -> list[Any]:
        ek.random.seed(3)
        net = make()
        forward = ek.compile(lambda x: net(x), buckets=buckets, on_retrace="allow")
        opt = ek.optim.SGD(net, lr=0.1)
        random = np.random.default_rng(0)
        found: list[Any] = []
        for n in (5, 7, 6, 7, 8, 3):
            shape = (n, 7) if make is Net else (n, 3, 7)
            x = ek.tensor(random.normal(size=shape).astype("float32"), trainable=True)
            y = ek.tree_leaves(forward(x * 2))[0]
            (y**2).mean().backward()
            opt.step()
            found += [bits(y), bits(x.grad)]
            found += [bits(p.numpy()) for p in net.parameters()]
            opt.zero_grad()
        if buckets:
            assert traces(forward) <= 3  # 5 to 8, in two parts for the LSTM, and 3
        return found

    with poisoned(poison):
        assert trained({"x": {0: "pow2"}}) == trained(None)


def test_a_recorded_call_in_an_eager_region() -> None:
    w = ek.Parameter(np.ones(3, "float32"))
    inner = ek.compile(lambda x: (x @ w).mean(), buckets={"x": {0: "pow2"}})
    x = np.arange(21, dtype="float32").reshape(7, 3)
    value, grad = ek.value_and_grad(lambda: inner(x) * 3, w)()
    assert value.item() == 3 * x.sum(axis=1).mean()
    assert_same_bits(grad, ek.grad(lambda: (x @ w).mean() * 3, w)())


def test_inside_another_trace_the_other_one_decides() -> None:
    inner = ek.compile(lambda x: x.mean(axis=0), buckets={"x": {0: "pow2"}})
    outer = ek.compile(lambda x: inner(x * 2), on_retrace="allow")
    both(outer, np.ones((7, 3), "float32"))
    check_padded(
        lambda x: inner(x * 2),
        lambda n: (np.ones((n, 3), "float32"),),
        {"x": {0: "pow2"}},
    )
