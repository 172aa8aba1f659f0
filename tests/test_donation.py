"""Donated arguments: used up by the call, their memory given to results, the bits unchanged."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.ir.errors import BoundsError, EinkornError, StateError

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def fresh(scale: float = 1.0) -> Any:
    return ek.asarray(X * np.float32(scale))


def step(params: Any, x: Any) -> Any:
    """One step of gradient descent on a dict of parameters."""

    def loss(p: Any) -> Any:
        return ek.sum((x @ p["w"] + p["b"]) ** 2)

    value, grads = ek.value_and_grad(loss)(params)
    return ek.tree_map(lambda p, g: p - 0.01 * g, params, grads), value


def params() -> dict[str, Any]:
    return {
        "w": ek.asarray(np.full((4, 3), 0.5, np.float32)),
        "b": ek.asarray(np.zeros(3, np.float32)),
    }


def address(x: Any) -> int:
    return x._array.ctypes.data


def test_results_take_the_memory_of_what_was_donated() -> None:
    donating, plain = ek.compile(step, donate="params"), ek.compile(step)
    one, other = params(), params()
    for _ in range(5):
        before = {name: address(x) for name, x in one.items()}
        one, value = donating(one, X)
        other, wanted = plain(other, X)
        assert_same_bits(value, wanted)
        for name in one:
            assert_same_bits(one[name], other[name])
            assert address(one[name]) == before[name]
    assert traces(donating) == 1


@pytest.mark.parametrize("mode", [True, False])
def test_what_was_donated_is_used_up(mode: bool) -> None:
    run = ek.compile(lambda a: a * 2.0, donate=["a"])
    a = fresh()
    with ek.settings(compile=mode):
        assert_same_bits(run(a), X * 2)
    uses: list[Callable[[], Any]] = [
        lambda: a + 1,
        lambda: np.asarray(a),
        lambda: a.sum(),
        lambda: float(a[0, 0]),
        lambda: run(a),
        lambda: ek.compile(lambda x: x + 1)(a),
        lambda: ek.compile(lambda: a + 1)(),
        lambda: ek.grad(lambda x: ek.sum(x))(a),
    ]
    for use in uses:
        with pytest.raises(StateError, match=r"f32\[3,4\] was donated to a compiled call"):
            use()
    assert repr(a) == "Tensor(f32[3,4], donated)"
    assert a.shape == (3, 4)


def shared_with_a_view(a: Any) -> Any:
    return np.asarray(a)


def shared_with_a_reshape(a: Any) -> Any:
    return ek.reshape(a, (4, 3))


def shared_with_a_slice(a: Any) -> Any:
    return a[1:]


def shared_with_a_recording(a: Any) -> Any:
    w = ek.Parameter(np.ones((3, 4), np.float32))
    return w * a  # its backward needs a


@pytest.mark.parametrize(
    "share",
    [shared_with_a_view, shared_with_a_reshape, shared_with_a_slice, shared_with_a_recording],
)
def test_memory_that_others_see_is_left_alone(share: Callable[[Any], Any]) -> None:
    run = ek.compile(lambda a: a * 2.0 + 1.0, donate="a")
    for _ in range(3):
        a = fresh()
        other = share(a)
        kept = np.array(other)
        out = run(a)
        assert_same_bits(out, X * 2 + 1)
        assert_same_bits(np.asarray(other), kept)
        again = share(out)
        kept = np.array(again)
        assert_same_bits(run(out), (X * 2 + 1) * 2 + 1)
        assert_same_bits(np.asarray(again), kept)


def test_one_tensor_in_several_places() -> None:
    run = ek.compile(lambda a, b, c: (a * 2.0, b + 1.0, a + b + c), donate=("a", "b"))
    a = fresh()
    first, second, third = run(a, a, a)
    assert_same_bits(first, X * 2)
    assert_same_bits(second, X + 1)
    assert_same_bits(third, X + X + X)
    with pytest.raises(StateError, match="was donated"):
        a + 1


def test_a_tensor_that_the_function_captures_cannot_be_donated_to_it() -> None:
    a = fresh()
    run = ek.compile(lambda x: x * 2.0 + a, donate="x")
    with pytest.raises(StateError, match="was donated"):
        run(a)
    assert_same_bits(a + 0.0, X)  # nothing was changed
    assert_same_bits(run(fresh()), X * 2 + X)


def test_a_call_that_raises_gives_everything_back() -> None:
    run = ek.compile(lambda a, i: (a + 1.0, a[i]), donate="a")
    a = fresh()
    place = address(a)
    for _ in range(2):
        with pytest.raises(BoundsError):
            run(a, np.array([7]))
        assert_same_bits(a, X)
        assert address(a) == place
    out, row = run(a, np.array([1]))
    assert_same_bits(out, X + 1)
    assert_same_bits(row, X[[1]])
    with pytest.raises(BoundsError):
        run(out, np.array([7]))
    assert_same_bits(out, X + 1)

    def broken(a: Any) -> Any:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ek.compile(broken, donate="a")(out)
    assert_same_bits(out, X + 1)


def test_results_of_other_types_and_more_arguments_than_results() -> None:
    run = ek.compile(lambda a, b: (ek.sum(a), b.astype("float64")), donate=("a", "b"))
    for scale in (1.0, 2.0):
        total, wide = run(fresh(scale), fresh(scale))
        assert_same_bits(total, ek.sum(fresh(scale)))
        assert_same_bits(wide, (X * np.float32(scale)).astype("float64"))


def test_arguments_that_are_given_back_or_exchanged() -> None:
    run = ek.compile(lambda a, b: (b, a, a @ b.T), donate=("a", "b"))
    a, b = fresh(), fresh(3.0)
    for _ in range(4):
        want = np.asarray(a).copy(), np.asarray(b).copy(), ek.matmul(a, b.T).numpy().copy()
        a, b, product = run(a, b)
        assert_same_bits(a, want[1])
        assert_same_bits(b, want[0])
        assert_same_bits(product, want[2])


def test_arrays_of_numpy_are_copied() -> None:
    array = X.copy()
    run = ek.compile(lambda a: a * 3.0, donate="a")
    for _ in range(3):
        assert_same_bits(run(array), X * 3)
        assert_same_bits(array, X)


def test_what_cannot_be_donated() -> None:
    run = ek.compile(lambda a: a * 2.0, donate="a", name="double")
    leaf = ek.Parameter(X.copy())
    with pytest.raises(EinkornError, match=r"double: a leaf cannot be donated"):
        run(leaf)
    with pytest.raises(EinkornError, match=r"double: this f32\[3,4\] cannot be donated.*detach"):
        run(leaf * 2.0)
    assert_same_bits(run((leaf * 2.0).detach()), X * 4)
    with pytest.raises(EinkornError, match=r"donate names \['b'\], but .* has the parameters a"):
        ek.compile(lambda a: a, donate="b")
    assert run(2.0) == 4.0  # a number has no memory


def test_inside_of_another_compiled_function_the_outer_one_decides() -> None:
    inner = ek.compile(lambda a: a * 2.0, donate="a")
    outer = ek.compile(lambda x: inner(x) + x)
    x = fresh()
    assert_same_bits(outer(x), X * 2 + X)
    assert_same_bits(x, X)


def test_leaves_generator_and_branches_beside_donated_arguments() -> None:
    def make() -> Callable[[Any], Any]:
        count = ek.tensor(0, trainable=False)

        def run(a: Any) -> Any:
            count.value = count + 1
            noise = ek.random.normal((3, 4))
            if ek.sum(a) > 0:
                return a + noise, count + 0
            return a - 2.0 * noise, count * 10

        return run

    found: list[list[Any]] = []
    for options in ({}, {"donate": "a"}):
        ek.random.seed(0)
        run, a = ek.compile(make(), **options), fresh()
        found.append([])
        for _ in range(6):
            a, count = run(a)
            found[-1] += [np.array(a), np.array(count)]
    for one, other in zip(*found, strict=True):
        assert_same_bits(one, other)


def test_many_threads() -> None:
    run = ek.compile(lambda a, k: a * 2.0 + k, donate="a")
    wrong: list[Any] = []

    def work(k: int) -> None:
        a, want = fresh(), X.copy()
        for _ in range(50):
            a, want = run(a, np.float32(k)), want * np.float32(0.5) * 4 + np.float32(k)
            a, want = a * 0.25, want * np.float32(0.25)
            if not np.array_equal(np.asarray(a), want):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_are_taken_before_another_call_fills_their_memory() -> None:
    waits: list[Any] = []
    run = ek.compile(lambda a: a + 1.0, donate="a")
    run(fresh())

    class Eager(list[Any]):
        """Where leaves wait: another call begins as soon as they are there."""

        def append(self, holes: Any) -> None:
            super().append(holes)
            if not waits:
                waits.append(None)
                waits.append(run(fresh(100.0)))

    for kind, waiting in run._donation._idle.items():
        run._donation._idle[kind] = Eager(waiting)
    assert_same_bits(run(fresh()), X + 1)
    assert_same_bits(waits[1], X * np.float32(100) + 1)


def test_an_error_behind_the_commit_does_not_give_back_what_was_written_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Closed:
        def write(self, text: str) -> int:
            raise OSError("closed")

        def flush(self) -> None:
            raise OSError("closed")

    @functools.partial(ek.compile, donate="a")
    def run(a: Any) -> Any:
        ek.print("sum", ek.sum(a))
        return a + 1.0

    run(fresh())
    a = fresh()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Closed())
        with pytest.raises(OSError, match="closed"):
            run(a)
    with pytest.raises(StateError, match="was donated"):
        a + 0.0
    assert_same_bits(run(fresh(2.0)), X * 2 + 1)


def test_few_kinds_of_arguments_are_kept() -> None:
    run = ek.compile(lambda a: a * 2.0, donate="a", on_retrace="allow")
    for n in range(1, 25):
        assert_same_bits(run(ek.asarray(np.ones(n, np.float32))), np.full(n, 2, np.float32))
    assert len(run._donation._idle) <= 16
    ek.clear_caches()
    assert not run._donation._idle
    assert_same_bits(run(fresh()), X * 2)


@pytest.mark.parametrize("more", [{"buckets": {"a.x": {0: "pow2"}}}, {"static_argnames": "a"}])
def test_options_that_exclude_each_other(more: dict[str, Any]) -> None:
    with pytest.raises(EinkornError, match=r"\['a'\] cannot be donated, since static_argnames or"):
        ek.compile(lambda a: a, donate="a", **more)
