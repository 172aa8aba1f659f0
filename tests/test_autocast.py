"""Mixed precision: what autocast casts, in every mode, and steps with a loss scaler."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.functions.linear_algebra import linear

X = np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(3, 4)
LABELS = np.array([0, 3, 1])

LOW: dict[str, Callable[[Any], Any]] = {
    "matmul": lambda x: ek.matmul(x, x.T),
    "operator @": lambda x: x @ x.T,
    "linear": lambda x: linear(x, x, x[:, 0]),
    "tensordot": lambda x: ek.tensordot(x, x.T, axes=1),
    "vecdot": lambda x: ek.vecdot(x, x),
    "einsum": lambda x: ek.einsum("ij,kj->ik", x, x),
    "conv": lambda x: ek.nn.conv(x.reshape(1, 3, 4, 1), x.reshape(1, 3, 4, 1)),
    "attention": lambda x: ek.nn.attention(x, x, x),
}
SINGLE: dict[str, Callable[[Any], Any]] = {
    **{
        name: getattr(ek, name)
        for name in (
            "exp expm1 log log1p log2 log10 rsqrt tan asin acos sinh cosh reciprocal "
            "sum prod mean var std logsumexp"
        ).split()
    },
    "pow": lambda x: x**0.3,
    "pow of a tensor": lambda x: ek.pow(2.0, x),
    "integer power": lambda x: x**2,
    "softmax": lambda x: ek.nn.softmax(x),
    "log_softmax": lambda x: ek.nn.log_softmax(x, axis=0),
    "softplus": lambda x: ek.nn.softplus(x),
    "cumulative_sum": lambda x: ek.cumulative_sum(x, axis=1),
    "cumulative_prod": lambda x: ek.cumulative_prod(x, axis=1),
    "logaddexp": lambda x: ek.logaddexp(x, x),
    "erfinv": lambda x: ek.special.erfinv(x),
    "gammaln": lambda x: ek.special.gammaln(x),
    "logit": lambda x: ek.special.logit(x),
    "xlogy": lambda x: ek.special.xlogy(x, x),
    "cross_entropy": lambda x: ek.nn.cross_entropy(x, LABELS),
    "layer_norm": lambda x: ek.nn.layer_norm(x, ek.ones(4), ek.zeros(4)),
    "rms_norm": lambda x: ek.nn.rms_norm(x),
    "group_norm": lambda x: ek.nn.group_norm(x, 2),
    "vector_norm": lambda x: ek.linalg.vector_norm(x, axis=0),
    "cosine_similarity": lambda x: ek.nn.cosine_similarity(x, x),
    "huber_loss": lambda x: ek.nn.huber_loss(x, x * 0),
    "kl_div": lambda x: ek.nn.kl_div(x, x),
    "mse_loss": lambda x: ek.nn.mse_loss(x, x * 2),
    "method sum": lambda x: x.sum(axis=0),
    "method exp": lambda x: x.exp(),
}
WIDEST: dict[str, Callable[[Any], Any]] = {
    "add": lambda x: x + x,
    "multiply": lambda x: x * 2.5,
    "divide": lambda x: x / x,
    "tanh": ek.tanh,
    "sqrt": ek.sqrt,
    "sigmoid": lambda x: ek.nn.sigmoid(x),
    "gelu": lambda x: ek.nn.gelu(x),
    "max": lambda x: ek.max(x, axis=0),
    "where": lambda x: ek.where(x > 0.5, x, 0),
    "sort": ek.sort,
    "concat": lambda x: ek.concat([x, x]),
}


@pytest.mark.parametrize("low", [ek.bfloat16, ek.float16], ids=str)
@pytest.mark.parametrize("given", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", [*LOW, *SINGLE, *WIDEST])
def test_what_each_function_computes_in(name: str, given: str, low: Any) -> None:
    function = {**LOW, **SINGLE, **WIDEST}[name]
    x = ek.asarray(X).astype(given)
    own = low if name in LOW else ek.float32 if name in SINGLE else x.dtype
    with ek.autocast(low):
        got = function(x)
    assert got.dtype == own
    # The same as casting by hand: the result of one rounding of the operands.
    want = function(x if name in WIDEST else x.astype(own))
    assert_same_bits(np.asarray(got), np.asarray(want))
    with ek.autocast(low), ek.autocast(enabled=False):
        assert function(x).dtype == function(x.astype(given)).dtype == given


def test_float64_integers_and_masks_are_left_alone() -> None:
    wide, whole = ek.asarray(X.astype("float64")), ek.arange(4)
    with ek.autocast():
        assert (wide @ wide.T).dtype == ek.float64
        assert ek.exp(wide).dtype == ek.float64
        assert (whole @ whole).dtype == ek.int64
        assert ek.sum(whole > 1).dtype == ek.int64
        assert (ek.asarray(X).astype("bfloat16") + ek.asarray(X)).dtype == ek.float32


def network(w: Any, v: Any, x: Any) -> Any:
    hidden = ek.tanh(x @ w)
    return ek.nn.softmax(hidden @ v).sum(axis=0) @ ek.ones(2)


@pytest.mark.parametrize("low", ["bfloat16", "float16"])
def test_eager_and_compiled_have_the_same_bits_and_gradients_their_dtype(low: str) -> None:
    random = np.random.default_rng(0)
    w, v = (ek.Parameter(random.normal(size=s).astype("float32")) for s in ((4, 6), (6, 2)))

    def loss(x: Any) -> Any:
        return (network(w, v, x).astype("float32") ** 2).sum()

    both = ek.value_and_grad(loss, [w, v])
    with ek.autocast(low):
        eager, compiled = both(X), ek.compile(both)(X)
        outside = ek.autocast(low)(ek.compile(both))(X)
    inside = ek.compile(lambda x: ek.autocast(low)(both)(x))(X)
    plain = both(X)
    for found in (compiled, inside, outside):
        assert_same_bits(np.asarray(found[0]), np.asarray(eager[0]))
        for a, b in zip(found[1], eager[1]):
            assert a.dtype == ek.float32
            assert_same_bits(np.asarray(a), np.asarray(b))
    for a, b in zip(plain[1], eager[1]):
        assert not np.array_equal(np.asarray(a), np.asarray(b))
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=0.05)


def test_another_state_is_traced_once_and_says_why() -> None:
    step = ek.compile(lambda x: x @ x.T, name="step")
    for _ in range(3):
        assert step(X).dtype == ek.float32
        with ek.autocast():
            assert step(X).dtype == ek.bfloat16
        with ek.autocast("float16"):
            assert step(X).dtype == ek.float16
    text = str(step.explain())
    assert "step: 3 traces" in text
    assert "trace because: autocast was off" in text
    # What opens a block itself, or does not ask, holds in every state.
    for fn in (lambda x: ek.autocast()(ek.matmul)(x, x.T), lambda x: x + 1):
        own = ek.compile(fn, name="own")
        first = own(X)
        with ek.autocast("float16"):
            assert own(X).dtype == first.dtype
        assert "own: 1 traces" in str(own.explain())


def test_nested_functions_transforms_and_loops_follow_the_block() -> None:
    inner = ek.compile(lambda x: x @ x.T)
    outer = ek.compile(lambda x: ek.autocast()(inner)(x), name="outer")
    assert outer(X).dtype == outer(X).dtype == ek.bfloat16
    assert "outer: 1 traces" in str(outer.explain())
    assert inner(X).dtype == ek.float32
    with ek.autocast():
        assert ek.vmap(lambda row: row @ row)(X).dtype == ek.bfloat16
        looped = ek.scan(lambda c, row: (c, row @ row), ek.zeros(()), X)[1]
        assert looped.dtype == ek.bfloat16
        again = ek.grad(lambda x: ek.checkpoint(inner)(x).sum())(ek.asarray(X))
        assert again.dtype == ek.float32
        # Draws do not lose digits to it.
        drawn = ek.random.orthogonal(3, key=ek.random.key(1))
    want = ek.random.orthogonal(3, key=ek.random.key(1))
    assert_same_bits(np.asarray(drawn), np.asarray(want))


def test_a_block_ends_with_an_error_and_is_of_its_thread() -> None:
    seen: list[Any] = []

    @ek.autocast()
    def fails() -> None:
        thread = threading.Thread(target=lambda: seen.append((ek.asarray(X) @ X.T).dtype))
        thread.start()
        thread.join()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen == [ek.float32]
    assert (ek.asarray(X) @ X.T).dtype == ek.float32

    @ek.autocast("float16")
    def recursive(n: int) -> Any:
        return recursive(n - 1) if n else (ek.asarray(X) @ X.T).dtype

    assert recursive(3) == ek.float16
    assert (ek.asarray(X) @ X.T).dtype == ek.float32


def test_bad_arguments_are_refused() -> None:
    for dtype in ("float32", "int8"):
        with pytest.raises(ek.DTypeError, match="float16 or bfloat16"):
            ek.autocast(dtype)
    with pytest.raises(ek.DTypeError, match="enabled"):
        ek.autocast("float16", enabled=1)  # type: ignore[arg-type] # on purpose
    for scale in (0.0, -1.0, float("nan"), float("inf"), "1", True):
        with pytest.raises(ek.EinkornError, match="scale is a number"):
            ek.optim.LossScaler(scale)  # type: ignore[arg-type] # on purpose
    with pytest.raises(ek.EinkornError, match="growth_factor is at least 1"):
        ek.optim.LossScaler(growth_factor=0.5)
    with pytest.raises(ek.EinkornError, match="backoff_factor is at least 0 and below 1"):
        ek.optim.LossScaler(backoff_factor=1.0)
    scaler = ek.optim.LossScaler()
    with pytest.raises(ek.DTypeError, match="a loss is a float"):
        scaler.scale(3)
    with pytest.raises(ek.EinkornError, match="no gradients"):
        scaler.unscale({})
    with pytest.raises(ek.DTypeError, match="needs one bool"):
        scaler.update(ek.asarray([True]))
    optimizer = ek.optim.SGD(ek.Parameter([1.0]), 0.1)
    with pytest.raises(ek.DTypeError, match="when is one bool"):
        optimizer.step([ek.asarray([1.0])], when=1.0)
    with pytest.raises(ek.StateError, match="found no gradient"):
        scaler.step(optimizer)


# -- training --------------------------------------------------------------------------------------


class Network(ek.Module):
    """Two layers."""

    def __init__(self) -> None:
        self.first = ek.nn.Linear(8, 24)
        self.last = ek.nn.Linear(24, 1)

    def forward(self, x: Any) -> Any:
        return self.last(ek.tanh(self.first(x)))


def train(low: str | None, compiled: bool, steps: int = 120) -> tuple[float, list[Any], Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 8)).astype("float32")
    y = np.sin(x @ random.normal(size=(8, 1))).astype("float32")
    ek.random.seed(0)
    model, scaler = Network(), ek.optim.LossScaler(growth_interval=25)
    optimizer = ek.optim.Adam(model, 1e-2)

    def step(x: Any, y: Any) -> Any:
        with ek.autocast(low or "float16", enabled=low is not None):
            fn = ek.value_and_grad(lambda: scaler.scale(ek.nn.mse_loss(model(x), y)), model)
            loss, grads = fn()
        factor = scaler.current.value
        scaler.step(optimizer, grads)
        return loss / factor

    run = ek.compile(step, name="step") if compiled else step
    loss = [float(run(x, y)) for _ in range(steps)][-1]
    if compiled:
        assert "step: 1 traces" in str(run.explain())
    return loss, [*model.parameters(), *scaler._leaves().values()], scaler


@pytest.mark.parametrize("low", ["bfloat16", "float16"])
def test_training_in_a_half_type_reaches_the_loss_of_float32(low: str) -> None:
    full, _, _ = train(None, compiled=True)
    loss, leaves, scaler = train(low, compiled=True)
    assert full < 0.05
    assert loss < 1.3 * full + 0.002
    assert scaler.current.item() > 2.0**16
    eager_loss, eager, _ = train(low, compiled=False, steps=120)
    assert eager_loss == loss
    for a, b in zip(leaves, eager):
        assert_same_bits(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("compiled", [False, True])
def test_steps_that_are_not_finite_change_nothing_but_the_scale(compiled: bool) -> None:
    w = ek.Parameter(np.ones(3, "float32"))
    optimizer = ek.optim.Adam([w], 0.1)
    scaler = ek.optim.LossScaler(8.0, growth_interval=2)

    def step(x: Any) -> Any:
        grads = ek.grad(lambda: scaler.scale((w * x).sum()), [w])()
        return scaler.step(optimizer, grads)

    run = ek.compile(step, name="step") if compiled else step
    rows = []
    for x in (1.0, np.inf, 1.0, 1.0, 1.0, 1.0, np.nan):
        before = [np.array(leaf) for leaf in (w, *optimizer.state.to_flat_list())]
        good = run(np.full(3, x, "float32")).item()
        after = [np.array(leaf) for leaf in (w, *optimizer.state.to_flat_list())]
        assert good == np.isfinite(x)
        assert good != all(np.array_equal(a, b) for a, b in zip(before, after))
        rows.append(scaler.current.item())
    assert rows == [8.0, 4.0, 4.0, 8.0, 8.0, 16.0, 8.0]
    assert optimizer.state["count"].item() == 5
    if compiled:
        assert "step: 1 traces" in str(run.explain())


def test_the_scale_is_saved_and_gradients_of_leaves_are_used() -> None:
    w = ek.Parameter(np.ones(2, "float16"))
    optimizer = ek.optim.SGD(w, 100.0)
    scaler = ek.optim.LossScaler(2.0**12)
    scaler.scale((w.astype("float32") * 1e-5).sum()).backward()
    assert scaler.step(optimizer).item()
    assert w.value[0] < 1
    other = ek.optim.LossScaler()
    other.load_state_dict(scaler.state_dict())
    assert repr(other) == "LossScaler(scale=4096)"
    assert other.good_steps.item() == 1
    grads, finite = scaler.unscale({"a": ek.asarray([4096.0]), "b": [ek.asarray([np.nan])]})
    assert grads["a"].tolist() == [1.0]
    assert not finite.item()


def test_the_document_lists_every_function() -> None:
    text = (Path(__file__).parents[1] / "docs" / "mixed_precision.md").read_text(encoding="utf-8")
    names = [name for name in (*LOW, *SINGLE) if " " not in name and "loss" not in name]
    missing = [name for name in names if f"`{name}`" not in text and f".{name}`" not in text]
    assert missing == ["cross_entropy", "kl_div"]  # two of "all losses"
