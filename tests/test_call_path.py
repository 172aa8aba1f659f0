"""The call of a compiled function: what stays in its tables, what is used again, what is not."""

from __future__ import annotations

import gc
import pickle
import random
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from same_bits import assert_same_bits, bits, split_finely

import einkorn as ek
from einkorn.runtime.memory import address_of

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def leaf(value: Any, **kwargs: Any) -> ek.Leaf:
    return ek.tensor(value, trainable=False, **kwargs)


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["?", "i1", "<f2", ">f4", "c16", "O", "U3", "M8[s]"])
def test_addresses_are_those_that_numpy_tells(dtype: str) -> None:
    whole = np.zeros((4, 6), dtype)
    read_only = whole.view()
    read_only.flags.writeable = False
    records = np.zeros(3, [("a", "i1"), ("b", "f8")])
    views = [whole[1:, ::2], whole.T, whole[::-1], whole[:, :0], whole[0, 0:1], read_only]
    for array in [whole, *views, records["b"], np.zeros(()), np.zeros((0, 3))]:
        assert address_of(array) == array.ctypes.data


# -- outputs that are used again -------------------------------------------------------------------

KEEPERS: dict[str, Callable[[Any], Any]] = {
    "the tensor": lambda out: out,
    "numpy": lambda out: out.numpy(),
    "asarray": np.asarray,
    "a slice": lambda out: np.asarray(out)[1:, ::2],
    "a view of a view": lambda out: np.asarray(out).reshape(-1)[3:].T.view(np.int32),
    "broadcast": lambda out: np.broadcast_to(np.asarray(out), (2, 3, 4)),
    "memoryview": lambda out: memoryview(out.numpy()),
    "frombuffer": lambda out: np.frombuffer(memoryview(out.numpy()).cast("B"), np.uint8),
    "an iterator": lambda out: np.asarray(out).flat,
    "an eager view": lambda out: out[1:],
    "eager views": lambda out: (out.T, out.reshape(-1), out[:, None]),
    "asarray without a copy": lambda out: ek.asarray(out, copy=False),
    "to cpu": lambda out: out.to("cpu"),
    "detached": lambda out: out.detach(),
    "a container": lambda out: ek.Container(a=out).copy(),
    "dlpack": np.from_dlpack,
    "a buffer to be pickled": lambda out: pickle.PickleBuffer(out.numpy()),
    "a transposed argument": lambda out: ek.compile(lambda t: t + 0)(out.T),
}


def seen(kept: Any) -> Any:
    """The bits behind what was kept."""
    if isinstance(kept, tuple):
        return [seen(x) for x in kept]
    if isinstance(kept, ek.Container):
        return seen(kept["a"])
    if isinstance(kept, np.flatiter):
        return bits(np.array(kept.copy()))
    return bits(np.array(kept))


@pytest.mark.parametrize("name", KEEPERS)
def test_what_is_kept_of_an_output_never_changes(name: str) -> None:
    step = ek.compile(lambda x, k: (x * k, x + k))
    kept: list[tuple[Any, Any]] = []
    for k in range(8):
        first, second = step(X, float(k))
        assert_same_bits(first.numpy(), X * np.float32(k))
        assert_same_bits(second.numpy(), X + np.float32(k))
        keep = KEEPERS[name]([first, second][k % 2])
        kept.append((keep, seen(keep)))
        del first, second, keep
    for keep, then in kept:
        assert seen(keep) == then


@pytest.mark.parametrize("seed", range(6))
def test_outputs_kept_and_dropped_at_random(seed: int) -> None:
    rng = random.Random(seed)
    step = ek.compile(lambda x, k: [x * k, (x + k).sum(), ek.astype(x * k, "bfloat16"), x[:0] + k])
    kept: list[tuple[Any, Any]] = []
    for k in range(150):
        outputs = step(X, float(k))
        want = [X * np.float32(k), None, None, np.zeros((0, 4), np.float32)]
        for out, value in zip(outputs, want):
            if value is not None:
                assert_same_bits(np.asarray(out), value)
            if rng.random() < 0.4:
                keep = rng.choice([out, out.numpy(), out.reshape(-1)])
                kept.append((keep, seen(keep)))
        del outputs, out
        rng.shuffle(kept)
        del kept[rng.randrange(1, 12) :]
        for keep, then in kept:
            assert seen(keep) == then


def test_outputs_that_were_dropped_are_used_again_and_two_take_turns() -> None:
    step = ek.compile(lambda x: x * 2)
    places = {step(X).numpy().ctypes.data for _ in range(20)}
    assert len(places) == 1
    out = step(X)
    for _ in range(20):
        out = step(X)
        places.add(out.numpy().ctypes.data)
    assert len(places) == 2


def test_an_output_as_the_argument_of_the_next_call() -> None:
    step = ek.compile(lambda x: x * 2 + 1)
    want, out = X, step(X)
    for _ in range(10):
        want = want * 2 + 1
        assert_same_bits(out.numpy(), want)
        out = step(out)
    swap = ek.compile(lambda a, b: (b, a + b))
    a, b = X, X
    pair = (X, X)
    for _ in range(10):
        pair, a, b = swap(*pair), b, a + b
        assert_same_bits(pair[0].numpy(), a)
        assert_same_bits(pair[1].numpy(), b)


def test_recorded_values_stay_while_the_step_is_called_again() -> None:
    w = ek.Parameter(X)
    step = ek.compile(lambda x: (ek.tanh(x * w), ek.exp(w).sum()))

    def gradient(call: Any, x: Any, between: bool) -> Any:
        w.zero_grad()
        first, second = call(x)
        if between:
            for k in range(4):
                call(x * np.float32(k))
        (first.sum() * second).backward()
        return bits(w.grad.numpy())

    for k in range(4):
        x = X * np.float32(0.1 * k)
        with ek.eager():
            want = gradient(step, x, False)
        assert gradient(step, x, True) == want


def test_gradients_that_a_step_leaves_behind_are_kept() -> None:
    w = ek.Parameter(X)

    @ek.compile
    def step(x: Any) -> None:
        w.zero_grad()
        (w * w * x).sum().backward()

    held: list[tuple[Any, Any]] = []
    for k in range(6):
        step(X + k)
        assert_same_bits(w.grad.numpy(), X * 2 * (X + np.float32(k)))
        held.append((w.grad if k % 2 else w.grad.numpy(), seen(w.grad)))
    for grad, then in held:
        assert seen(grad) == then


@contextmanager
def switching_often() -> Generator[None]:
    """Python threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_threads_that_keep_and_drop_outputs() -> None:
    step = ek.compile(lambda x, k: (x * k, x - k))

    def work(k: int) -> bool:
        kept: list[tuple[Any, Any]] = []
        for n in range(150):
            number = np.float32(k * 1000 + n)
            product, difference = step(X, float(number))
            kept.append((product, bits(X * number)))
            kept.append((difference.numpy(), bits(X - number)))
            del product, difference
            if any(seen(keep) != want for keep, want in kept):
                return False
            del kept[: n % 4]
        return True

    with split_finely(), switching_often(), ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_threads_get_the_outputs_of_their_own_calls() -> None:
    step = ek.compile(lambda k: [k * ek.ones(()) for _ in range(8)])

    def work(k: int) -> bool:
        return all([out._eager()[()] for out in step(float(k))] == [k] * 8 for _ in range(3000))

    with switching_often(), ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


# -- leaves whose storage moves or is lent ---------------------------------------------------------


class Shared:
    """Steps that read and write the same leaves, and what they have to hold."""

    def __init__(self) -> None:
        leaves = self.leaves = [leaf(X + k) for k in range(3)]
        self.values = [X + np.float32(k) for k in range(3)]
        self.views: list[tuple[Any, Any]] = []

        @ek.compile
        def scale(k: float) -> None:  # in place
            for x in leaves:
                x.value = x * k

        @ek.compile
        def rotate() -> None:  # needs other storage
            kept = [x * 1 for x in leaves]
            for x, value in zip(leaves, kept[1:] + kept[:1]):
                x.value = value

        @ek.compile
        def read(i: Any) -> Any:
            leaves[1].value = leaves[1] + leaves[0][i] * 0.5
            return leaves[0] + leaves[1], leaves[2] * 1

        self.steps = scale, rotate, read

    def scale(self, k: int) -> None:
        self.steps[0](0.5 + k)
        self.values = [x * np.float32(0.5 + k) for x in self.values]

    def rotate(self, k: int) -> None:
        self.steps[1]()
        self.values = self.values[1:] + self.values[:1]

    def read(self, k: int) -> None:
        first, second = self.steps[2](np.array([k]))
        self.values[1] = self.values[1] + self.values[0][k] * np.float32(0.5)
        assert_same_bits(first.numpy(), self.values[0] + self.values[1])
        assert_same_bits(second.numpy(), self.values[2])

    def refused(self, k: int) -> None:
        with pytest.raises(ek.BoundsError):
            self.steps[2](np.array([7]))

    def write(self, k: int) -> None:
        self.values[k] = X * np.float32(k - 5)
        self.leaves[k].value = self.values[k]

    def eager(self, k: int) -> None:
        self.values[k] = self.values[k] - self.values[k - 1]
        self.leaves[k].value = self.leaves[k] - self.leaves[k - 1]

    def view(self, k: int) -> None:
        view = [self.leaves[k].numpy(), self.leaves[k][1:], self.leaves[k].T][len(self.views) % 3]
        self.views.append((view, seen(view)))

    def drop(self, k: int) -> None:
        del self.views[: k + 1]


@pytest.mark.parametrize("seed", range(12))
def test_steps_that_share_leaves_and_storage_that_moves(seed: int) -> None:
    rng, shared = random.Random(seed), Shared()
    actions = ["scale", "rotate", "read", "refused", "write", "eager", "view", "drop"]
    for _ in range(120):
        getattr(shared, rng.choice(actions))(rng.randrange(3))
        for x, value in zip(shared.leaves, shared.values):
            assert_same_bits(x._eager(), value)  # a look that lends nothing
        for view, then in shared.views:
            assert seen(view) == then
    assert [traces(step) for step in shared.steps] == [1, 1, 1]


def test_loading_reaches_steps_that_were_called_before() -> None:
    model = ek.nn.Linear(4, 3)
    step = ek.compile(lambda x: model(x))
    step(X)
    for k in range(3):
        held = model.w.numpy()  # lent, so that loading moves the storage
        then = held.copy()
        state = {"w": np.full((3, 4), k, np.float32), "b": np.full(3, k + 1, np.float32)}
        model.load_state_dict(state)
        assert_same_bits(step(X).numpy(), X @ state["w"].T + state["b"])
        assert_same_bits(held, then)


def test_models_of_one_structure_have_tables_of_their_own() -> None:
    def made(k: int) -> Any:
        w = leaf(X + k)

        @ek.compile
        def step(x: Any) -> Any:
            w.value = w + x
            return w * 1

        return w, step

    (a, step_a), (b, step_b) = made(0), made(10)
    for _ in range(4):
        first, second = step_a(X), step_b(X * 2)
        assert_same_bits(first.numpy(), a.numpy())
        assert_same_bits(second.numpy(), b.numpy())
    assert_same_bits(a.numpy(), (((X + X) + X) + X) + X)


def test_a_leaf_forgets_the_steps_that_are_gone() -> None:
    w = leaf(X)
    for k in range(20):
        ek.compile(lambda x, k=k: x * w + k)(X)
        gc.collect()
    assert len(w._watchers) <= 2


def test_a_thread_that_looks_at_leaves_while_another_steps() -> None:
    w = leaf(np.zeros(5000, np.float32))
    v = leaf(np.zeros(5000, np.float32))

    @ek.compile
    def step() -> None:
        w.value, v.value = w + 1, v - 1

    step()
    stop = threading.Event()

    def look() -> bool:
        good, held = True, []
        while not stop.is_set():
            for x in (w, v):
                view = x.numpy()
                held.append((view, view[0]))
            good &= all(np.all(view == value) for view, value in held)
            held = held[-6:]
        return good

    with ThreadPoolExecutor(3) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        for _ in range(400):
            step()
        stop.set()
        assert all(x.result(60) for x in looking)
    assert_same_bits(w.numpy(), np.full(5000, 401, np.float32))
    assert_same_bits(v.numpy(), np.full(5000, -401, np.float32))
