"""Threads, tasks, handlers and finalizers that call at once: no deadlock, no half step."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import Context
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from compile_checks import state
from same_bits import assert_same_bits, bits, split_finely

import einkorn as ek
from einkorn.ir.dtypes import float32
from einkorn.ir.node import constant
from einkorn.recording import is_recording
from einkorn.runtime import settings

X = np.linspace(-1, 1, 36, dtype=np.float32).reshape(6, 6)


def ends(*calls: Callable[[], Any], seconds: float = 60) -> list[Any]:
    """The results of calls in daemon threads; fails when one of them is not done in time."""
    found: dict[int, Any] = {}

    def run(k: int, call: Callable[[], Any]) -> None:
        try:
            found[k] = call()
        except BaseException as error:
            found[k] = error

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    limit = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, limit - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "a deadlock"
    errors = [x for x in found.values() if isinstance(x, BaseException)]
    if errors:
        raise errors[0]
    return [found[k] for k in range(len(calls))]


# -- locks -----------------------------------------------------------------------------------------


def test_a_callback_compiles_and_draws_while_other_threads_trace_and_draw() -> None:
    """The step has the state, the traces wait for it; the callback must not wait for a trace."""
    w, count, called = ek.tensor(X, trainable=False), ek.tensor(0), threading.Event()

    def compiles(x: Any) -> Any:
        called.set()
        time.sleep(0.2)
        ek.random.normal((2,))
        ek.random.gamma(np.float32(2), (2,))
        assert_same_bits(w.numpy(), X)  # not yet committed
        return ek.compile(lambda x: ek.cond(x.sum() > 100, lambda: x, lambda: x * 3))(x).numpy()

    @ek.compile
    def step(x: Any) -> Any:
        w.value = w + 1
        return ek.callback(compiles, x, x)

    @ek.compile
    def branches(x: Any) -> Any:
        return x + 1 if count + 0 > -1 else x

    def after(call: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: called.wait(30) and call().numpy()

    got, branched, _, _ = ends(
        lambda: step(X).numpy(),
        after(lambda: branches(X)),
        after(lambda: ek.random.gamma(np.float32(2), (3,))),
        after(lambda: ek.compile(lambda x: x * ek.random.uniform((6, 6)))(X)),
    )
    assert_same_bits(got, X * 3)
    assert_same_bits(branched, X + 1)
    assert_same_bits(w.numpy(), X + 1)


def test_callbacks_run_in_the_thread_of_the_call_and_in_its_context() -> None:
    w = ek.tensor(X, trainable=False)
    seen: set[Any] = set()

    def note(x: Any) -> Any:
        seen.add((threading.get_ident() == here, is_recording()))
        return x + w.numpy()  # the state of the step that runs

    @ek.compile
    def step(x: Any) -> Any:
        y = ek.callback(note, x, ek.tanh(x @ w))
        z = ek.exp(x) @ x
        w.value = w * 1
        return ek.callback(note, x, y @ z) + ek.sin(z)

    def many() -> None:
        nonlocal here
        here = threading.get_ident()
        with split_finely(), ek.settings(threads=2), ek.no_grad():
            for _ in range(60):
                step(X)

    here = 0
    ends(many)
    assert seen == {(True, False)}


def test_a_finalizer_that_compiles_and_calls() -> None:
    total = ek.tensor(0)

    @ek.compile
    def step(x: Any) -> Any:
        total.value = total + 1
        return x * 2

    class Calls:
        def __del__(self) -> None:
            Context().run(calls)
            seen.append(1)

    def calls() -> None:
        step(X)
        ek.compile(lambda x: x + len(seen))(X)

    seen: list[int] = []

    def spin() -> None:
        for k in range(15):
            cycle = [Calls()]
            cycle.append(cycle)  # type: ignore[arg-type] # freed by a collection, somewhere
            del cycle
            if k % 5 == 0:
                gc.collect()
            ek.compile(lambda x: x * k)(X)  # noqa: B023
            step(X)

    before = gc.get_threshold()
    gc.set_threshold(200, 2, 2)
    try:
        ends(spin, spin)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(seen) == 30
    assert total.item() == 60


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_a_signal_handler_that_compiles_and_calls() -> None:
    """In an empty context, for otherwise it is part of a trace that it interrupts."""
    total, seen, stop = ek.tensor(0), [0], threading.Event()

    @ek.compile
    def step(x: Any) -> Any:
        total.value = total + 1
        return ek.tanh(x)

    def handler(*_: Any) -> None:
        seen[0] += 1
        Context().run(calls)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    def calls() -> None:
        step(X)
        ek.compile(lambda x: x * seen[0])(X)

    def beside() -> int:
        k = 0
        while not stop.is_set():
            step(X)
            ek.compile(lambda x: x + k)(X)  # noqa: B023
            k += 1
        return k

    before = signal.signal(signal.SIGALRM, handler)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(beside()), daemon=True)
    thread.start()
    mine, limit = 0, time.monotonic() + 20
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while seen[0] < 25 and time.monotonic() < limit:
            step(X)
            ek.compile(lambda x: x - mine)(X)  # noqa: B023
            mine += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stop.set()
    thread.join(30)
    assert not thread.is_alive(), "a deadlock"
    assert total.item() == seen[0] + mine + found[0]


# -- stress ----------------------------------------------------------------------------------------


def test_traces_settings_and_caches_change_in_many_threads() -> None:
    """What each call gives is right, whatever the others do meanwhile."""
    holder = SimpleNamespace(k=1.0)
    model = ek.nn.Linear(6, 6)
    step = ek.compile(lambda x, n: x * n + x.shape[0], on_retrace="allow", max_traces=3)
    reads = ek.compile(lambda x: x * 0 + holder.k, on_retrace="allow", max_traces=2)
    applies = ek.compile(lambda x: model(x).detach(), on_retrace="allow")
    with ek.eager():
        want = bits(model(X).numpy())

    def calls(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(40):
            rows, n = int(random.integers(1, 6)), float(random.integers(9))
            x = X[:rows]
            assert_same_bits(step(x, n).numpy(), x * np.float32(n) + np.float32(rows))
            assert bits(applies(X).numpy()) == want
            assert float(reads(X[0]).numpy()[0]) in (1.0, 2.0, 3.0)

    def changes() -> None:
        for k in range(60):
            holder.k = float(k % 3 + 1)
            model.training = k % 2 == 0
            with ek.settings(threads=1 + k % 2), ek.eager():
                step(X, 1.0)
            for compiled in (step, reads, applies):
                str(compiled.explain())
            if k % 10 == 0:
                ek.clear_caches()
                gc.collect()

    ends(*(lambda k=k: calls(k) for k in range(4)), changes)


def test_equal_nodes_of_all_threads_are_one_node() -> None:
    for k in range(200):
        made = ends(*(lambda k=k: constant(float32, k + 0.25) for _ in range(4)))
        assert all(node is made[0] for node in made)


def test_draws_of_many_threads_are_different_ones() -> None:
    draw = ek.compile(lambda: ek.random.uniform((4,)))
    ek.random.seed(5)

    def work(compiled: bool) -> list[bytes]:
        make = draw if compiled else lambda: ek.random.uniform((4,))
        return [bits(make().numpy())[-1] for _ in range(40)]

    found = ends(*(lambda k=k: work(k % 2 == 0) for k in range(4)))
    ek.random.seed(5)
    want = [bits(ek.random.uniform((4,)).numpy())[-1] for _ in range(160)]
    assert sorted(x for row in found for x in row) == sorted(want)


def test_threads_that_end_leave_their_traces_to_others() -> None:
    held: list[Any] = []

    def make() -> None:
        w = ek.tensor(X, trainable=False)
        step = ek.compile(lambda x: x @ w)
        step(X)
        held.append((step, w))

    ends(make, make)
    gc.collect()
    for step, w in held:
        w.value = X * 2
        assert_same_bits(step(X).numpy(), (ek.asarray(X) @ ek.asarray(X * 2)).numpy())


def test_a_function_that_is_deleted_while_it_runs() -> None:
    holder: dict[str, Any] = {}

    def delete(x: Any) -> Any:
        holder.clear()
        gc.collect()
        return x * 2

    def make() -> Any:
        w = ek.tensor(X, trainable=False)

        def step(x: Any) -> Any:
            w.value = w + 1
            return ek.callback(delete, x, x) + w

        return ek.compile(step)

    for _ in range(3):
        holder["step"] = make()
        assert_same_bits(holder["step"](X).numpy(), X * 2 + (X + 1))
        assert not holder


def test_a_compiled_function_that_calls_itself_from_a_callback() -> None:
    """A step in the middle of itself: the inner one is whole before the outer one commits."""
    count = ek.tensor(0)

    def again(x: Any) -> Any:
        return step(x[:-1]).numpy().sum() if len(x) > 1 else np.float32(0)

    @ek.compile
    def step(x: Any) -> Any:
        return ek.callback(again, ek.ShapeDtype((), "float32"), x) + x.sum()

    def steps(x: Any) -> float:
        return float(np.float32(x.sum()) + (np.float32(steps(x[:-1])) if len(x) > 1 else 0))

    x = np.arange(1, 5, dtype=np.float32)
    assert ends(lambda: step(x).item()) == [steps(x)]
    assert count.item() == 0


# -- generators and tasks --------------------------------------------------------------------------


def test_generators_between_calls() -> None:
    w = ek.tensor(np.float32(0), trainable=False)

    @ek.compile
    def step(x: Any) -> Any:
        w.value = w + x
        return w * 1

    def steps(x: float) -> Iterator[float]:
        while True:
            yield step(np.float32(x)).item()

    a, b = steps(1), steps(10)
    assert [next(a), next(b), next(b), next(a)] == [1, 11, 21, 22]
    a.close()
    assert next(b) == 32


def test_a_generator_that_is_used_up_inside_of_a_trace() -> None:
    def parts(x: Any) -> Iterator[Any]:
        for k in range(3):
            yield x * k

    step = ek.compile(lambda x: sum(parts(x)))
    for _ in range(2):
        assert_same_bits(step(X).numpy(), X * 0 + X + X * 2)


def test_generators_and_coroutines_are_refused() -> None:
    def generator(x: Any) -> Iterator[Any]:
        yield x

    async def coroutine(x: Any) -> Any:
        return x

    async def both(x: Any) -> Any:
        yield x

    class Late:
        async def __call__(self, x: Any) -> Any:
            return x

    for fn in (generator, coroutine, both, Late(), Late().__call__):
        with pytest.raises(ek.EinkornError, match="coroutine or generator"):
            ek.compile(fn)
    for made in (lambda x: coroutine(x), lambda x: generator(x), lambda x: both(x)):
        for _ in range(2):
            with pytest.raises(ek.EinkornError, match="returned a"):
                ek.compile(made)(X)


def test_a_generator_that_outlives_its_trace_is_loud() -> None:
    """A tensor that waits in a generator of one trace cannot be used."""
    kept: list[Any] = []

    def leaks(x: Any) -> Any:
        kept.append(x * 2 for _ in range(1))
        return x + 1

    ek.compile(leaks)(X)
    with pytest.raises(ek.EinkornError):
        next(kept[0])


def test_tasks_of_asyncio() -> None:
    total = ek.tensor(0)

    @ek.compile
    def step(x: Any, k: float) -> Any:
        total.value = total + 1
        return x * k

    async def task(k: int) -> None:
        for n in range(10):
            if n % 3:
                got = step(X, float(k))
            else:
                got = await asyncio.to_thread(step, X, float(k))
            assert_same_bits(got.numpy(), X * np.float32(k))
            with ek.settings(threads=1 + k % 2):
                await asyncio.sleep(0)
                assert settings.current().threads == 1 + k % 2

    async def main() -> None:
        await asyncio.gather(*(task(k) for k in range(6)))

    ends(lambda: asyncio.run(main()))
    assert total.item() == 60


def test_a_task_that_is_cancelled_leaves_the_state_whole() -> None:
    a, b = (ek.tensor(np.zeros(9, np.float32), trainable=False) for _ in range(2))

    @ek.compile
    def step() -> None:
        a.value, b.value = a + 1, b + 1

    async def forever() -> None:
        while True:
            await asyncio.to_thread(step)

    async def main() -> None:
        task = asyncio.create_task(forever())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    ends(lambda: asyncio.run(main()))
    assert state(a) == state(b)
