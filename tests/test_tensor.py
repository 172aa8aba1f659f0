"""Tensors and leaves in eager mode: ownership, recording, backward, operators, promotion."""

from __future__ import annotations

import copy
import gc
import operator
import resource
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits, bits

import einkorn as ek
from einkorn.ir.dtypes import ALL, DType, bool_, float32, int64

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
NAMES = [d.name for d in ALL]


def leaf(value: Any, **kwargs: Any) -> ek.Leaf:
    return ek.tensor(value, **{"trainable": False, **kwargs})


# -- leaves and who owns what ----------------------------------------------------------------------


def test_a_leaf_copies_what_it_is_given() -> None:
    source = X.copy()
    w = leaf(source)
    source[:] = 0
    assert_same_bits(w.numpy(), X)
    w.value = source
    source[:] = 5
    assert_same_bits(w.numpy(), np.zeros_like(X))


def test_the_value_is_read_only_and_keeps_its_bits() -> None:
    w = leaf(X)
    views = [w.value, w.numpy(), np.asarray(w), w[1:].numpy(), w.T.numpy(), w.reshape(-1).numpy()]
    held = [view.copy() for view in views]
    for view in views:
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 9
    w.value = X + 1
    w.value = X + 2
    for view, then in zip(views, held):
        assert_same_bits(view, then)
    assert_same_bits(w.numpy(), X + 2)


def test_dlpack_lends_and_does_not_alias_later_values() -> None:
    w = leaf(X)
    view = np.from_dlpack(w)
    w.value = X * 3
    assert_same_bits(view, X)
    assert w.__dlpack_device__() == (1, 0)


def test_a_leaf_keeps_shape_and_dtype() -> None:
    w = leaf(X, name="w")
    before = bits(w.numpy())
    with pytest.raises(ek.ShapeError, match=r"w holds f32\[3,4\], got f32\[4,3\]"):
        w.value = X.T
    with pytest.raises(ek.DTypeError, match=r"w holds f32\[3,4\], got f64\[3,4\]"):
        w.value = X.astype(np.float64)
    with pytest.raises(ek.ShapeError):
        w.value = 1.0
    with pytest.raises(ek.DTypeError):
        w.value = "text"
    assert bits(w.numpy()) == before
    w.value = X.tolist()
    assert_same_bits(w.numpy(), X)
    scalar = leaf(1.0)
    scalar.value = 3
    assert scalar.item() == 3.0


def test_a_leaf_of_a_view_of_itself() -> None:
    w = leaf(np.arange(6, dtype=np.float32).reshape(2, 3))
    w.value = ek.flip(w)
    w.value = w.numpy()[::-1]
    assert w.tolist() == [[2, 1, 0], [5, 4, 3]]


def test_only_floats_are_trained() -> None:
    assert ek.tensor([1.0]).trainable
    assert not ek.tensor([1]).trainable
    assert ek.Parameter([1.0]).requires_grad
    with pytest.raises(ek.DTypeError, match="floating-point"):
        ek.Parameter([1, 2])
    w = leaf([1.0, 2.0])
    w.requires_grad = True
    (w * w).sum().backward()
    assert w.grad.tolist() == [2, 4]


def test_copies_of_leaves_are_leaves_of_their_own() -> None:
    w = ek.Parameter(X, name="w")
    for twin in (copy.copy(w), copy.deepcopy(w), copy.deepcopy([w, w])[0]):
        assert type(twin) is ek.Parameter
        assert twin.name == "w"
        assert twin.id != w.id
        twin.value = X * 0
    assert_same_bits(w.numpy(), X)


@pytest.mark.parametrize("symbol", ["+", "-", "*", "/", "**", "@"])
def test_in_place_operators_of_a_leaf_are_refused(symbol: str) -> None:
    w = leaf(np.eye(3, dtype=np.float32), name="w")
    with pytest.raises(ek.StateError, match=r"w\.value = w " + "".join(f"\\{c}" for c in symbol)):
        exec(f"w {symbol}= 2", {"w": w})
    assert_same_bits(w.numpy(), np.eye(3, dtype=np.float32))


def test_in_place_operators_of_a_result_rebind() -> None:
    t = first = ek.asarray(X) * 1
    t += 1
    t *= 2
    assert_same_bits(first.numpy(), X)
    assert_same_bits(t.numpy(), (X + 1) * 2)


def test_asarray_copies_and_tensors_do_not_change() -> None:
    source = X.copy()
    t = ek.asarray(source)
    s = t + source
    source[:] = 0
    assert_same_bits(t.numpy(), X)
    assert_same_bits(s.numpy(), X + X)


# -- protocols -------------------------------------------------------------------------------------


def test_equality_hash_and_truth() -> None:
    a, b = ek.asarray(X), ek.asarray(X)
    assert (a == b).dtype == "bool"
    assert bool((a == b).all())
    assert len({a, b, a}) == 2
    assert ek.asarray(2.0)
    assert not ek.asarray([0])
    for call in (bool, float, int):
        with pytest.raises(ek.ShapeError, match="one element"):
            call(a)
    assert (float(ek.asarray([2.5])), int(ek.asarray(2.9)), ek.asarray(3).item()) == (2.5, 2, 3)
    assert [10, 11, 12][ek.asarray(1)] == 11
    with pytest.raises((ek.DTypeError, TypeError)):
        [1, 2][ek.asarray(1.0)]


def test_length_and_iteration() -> None:
    a = ek.asarray(X)
    assert len(a) == 3
    for row, want in zip(a, X, strict=True):
        assert_same_bits(row.numpy(), want)
    assert len([*a]) == 3
    with pytest.raises(TypeError):
        len(ek.asarray(1.0))
    with pytest.raises(TypeError):
        iter(ek.asarray(1.0))
    assert list(ek.zeros((0, 2))) == []


def test_items_are_not_assigned() -> None:
    a = ek.asarray(X)
    with pytest.raises(ek.StateError, match=r"x\.at\[0\]\.set\(value\)"):
        a[0] = 1.0
    changed = a.at[0].set(9.0)
    assert_same_bits(a.numpy(), X)
    assert changed[0].tolist() == [9] * 4


def test_printing() -> None:
    assert repr(ek.asarray([1.0, 2.0])) == "Tensor([1., 2.], dtype=float32)"
    assert repr(ek.Parameter([1.0], name="w")) == "Parameter([1.], dtype=float32, name='w')"
    assert f"{ek.asarray(0.123456):.3f} {ek.asarray(7):4d}" == "0.123    7"
    assert f"{ek.asarray([1])}" == "Tensor([1], dtype=int64)"
    with pytest.raises(ek.ShapeError):
        format(ek.asarray(X), ".2f")


def test_tensors_are_not_constructed() -> None:
    with pytest.raises(ek.StateError, match=r"ek\.asarray"):
        ek.Tensor([1, 2])
    with pytest.raises(AttributeError):
        ek.asarray(X).typo = 3
    with pytest.raises(AttributeError):
        leaf(X).typo = 3


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name)
    for name in "add sub mul truediv floordiv mod eq ne lt le gt ge".split()
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_agree_with_numpy_from_either_side(name: str) -> None:
    fn = OPERATORS[name]
    x = np.arange(-6, 6, dtype=np.float32).reshape(3, 4) / 4 + 0.125  # quotients are exact enough
    y = np.array([0.5, -3, 2, 7], np.float32)
    for a, b in ((x, y), (x, x), (x[:, :1], y), (np.float32(8), x)):
        for left, right in (
            (ek.asarray(a), ek.asarray(b)), (ek.asarray(a), b), (a, ek.asarray(b)), (leaf(a), b)
        ):  # fmt: skip
            got = fn(left, right)
            assert isinstance(got, ek.Tensor), f"{type(left)} {name} {type(right)}"
            np.testing.assert_allclose(got.numpy(), fn(a, b), rtol=1e-6)
            assert got.numpy().dtype == fn(a, b).dtype
    for number in (3, 0.5, -2):
        np.testing.assert_allclose(fn(ek.asarray(x), number).numpy(), fn(x, number), rtol=1e-6)
        np.testing.assert_allclose(fn(number, ek.asarray(x)).numpy(), fn(number, x), rtol=1e-6)


@pytest.mark.parametrize("name", ["and_", "or_", "xor", "lshift", "rshift"])
def test_integer_operators(name: str) -> None:
    fn = getattr(operator, name)
    a, b = np.arange(-4, 8), np.arange(12) % 5
    for left, right in ((ek.asarray(a), ek.asarray(b)), (ek.asarray(a), b), (a, ek.asarray(b))):
        assert_same_bits(fn(left, right).numpy(), fn(a, b))
    assert_same_bits((~ek.asarray(a)).numpy(), ~a)
    assert_same_bits((3 & ek.asarray(b)).numpy(), 3 & b)


def test_unknown_operands_give_the_usual_type_error() -> None:
    for fn in (operator.add, operator.matmul, operator.lt):
        for other in (object(), "text", None, {}):
            with pytest.raises(TypeError):
                fn(ek.asarray(X), other)
    assert ek.asarray(X).__add__(object()) is NotImplemented


# -- promotion -------------------------------------------------------------------------------------

SIGNED, UNSIGNED = ["int8", "int16", "int32", "int64"], ["uint8", "uint16", "uint32", "uint64"]


def standard(a: str, b: str) -> str | None:
    """The promotion table of the Python array API standard, where it has an entry."""
    for kind in (SIGNED, UNSIGNED, ["float32", "float64"]):
        if a in kind and b in kind:
            return max(a, b, key=kind.index)
    if {a, b} == {"bool"}:
        return "bool"
    if a in UNSIGNED and b in SIGNED:
        a, b = b, a
    if a in SIGNED and b in UNSIGNED:
        wide = max(SIGNED.index(a), UNSIGNED.index(b) + 1)
        return SIGNED[wide] if wide < 4 else "error"
    return None


@pytest.mark.parametrize("a", NAMES)
def test_promotion_follows_the_standard(a: str) -> None:
    for b in NAMES:
        want = standard(a, b)
        left, right = ek.ones((2,), dtype=a), ek.ones((), dtype=b)
        if want == "error":
            with pytest.raises(ek.DTypeError, match="no common dtype"):
                ek.maximum(left, right)
            continue
        got, back = ek.maximum(left, right).dtype, ek.maximum(right, left).dtype
        assert got is back, f"{a}, {b}"
        if want is not None:
            assert got.name == want, f"{a}, {b}"
        elif a == "bool" or b == "bool":
            assert got.name == (b if a == "bool" else a)
        else:
            assert got.is_float


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_python_numbers_are_weak(dtype: DType) -> None:
    t = ek.ones((2,), dtype=dtype)
    assert ek.maximum(t, 1.0).dtype is (dtype if dtype.is_float else float32)
    assert ek.maximum(t, 1).dtype is (int64 if dtype is bool_ else dtype)
    assert ek.maximum(t, True).dtype is dtype
    assert ek.maximum(1, t).dtype is ek.maximum(t, 1).dtype
    strong = ek.maximum(t, np.float64(1)) if dtype.is_float else None
    assert strong is None or strong.dtype == "float64"


def test_numbers_that_do_not_fit_are_refused() -> None:
    t = ek.ones((2,), dtype="uint8")
    for number in (-1, 256, 1 << 70):
        with pytest.raises(ek.DTypeError, match="does not fit"):
            t + number


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1.5, "float32"), (3, "int64"), (True, "bool"), ([1, 2.5], "float32"), ([1, 2], "int64"),
        ([[True]], "bool"), ([], "float32"), (np.float64(1), "float64"), (np.arange(3), "int64"),
        (np.ones(2, np.float16), "float16"), ([np.float64(1)], "float64"), ((1, (2)), "int64"),
    ],
)  # fmt: skip
def test_dtypes_of_new_arrays(value: Any, dtype: str) -> None:
    assert ek.asarray(value).dtype == dtype


# -- recording and backward ------------------------------------------------------------------------


def test_only_what_depends_on_something_tracked_is_recorded() -> None:
    w, c = ek.Parameter(X), ek.asarray(X)
    assert (w + c).requires_grad
    assert not (c + c).requires_grad
    assert not (w.detach() + c).requires_grad
    assert not leaf(X).requires_grad
    assert not ek.asarray(w.value).requires_grad
    with ek.no_grad():
        t = w + c
        assert not t.requires_grad
    assert not (t + 1).requires_grad
    with pytest.raises(ek.StateError, match="depends on nothing tracked"):
        (c + c).sum().backward()


def test_what_was_detached_keeps_no_recording_alive() -> None:
    w = ek.Parameter(X)
    t = ek.exp(w)
    alive = weakref.ref(t._record)
    kept = [t.detach(), ek.asarray(t.numpy())]
    del t
    gc.collect()
    assert alive() is None
    assert_same_bits(kept[0].numpy(), kept[1].numpy())


def test_gradients_accumulate_on_leaves_only() -> None:
    w = ek.Parameter(X)
    assert w.grad is None
    (w * w).sum().backward()
    assert_same_bits(w.grad.numpy(), 2 * X)
    (w * 3).sum().backward()
    assert_same_bits(w.grad.numpy(), 2 * X + 3)
    assert not w.grad.requires_grad
    w.zero_grad()
    assert w.grad is None
    with pytest.raises(ek.ShapeError):
        w.grad = ek.ones((2,))


def test_backward_needs_a_scalar_or_a_gradient() -> None:
    w = ek.Parameter(X)
    with pytest.raises(ek.ShapeError, match=r"needs a scalar, got f32\[3,4\]"):
        (w * 2).backward()
    (w * 2).backward(X)
    assert_same_bits(w.grad.numpy(), 2 * X)
    for bad, error in ((X.T, ek.ShapeError), (1.0, ek.ShapeError)):
        with pytest.raises(error, match="gradient of"):
            (w * 2).backward(bad)
    with pytest.raises(ek.DTypeError, match="floating-point"):
        (w > 0).any().backward()


def test_a_second_backward_names_retain_graph() -> None:
    w = ek.Parameter(X)
    h = ek.exp(w)
    loss = h.sum()
    loss.backward(retain_graph=True)
    loss.backward()
    for again in (loss, h.mean(), loss + 1):
        with pytest.raises(ek.StateError, match=r"backward\(retain_graph=True\)"):
            again.backward()
    assert_same_bits(w.grad.numpy(), np.asarray(ek.exp(w.detach())) * 2)
    assert_same_bits(h.numpy(), np.asarray(ek.exp(w.detach())))  # values outlive the recording


def test_a_recording_uses_the_values_it_saw() -> None:
    w = ek.Parameter(X)
    loss = (w * w).sum()
    w.value = X * 100
    loss.backward()
    assert_same_bits(w.grad.numpy(), 2 * X)


def test_the_graph_recorded_so_far() -> None:
    w = ek.Parameter(X, name="w")
    text = str((ek.tanh(w @ X.T) * 2).sum().graph())
    for op in ("dot", "tanh", "mul", "sum"):
        assert op in text
    assert str(ek.parse(text)) == text


def test_gradients_meet_where_a_leaf_is_used_twice() -> None:
    w = ek.Parameter(X)
    a = w * 2
    b = a * w + ek.sin(a) + w.sum()
    (b * a).mean().backward()
    x = X.astype(np.float64)
    want, h, eps = np.zeros_like(x), np.zeros_like(x), 1e-6

    def f(x: Any) -> float:
        a = x * 2
        return float(((a * x + np.sin(a) + x.sum()) * a).mean())

    for at in np.ndindex(*x.shape):
        h[at] = eps
        want[at] = (f(x + h) - f(x - h)) / (2 * eps)
        h[at] = 0
    np.testing.assert_allclose(w.grad.numpy(), want, rtol=2e-4, atol=1e-5)


def test_value_and_grad_and_its_targets() -> None:
    w, b = ek.Parameter(X), ek.Parameter(1.0)

    def fn(x: Any, y: Any) -> Any:
        return (w * x["k"] + b * y).sum()

    args = ({"k": X + 1, "l": (X,)}, X)
    value, (gx, gy) = ek.value_and_grad(fn, (0, 1))(*args)
    assert_same_bits(gx["k"].numpy(), X)
    assert_same_bits(gx["l"][0].numpy(), np.zeros_like(X))
    assert_same_bits(gy.numpy(), np.ones_like(X))
    assert not value.requires_grad
    grads = ek.grad(fn, {"w": w, "b": [b]})(*args)
    assert_same_bits(grads["w"].numpy(), X + 1)
    assert (w.grad, b.grad) == (None, None)
    (_, extra), grad = ek.value_and_grad(lambda x: ((x * x).sum(), "more"), has_aux=True)(X)
    assert extra == "more"
    assert_same_bits(grad.numpy(), 2 * X)
    for wrt, error in ((7, "wrt=7"), (True, "wrt"), ("w", "wrt"), (None, "wrt")):
        with pytest.raises(ek.EinkornError, match=error):
            ek.grad(fn, wrt)(*args)
    with pytest.raises(ek.DTypeError, match="integers and bool have no gradient"):
        ek.grad(lambda x: x.sum())(np.arange(3))
    with pytest.raises(ek.EinkornError, match="not trainable"):
        ek.grad(fn, leaf(X))(*args)


# -- size ------------------------------------------------------------------------------------------


def test_a_chain_of_50000_ops_differentiates() -> None:
    start = time.perf_counter()
    w = ek.Parameter(np.float32(0.5))
    t = w
    for _ in range(25_000):
        t = t * 0.999 + w
    t.backward()
    assert np.isfinite(w.grad.item())
    del t
    gc.collect()
    assert time.perf_counter() - start < 60


def _rss() -> float:
    """Megabytes of memory in use now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def _growth(step: Callable[[], Any], times: int) -> float:
    for _ in range(times // 10):
        step()
    gc.collect()
    before = _rss()
    for _ in range(times):
        step()
    gc.collect()
    return _rss() - before


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@needs_proc
def test_memory_stays_flat_over_eager_steps() -> None:
    w = ek.Parameter(np.ones((20, 20), np.float32))

    def step() -> None:
        loss = ek.tanh(w @ X[:1, :1].repeat(20, 0)).sum()
        w.grad = None
        loss.backward()
        w.value = w.numpy() - 1e-3 * w.grad.numpy()

    assert _growth(step, 3000) < 20


@needs_proc
def test_memory_stays_flat_over_compiled_steps() -> None:
    w = ek.Parameter(np.ones((20, 20), np.float32))

    @ek.compile
    def step(x: Any, lr: Any) -> Any:
        value, grad = ek.value_and_grad(lambda x: ek.tanh(w @ x).sum(), w)(x)
        w.value = w - grad * lr
        return value

    x = np.ones((20, 20), np.float32)
    numbers = iter(range(10**9))
    assert _growth(lambda: step(x, 1e-3 / (1 + next(numbers))), 50_000) < 20
