"""`@ek.compile`: arguments, run-time numbers, specialisation and traces."""

from __future__ import annotations

import enum
import gc
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from compile_checks import both, traces
from same_bits import assert_same_bits

import einkorn as ek

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
Pair = namedtuple("Pair", "left right")


@dataclass
class Batch:
    x: Any
    y: Any
    scale: float = 1.0


class Color(enum.Enum):
    RED = 1
    BLUE = 2


# -- arguments -------------------------------------------------------------------------------------


def test_nested_arguments_and_results() -> None:
    def step(pair: Any, table: Any, batch: Any, *rest: Any, last: Any) -> Any:
        return {
            "a": Pair(pair.left + table["k"][0], [table["k"][1], pair.right]),
            "b": (Batch(batch.x * batch.scale, rest), None, "text"),
            "c": last,
        }

    args = (Pair(X, X + 1), {"k": [X * 2, X[0]]}, Batch(X, X, 0.3), 2.5, (X, [3]))
    got = both(step, *args, last={"z": X})
    assert isinstance(got["a"], Pair)
    assert isinstance(got["b"][0], Batch)
    assert got["b"][1:] == (None, "text")
    assert_same_bits(got["b"][0].x.numpy(), X * np.float32(0.3))


def test_keyword_order_makes_no_new_trace() -> None:
    step = ek.compile(lambda a, b: a - b)
    assert_same_bits(step(a=X, b=X * 2).numpy(), -X)
    assert_same_bits(step(b=X * 2, a=X).numpy(), -X)
    assert traces(step) == 1


ARRAYS: dict[str, Callable[[], Any]] = {
    "big-endian": lambda: X.astype(">f4"),
    "big-endian-int": lambda: np.arange(6, dtype=">i8"),
    "reversed": lambda: X[::-1, ::-2],
    "transposed": lambda: X.T,
    "read-only": lambda: np.broadcast_to(np.float32(3), (2, 3)),
    "unaligned": lambda: np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float32),
    "0-d": lambda: np.array(2.5),
    "numpy-scalar": lambda: np.float64(2.5),
    "numpy-int": lambda: np.int8(-3),
    "numpy-bool": lambda: np.bool_(True),
    "empty": lambda: np.zeros((0, 3), np.float32),
    "empty-inner": lambda: np.zeros((2, 0), np.int32),
    "bool": lambda: X > 0,
    "half": lambda: X.astype(np.float16),
    "subclass": lambda: X.view(type("Sub", (np.ndarray,), {})),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_kind(name: str) -> None:
    array = ARRAYS[name]()
    before = np.array(array)
    got = both(lambda x: (ek.where(x == x, x, x), x.reshape(-1)), array)
    native = before.astype(before.dtype.newbyteorder("="))
    assert_same_bits(got[0].numpy(), native)
    assert_same_bits(got[1].numpy(), native.reshape(-1))
    assert np.array_equal(array, before)


@pytest.mark.parametrize(
    "bad",
    [
        np.array(["a"]),
        np.array([object()]),
        np.array([1j], "clongdouble"),
        np.array(["2020"], "M8[D]"),
    ],
)
def test_arrays_that_are_not_numbers_are_refused(bad: Any) -> None:
    step = ek.compile(lambda x: x)
    with pytest.raises(ek.DTypeError, match=r"not numbers|not a dtype"):
        step(bad)


def test_an_argument_is_read_at_the_call() -> None:
    step = ek.compile(lambda x: x * 2)
    array = X.copy()
    first = step(array)
    array[:] = 7
    assert_same_bits(first.numpy(), X * 2)
    assert_same_bits(step(array).numpy(), np.full_like(X, 14))


def test_results_do_not_share_memory() -> None:
    step = ek.compile(lambda x: (x, x, x.T))
    array = X.copy()
    a, b, c = step(array)
    array[:] = 0
    for x, want in ((a, X), (b, X), (c, X.T)):
        assert_same_bits(x.numpy(), want)


# -- numbers ---------------------------------------------------------------------------------------


def test_numbers_are_run_time_inputs() -> None:
    step = ek.compile(lambda x, lr, n: (x * lr + n, lr, n))
    for lr, n in ((0.1, 1), (0.5, -7), (float("nan"), 0), (-0.0, 1 << 40), (1e300, 3)):
        with ek.eager():
            want = step(X, lr, n)
        got = step(X, lr, n)
        assert_same_bits(got[0].numpy(), want[0].numpy())
    assert traces(step) == 1


def test_kinds_of_numbers_make_traces() -> None:
    step = ek.compile(lambda x, n: x * n)
    for n in (2, 2.0, np.float32(2), np.int64(2), True):
        both(step, X, n)
    assert traces(step) == 5


NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, n: a + n,
    "mixed": lambda a, n: (a * 3 - 0.1) / 7,
    "reversed": lambda a, n: 1 - 2 / a,
    "int-divide": lambda a, n: n / 3,
    "int-add": lambda a, n: n * 2 + 1 - n,
    "int-floor": lambda a, n: n // 3,
    "int-remainder": lambda a, n: n % 3,
    "floor": lambda a, n: a // 0.25,
    "remainder": lambda a, n: a % 0.3,
    "negative": lambda a, n: -a + abs(-n),
    "power": lambda a, n: a**n,
    "square": lambda a, n: a**2 + n**2,
    "root": lambda a, n: a**0.5,
    "of-ten": lambda a, n: 10**a,
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arithmetic_of_numbers_is_that_of_python(name: str, dtype: str) -> None:
    x = np.linspace(0.1, 3, 50).astype(dtype)
    step = ek.compile(lambda x, a, n: x * NUMBERS[name](a, n))
    for a, n in ((0.1, 3), (0.7, 7), (2.3, 2), (1e-3, 11)):
        both(step, x, a, n)


def test_number_used_for_a_shape_is_specialised() -> None:
    step = ek.compile(lambda x, n: x.reshape(n, -1).sum(axis=0))
    for n in (3, 2, 3, 2):
        both(step, X, n)
    assert traces(step) == 2
    assert "needed the value of" in str(step.explain())
    assert "test_compile.py" in str(step.explain())


def test_number_used_in_a_branch_or_loop_is_specialised() -> None:
    def step(x: Any, limit: Any, times: Any) -> Any:
        if limit > 0.5:
            x = x + 1
        for _ in range(times):
            x = x * 2
        return x

    compiled = ek.compile(step)
    for limit, times in ((0.6, 2), (0.4, 2), (0.6, 3)):
        both(compiled, X, limit, times)
    assert traces(compiled) == 3
    assert_same_bits(compiled(X, 0.6, 2).numpy(), (X + 1) * 4)
    assert traces(compiled) == 3


def test_a_number_that_is_not_specialised_does_not_retrace_beside_one_that_is() -> None:
    step = ek.compile(lambda x, n, lr: x.reshape(n, -1) * lr)
    for lr in (0.1, 0.2, 0.3):
        assert_same_bits(step(X, 2, lr).numpy(), X.reshape(2, -1) * np.float32(lr))
    assert traces(step) == 1


def test_int_that_does_not_fit_a_word_is_as_in_eager_code() -> None:
    step = ek.compile(lambda x, n: (x * n, n + 1))
    got, more = step(X, 1 << 63)
    assert_same_bits(got.numpy(), X * np.float32(1 << 63))
    assert more == (1 << 63) + 1
    with pytest.raises(ek.DTypeError, match="does not fit"):
        step(np.arange(3), 1 << 63)


# -- static arguments ------------------------------------------------------------------------------


def test_static_kinds() -> None:
    def step(x: Any, how: Any, fn: Any = None) -> Any:
        x = x + 1 if how in (True, "plus", Color.RED) else x - 1
        return x if fn is None else fn(x)

    compiled = ek.compile(step)
    for how in (True, False, "plus", "minus", Color.RED, Color.BLUE, None):
        want = X + 1 if how in (True, "plus", Color.RED) else X - 1
        assert_same_bits(compiled(X, how).numpy(), want)
        assert_same_bits(compiled(X, how).numpy(), want)
    assert traces(compiled) == 7
    assert_same_bits(compiled(X, True, ek.negative).numpy(), -(X + 1))


def test_static_argnames() -> None:
    seen: list[Any] = []

    def step(x: Any, n: int, k: int = 1) -> Any:
        seen.append(type(n))
        return x * n + k

    compiled = ek.compile(step, static_argnames=("n",))
    for n in (2, 3, 2):
        assert_same_bits(compiled(X, n).numpy(), X * n + 1)
        assert_same_bits(compiled(X, n=n).numpy(), X * n + 1)
    assert set(seen) == {int}
    with pytest.raises(ek.EinkornError, match="static_argnames"):
        ek.compile(step, static_argnames="missing")


def test_an_object_that_died_does_not_lend_its_trace_to_another() -> None:
    step = ek.compile(lambda x, holder: x + holder.number, on_retrace="allow")
    for number in range(20):
        holder = type("Holder", (), {})()
        holder.number = number
        assert_same_bits(step(X, holder).numpy(), X + number)
        del holder
        gc.collect()


# -- traces ----------------------------------------------------------------------------------------


def test_new_shapes_and_dtypes_retrace_with_a_reason() -> None:
    step = ek.compile(lambda x: x.sum(axis=0))
    for x in (X, X[:2], X.astype(np.float64), X[0], X):
        assert_same_bits(step(x).numpy(), both(step, x).numpy())
    assert traces(step) == 4
    assert "f64[3,4]" in str(step.explain())


def test_methods_lambdas_and_partial_results() -> None:
    class Counter:
        def __init__(self, by: float) -> None:
            self.total = ek.tensor(0.0, trainable=False)
            self.by = by

        @ek.compile
        def add(self, x: Any) -> Any:
            self.total.value = self.total + x.sum() * self.by
            return self.total * 1

    one, two = Counter(1.0), Counter(2.0)
    for k in range(3):
        one.add(np.ones(2, np.float32))
        two.add(np.ones(2, np.float32))
        assert (one.total.item(), two.total.item()) == (2.0 * (k + 1), 4.0 * (k + 1))
    assert "compiled add" in repr(Counter.add)
    assert_same_bits(ek.compile(lambda x: -x)(X).numpy(), -X)


def test_a_function_without_tensors() -> None:
    assert both(lambda: (1, "a", None)) == (1, "a", None)
    assert both(lambda: ek.ones((2,))).shape == (2,)


def test_eager_switch_in_a_process_of_its_own() -> None:
    code = (
        "import numpy as np, einkorn as ek\n"
        "traced = []\n"
        "@ek.compile\n"
        "def f(x, lr):\n"
        "    traced.append(1)\n"
        "    return (ek.tanh(x) @ x.T).sum() * lr\n"
        "x = np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)\n"
        "print(*(f(x, 0.1 * k).numpy().tobytes().hex() for k in range(3)), len(traced))\n"
    )
    results = {}
    for flag in ("0", "1"):
        run = [sys.executable, "-W", "error", "-c", code]
        env = {"EINKORN_COMPILE": flag, "EINKORN_THREADS": "2", "PATH": "/usr/bin"}
        done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=60, check=True)
        results[flag] = done.stdout.split()
    assert results["0"][:3] == results["1"][:3]
    assert (results["0"][3], results["1"][3]) == ("3", "1")


# -- numbers where Python has functions ------------------------------------------------------------

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sqrt": lambda a: ek.sqrt(a),
    "exp": lambda a: ek.exp(a * 2),
    "maximum": lambda a: ek.maximum(a, 0.2),
    "minimum": lambda a: ek.minimum(a, 2),
    "where": lambda a: ek.where(a > 0.3, a, 0.0),
    "full": lambda a: ek.full((2,), a),
    "asarray": lambda a: ek.asarray(a),
    "asarray-float64": lambda a: ek.asarray(a, dtype="float64"),
    "stack": lambda a: ek.stack([ek.asarray(a), ek.asarray(1.0)]),
    "list": lambda a: ek.asarray([a, 1.0]),
    "positive": lambda a: +a,
    "square": lambda a: ek.square(a),
    "clip": lambda a: ek.clip(ek.asarray(X), -a, a),
    "at": lambda a: ek.asarray(X).at[0].set(a),
    "pad": lambda a: ek.asarray(X) ** a,
    "matmul": lambda a: ek.asarray(X) @ (X.T * a),
    "mean": lambda a: ek.mean(ek.asarray(a)),
    "bernoulli": lambda a: ek.random.bernoulli(a, (4,), key=ek.random.key(1)),
    "uniform": lambda a: ek.random.uniform((4,), 0.0, a, key=ek.random.key(1)),
    "normal": lambda a: ek.random.normal((4,), a, a * 2, key=ek.random.key(1)),
    "compare": lambda a: a > ek.asarray(X),
    "equal": lambda a: ek.asarray(X) == a,
    "divmod": lambda a: ek.asarray(X) // a + ek.asarray(X) % a,
    "reciprocal": lambda a: ek.reciprocal(a),
    "sum-of-list": lambda a: sum([a, a, 1.0]),
    "float": lambda a: float(a) + 1,
    "int": lambda a: int(a * 10),
    "round": lambda a: round(a, 1),
    "format": lambda a: f"{a:.2f}",
    "dict": lambda a: {"a": a, "n": None},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_number_gives_the_same_dtype_and_bits_in_every_function(name: str) -> None:
    for number in (0.1, 0.7):
        both(lambda a: FUNCTIONS[name](a), number)
