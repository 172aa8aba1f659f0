"""Python branches and loops on tensors in compiled functions: as eager, whichever way they go."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from compile_checks import assert_same_nest, both, state, traces
from same_bits import assert_same_bits

import einkorn as ek

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def branches(x: Any) -> Any:
    """Nested branches, an early return, `and`, `not` and a comparison of three."""
    total = x.sum()
    if total > 0:
        if x.max() > 5 and not x.min() < 0:
            return x * 100
        return x * 2 + total
    if 0 > total > -10:
        return -x
    return x - 1


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "nested": branches,
    "integers": lambda x: x + 1 if (x > 0).astype("int32").sum() else x - 1,
    "one element": lambda x: x + 1 if x[:1, :1] else x - 1,
    "bool": lambda x: x + 1 if ek.any(x > 3) else (x - 1 if ek.all(x < 0) else x),
    "half": lambda x: x + 1 if x.astype("float16").mean() else x - 1,
    "python bool": lambda x: (x * 2, bool(x.sum() > 0)),
    "a product": lambda x: x @ x.T if (x @ x.T)[0, 0] > 4 else x.T @ x,
    "a filter": lambda x: sum(row for row in x if row.sum() > 0) + x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("backend", ["llvm", "reference"])
def test_each_way_is_that_of_eager_code(name: str, backend: str) -> None:
    fn = FUNCTIONS[name]
    step = ek.compile(fn, backend=backend, on_retrace="allow")
    for _ in range(2):
        for k in (1, -1, 10, 0, -50, 3, np.nan):
            x = X * np.float32(k) + np.float32(k)
            got = step(x)
            if backend == "llvm":
                assert_same_nest(got, fn(ek.asarray(x)))
            else:
                pairs = zip(ek.tree_leaves(got), ek.tree_leaves(fn(ek.asarray(x))))
                assert all(np.allclose(a, b, rtol=1e-5, equal_nan=True) for a, b in pairs)
    count = traces(step)
    for k in (1, -1, 10, 0, -50):
        step(X * np.float32(k) + np.float32(k))
    assert traces(step) == count


def test_loops_run_as_often_as_they_have_to() -> None:
    @ek.compile(on_retrace="allow")
    def halve(x: Any) -> Any:
        count = 0
        while (x * x).sum() > 1:
            x, count = x / 2, count + 1
        return x, count

    for k in (1, 4, 0, 1, 9):
        both(halve, X * np.float32(k))
    assert traces(halve) == 4


def test_state_is_written_once_whichever_way_a_branch_goes() -> None:
    w, steps = ek.tensor(X, trainable=False), ek.tensor(np.int64(0), trainable=False)
    drop = ek.nn.Dropout(0.5)

    def step(x: Any) -> Any:
        steps.value = steps + 1
        if (x * w).sum() > 0:
            w.value = w * 0.5 - x
            return drop(x)
        if steps > 3:
            w.value = w + 1
        return x + w

    def run(call: Any) -> Any:
        ek.random.seed(5)
        w.value, steps.value = X, 0
        seen = []
        for k in (1, -1, 1, -1, -1, 2, 3, -2):
            seen += [call(X * np.float32(k)).numpy().copy(), *state(w, steps)]
        return seen

    with ek.eager():
        want = run(step)
    compiled = ek.compile(step, on_retrace="allow")
    for _ in range(2):
        for a, b in zip(run(compiled), want):
            assert_same_bits(a, b) if isinstance(a, np.ndarray) else None
            assert isinstance(a, np.ndarray) or a == b


def test_gradients_through_branches() -> None:
    w = ek.Parameter(X)

    def loss(x: Any) -> Any:
        y = ek.tanh(x * w)
        if y.sum() > 0:
            return (y * y).sum()
        return (ek.exp(y) * x).sum()

    step = ek.compile(ek.value_and_grad(loss, w), on_retrace="allow")
    recorded = ek.compile(loss, on_retrace="allow")
    for k in (1, -1, 2, -2):
        x = X * np.float32(k) + 1
        both(step, x)
        w.zero_grad()
        loss(ek.asarray(x)).backward()
        want = w.grad.numpy()
        w.zero_grad()
        recorded(x).backward()
        with ek.eager():
            w.zero_grad()
            recorded(x).backward()
            grouped = w.grad.numpy()
        assert np.allclose(grouped, want, rtol=1e-5)
    assert traces(step) == traces(recorded) == 2


def test_an_exception_on_a_branch_changes_nothing() -> None:
    w = ek.tensor(np.float32(0), trainable=False)

    @ek.compile(on_retrace="allow")
    def step(x: Any) -> Any:
        w.value = w + 1
        if x.sum() > 100:
            raise ValueError("too large")
        return x * w

    step(X)
    with pytest.raises(ValueError, match="too large"):
        step(X + 100)
    assert w.item() == 1
    step(X)
    assert w.item() == 2


def test_an_index_behind_a_branch_is_checked_only_there() -> None:
    @ek.compile(on_retrace="allow")
    def step(x: Any, i: Any) -> Any:
        if i < 3:
            return x[i]
        return x[0] * 0

    for i in (0, 7, 2, 9):
        both(step, X, np.int64(i))
    with pytest.raises(ek.BoundsError):
        step(X, np.int64(-9))


def test_the_number_of_ways_is_bounded() -> None:
    step = ek.compile(lambda x: x + sum(1 for v in x if v > 0), on_retrace="allow")
    ways = [np.where(np.arange(5) < k, 1, -1).astype(np.float32) for k in range(6)]
    for x in ways:
        both(step, x)
    every = [np.array([1 if k >> b & 1 else -1 for b in range(5)], np.float32) for k in range(32)]
    with pytest.raises(ek.TraceError, match=r"branched in 16 ways.*test_tensor.*ek\.where"):
        list(map(step, every))
    for x in ways:
        both(step, x)  # those that are there stay
    with pytest.raises(ek.TraceError, match=r"more than 256 times.*ek\.while_loop"):
        ek.compile(lambda x: [x := x + 1 for _ in range(300) if x.sum() > -1e9])(X)


def test_nothing_is_run_to_lower_a_function_with_branches() -> None:
    step = ek.compile(branches)
    with pytest.raises(
        ek.TraceError, match=r"branches on a tensor at test_tensor.*branches=\[True\]"
    ):
        step.lower(X)
    text = step.lower(X, branches=[False, True, True]).ir("dce")
    assert text.count("check(") == 3
    assert len(ek.trace(branches)(X, branches=[True, False]).outputs) == 3
    assert step.explain().traces == ()


def test_where_a_branch_cannot_be_decided() -> None:
    inner = ek.compile(lambda x: x + 1 if x.sum() > 0 else x)
    with pytest.raises(ek.TraceError, match=r"ek\.where"):
        ek.compile(lambda x: inner(x) * 2)(X)
    with pytest.raises(ek.TraceError, match=r"ek\.where"):
        ek.compile(lambda x: ek.scan(lambda c, v: (c if v.sum() > 0 else -c, v), x[0], x))(X)
    with pytest.raises(ek.EinkornError, match="one element"):
        ek.compile(lambda x: x if x else -x)(X)
    with pytest.raises(ek.TraceError, match=r"item\(\)|value of a tensor"):
        ek.compile(lambda x: x if x.sum().item() > 0 else -x)(X)


def test_branches_are_reasons() -> None:
    step = ek.compile(branches, on_retrace="error")
    step(X + 1)
    with pytest.raises(ek.TraceError, match=r"a branch went another way.*test_tensor_branches\.py"):
        step(X - 1)
    (report,) = step.explain().traces
    assert any("the branch at test_tensor_branches.py" in guard for guard in report.guards)


def test_threads_that_go_different_ways() -> None:
    w = ek.tensor(np.float32(0), trainable=False)

    @ek.compile(on_retrace="allow")
    def step(x: Any) -> Any:
        w.value = w + 1
        return x * 2 if x.sum() > 0 else -x

    def work(k: int) -> bool:
        x = X + np.float32(k - 3.5)
        want = x * 2 if k > 3 else -x
        return all(np.array_equal(step(x).numpy(), want) for _ in range(100))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))
    assert w.item() == 800
