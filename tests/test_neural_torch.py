"""Neural functions beside PyTorch's: values, gradients, also where functions bend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from neural_checks import compare

import einkorn as ek

torch = pytest.importorskip("torch")
F = torch.nn.functional
nn = ek.nn

Function = Callable[..., Any]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def first(f: Function) -> Function:
    """For functions of PyTorch that take channels in the second axis."""

    def last(x: Any, *rest: Any) -> Any:
        return f(x.movedim(-1, 1), *rest).movedim(1, -1)

    return last


# -- pooling ---------------------------------------------------------------------------------------

POOLS: list[tuple[int, dict[str, Any]]] = [
    (1, {"window": 2}),
    (1, {"window": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    (2, {"window": 2}),
    (2, {"window": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
    (2, {"window": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    (2, {"window": (5, 4), "stride": 1, "padding": 2}),
    (3, {"window": 2, "stride": (1, 2, 2), "padding": 1}),
]


@pytest.mark.parametrize(("rank", "options"), POOLS)
def test_pools(rank: int, options: dict[str, Any]) -> None:
    x = normal(2, *(9, 8, 5)[:rank], 3)
    window, rest = options["window"], {k: v for k, v in options.items() if k != "window"}

    def theirs(name: str, **more: Any) -> Function:
        pool = getattr(F, f"{name}_pool{rank}d")
        return first(lambda x: pool(x, window, **{**rest, **more}))

    compare(lambda x: nn.max_pool(x, window, **rest), theirs("max"), [x])
    compare(lambda x: nn.avg_pool(x, window, **rest), theirs("avg"), [x])
    compare(
        lambda x: nn.avg_pool(x, window, count_include_pad=False, **rest),
        theirs("avg", count_include_pad=False),
        [x],
    )


@pytest.mark.parametrize(("rank", "size"), [(1, 3), (2, (5, 8)), (3, (2, 3, 4))])
def test_adaptive_pools(rank: int, size: Any) -> None:
    x = normal(2, *(9, 8, 5)[:rank], 3)
    for kind in ("max", "avg"):
        ours, theirs = (
            getattr(nn, f"adaptive_{kind}_pool"),
            getattr(F, f"adaptive_{kind}_pool{rank}d"),
        )
        compare(lambda x: ours(x, size), first(lambda x: theirs(x, size)), [x])  # noqa: B023
        flat = lambda x: ours(x, size, data_format="NCHW")  # noqa: E731, B023
        compare(flat, lambda x: theirs(x, size), [normal(2, 3, *(9, 8, 5)[:rank])])  # noqa: B023


def test_ties_go_to_the_first_largest_element() -> None:
    x = np.array([1.0, 1.0, 0.0, 1.0, 2.0, 2.0, -np.inf, -np.inf, np.nan, 3.0, np.nan, 1.0])
    compare(lambda x: nn.max_pool(x, 2), first(lambda x: F.max_pool1d(x, 2)), [x.reshape(1, 12, 1)])


# -- interpolation ---------------------------------------------------------------------------------

SIZES = [(1, (7,)), (2, (9, 16)), (3, (6, 4, 9)), (2, (18, 24))]


@pytest.mark.parametrize(("rank", "size"), SIZES)
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "cubic", "area"])
def test_interpolation(rank: int, size: Any, mode: str) -> None:
    if mode == "cubic" and rank != 2:
        pytest.skip("PyTorch has it for two axes")
    x = normal(2, *(9, 8, 5)[:rank], 3)
    names = {"linear": ("linear", "bilinear", "trilinear")[rank - 1], "cubic": "bicubic"}
    name = names.get(mode, mode)
    ours = lambda x: nn.interpolate(x, size, mode=mode)  # noqa: E731
    compare(ours, first(lambda x: F.interpolate(x, size, mode=name)), [x])
    if mode in names:
        ours = lambda x: nn.interpolate(x, size, mode=name, align_corners=True)  # noqa: E731
        compare(ours, first(lambda x: F.interpolate(x, size, mode=name, align_corners=True)), [x])
    if rank != 1:
        return
    ours = lambda x: nn.interpolate(x, scale=1.7, mode=mode)  # noqa: E731
    compare(ours, first(lambda x: F.interpolate(x, scale_factor=1.7, mode=name)), [x])


# -- normalisation ---------------------------------------------------------------------------------


def test_norms() -> None:
    x, w, b = normal(4, 5, 6), normal(6), normal(6, seed=1)
    compare(nn.layer_norm, lambda x, w, b: F.layer_norm(x, (6,), w, b), [x, w, b])
    compare(nn.layer_norm, lambda x: F.layer_norm(x, (6,)), [x + 100])
    two = lambda x, w: nn.layer_norm(x, w, axes=(1, 2), eps=1e-3)  # noqa: E731
    compare(two, lambda x, w: F.layer_norm(x, (5, 6), w, eps=1e-3), [x, normal(5, 6)])
    compare(nn.rms_norm, lambda x, w: F.rms_norm(x, (6,), w, 1e-5), [x, w])
    grouped = lambda x, w, b: nn.group_norm(x, 3, w, b)  # noqa: E731
    compare(grouped, first(lambda x, w, b: F.group_norm(x, 3, w, b)), [x, w, b])
    second = lambda x, w, b: nn.group_norm(x, 3, w, b, axis=1)  # noqa: E731
    compare(second, lambda x, w, b: F.group_norm(x, 3, w, b), [normal(4, 6, 5, 7), w, b])
    compare(nn.instance_norm, first(F.instance_norm), [x])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("axis", [1, -1])
def test_batch_norm(training: bool, axis: int) -> None:
    shape = (7, 6, 5) if axis == 1 else (7, 5, 6)
    arrays = [normal(*shape), normal(6), normal(6, seed=1)]
    mean, var = normal(6, seed=2), normal(6, seed=3) ** 2
    dtype = lambda x: x.dtype.name  # noqa: E731

    def ours(x: Any, w: Any, b: Any) -> Any:
        running = (ek.asarray(mean, dtype=dtype(x)), ek.asarray(var, dtype=dtype(x)))
        return nn.batch_norm(x, *running, w, b, training=training, axis=axis)[0]

    def theirs(x: Any, w: Any, b: Any) -> Any:
        running = [torch.from_numpy(a.copy()).to(x.dtype) for a in (mean, var)]
        found = F.batch_norm(x.movedim(axis, 1), *running, w, b, training)
        return found.movedim(1, axis)

    compare(ours, theirs, arrays)
    running = [torch.from_numpy(a.copy()) for a in (mean, var)]
    F.batch_norm(torch.from_numpy(arrays[0]).movedim(axis, 1), *running, training=training)
    _, *found = nn.batch_norm(arrays[0], mean, var, training=training, axis=axis)
    for one, other in zip(found, running):
        np.testing.assert_allclose(one, other, rtol=1e-12)


# -- attention -------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
def test_attention(heads: tuple[int, int]) -> None:
    q, k, v = normal(2, heads[0], 5, 8), normal(2, heads[1], 7, 8), normal(2, heads[1], 7, 3)
    attend = F.scaled_dot_product_attention
    gqa = {"enable_gqa": heads[0] != heads[1]}
    compare(nn.attention, lambda *x: attend(*x, **gqa), [q, k, v])
    causal = lambda *x: nn.attention(*x, causal=True, scale=0.3)  # noqa: E731
    compare(causal, lambda *x: attend(*x, is_causal=True, scale=0.3, **gqa), [q, k, v])
    mask = normal(5, 7) > -0.3
    masked = lambda *x: nn.attention(*x, mask=mask)  # noqa: E731
    compare(masked, lambda *x: attend(*x, attn_mask=torch.from_numpy(mask), **gqa), [q, k, v])
    biased = lambda q, k, v, b: nn.attention(q, k, v, bias=b)  # noqa: E731
    theirs = lambda q, k, v, b: attend(q, k, v, attn_mask=b, **gqa)  # noqa: E731
    compare(biased, theirs, [q, k, v, normal(2, 1, 5, 7)])


# -- activations -----------------------------------------------------------------------------------

BENDS = np.array([-4, -3, -1, -0.5, -0.0, 0.0, 0.5, 1, 3, 6, 7, -20, 20.0, 1e-3, 100, -100])

ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "relu6": (nn.relu6, F.relu6),
    "hardtanh": (lambda x: nn.hardtanh(x, -0.5, 3.0), lambda x: F.hardtanh(x, -0.5, 3.0)),
    "hardsigmoid": (nn.hardsigmoid, F.hardsigmoid),
    "hardswish": (nn.hardswish, F.hardswish),
    "hardshrink": (nn.hardshrink, F.hardshrink),
    "softshrink": (nn.softshrink, F.softshrink),
    "tanhshrink": (nn.tanhshrink, F.tanhshrink),
    "softsign": (nn.softsign, F.softsign),
    "mish": (nn.mish, F.mish),
    "selu": (nn.selu, F.selu),
    "celu": (lambda x: nn.celu(x, 0.75), lambda x: F.celu(x, 0.75)),
    "elu": (lambda x: nn.elu(x, 0.75), lambda x: F.elu(x, 0.75)),
    "leaky_relu": (nn.leaky_relu, F.leaky_relu),
    "relu": (nn.relu, F.relu),
    "silu": (nn.silu, F.silu),
    "softplus": (nn.softplus, F.softplus),
    "log_sigmoid": (nn.log_sigmoid, F.logsigmoid),
    "gelu": (nn.gelu, F.gelu),
    "gelu tanh": (
        lambda x: nn.gelu(x, approximate="tanh"),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "threshold": (lambda x: nn.threshold(x, 1.0, 0.25), lambda x: F.threshold(x, 1.0, 0.25)),
    "clip": (lambda x: ek.clip(x, -1.0, 3.0), lambda x: x.clamp(-1.0, 3.0)),
    "clip above": (lambda x: ek.clip(x, max=3.0), lambda x: x.clamp(max=3.0)),
    "softmin": (nn.softmin, lambda x: F.softmin(x, -1)),
    "glu": (nn.glu, F.glu),
    "geglu": (nn.geglu, lambda x: x[..., :8] * F.gelu(x[..., 8:])),
    "swiglu": (nn.swiglu, lambda x: x[..., :8] * F.silu(x[..., 8:])),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    limit = 1e-7 if name == "hardsigmoid" else 1e-10  # PyTorch takes 1 / 6 in float32
    compare(*ACTIVATIONS[name], [np.stack([BENDS, 3 * normal(16)])], limit=limit)


def test_activations_of_several_operands() -> None:
    compare(nn.prelu, F.prelu, [np.stack([BENDS, normal(16)]).T.copy(), np.array([0.2, -0.7])])
    x = np.array([0.0, 0.1, 0.5, 0.9, 1.0, 0.3])
    compare(nn.logit, torch.logit, [x[1:4]])
    compare(lambda x: nn.logit(x, 0.2), lambda x: torch.logit(x, 0.2), [x])
    low, high = np.full(16, -1.0), np.full(16, 3.0)
    compare(ek.clip, torch.clamp, [BENDS, low, high])


# -- losses ----------------------------------------------------------------------------------------

SIGNS = np.array([1.0, -1, 1, 1, -1, -1])
PAIR = [normal(6), np.round(normal(6, seed=1), 1)]
ROWS = [normal(6, 4, seed=k) for k in range(3)]
UNIT = np.random.default_rng(0).uniform(0.02, 0.98, (2, 6))
LABELS = np.array([1, 0, 3, 3, 2, 1])

LOSSES: dict[str, tuple[Function, Function, list[Any]]] = {
    "l1": (nn.l1_loss, F.l1_loss, [PAIR[0], np.where(SIGNS > 0, PAIR[0], PAIR[1])]),
    "mse": (nn.mse_loss, F.mse_loss, PAIR),
    "huber": (
        lambda a, b, **k: nn.huber_loss(a, b, delta=0.5, **k),
        lambda a, b, **k: F.huber_loss(a, b, delta=0.5, **k),
        [np.array([0.0, 0.5, -0.5, 3, 0.2, -9]), np.zeros(6)],
    ),
    "smooth_l1": (
        lambda a, b, **k: nn.smooth_l1_loss(a, b, beta=0.5, **k),
        lambda a, b, **k: F.smooth_l1_loss(a, b, beta=0.5, **k),
        [np.array([0.0, 0.5, -0.5, 3, 0.2, -9]), np.zeros(6)],
    ),
    "bce": (nn.binary_cross_entropy, F.binary_cross_entropy, [UNIT[0], UNIT[1]]),
    "bce weighted": (
        lambda a, b, w, **k: nn.binary_cross_entropy(a, b, weight=w, **k),
        lambda a, b, w, **k: F.binary_cross_entropy(a, b, w.detach(), **k),
        [UNIT[0], UNIT[1]],
    ),
    "bce logits": (
        nn.binary_cross_entropy_with_logits,
        F.binary_cross_entropy_with_logits,
        [np.array([-90.0, 90, 0, 1, -1, 3]), UNIT[1]],
    ),
    "bce pos_weight": (
        lambda a, b, **k: nn.binary_cross_entropy_with_logits(a, b, pos_weight=2.5, **k),
        lambda a, b, **k: F.binary_cross_entropy_with_logits(
            a, b, pos_weight=torch.tensor(2.5, dtype=a.dtype), **k
        ),
        [np.array([-90.0, 90, 0, 1, -1, 3]), UNIT[1]],
    ),
    "kl": (nn.kl_div, F.kl_div, [np.log(UNIT[0]), UNIT[1]]),
    "kl log": (
        lambda a, b, **k: nn.kl_div(a, b, log_target=True, **k),
        lambda a, b, **k: F.kl_div(a, b, log_target=True, **k),
        [np.log(UNIT[0]), np.log(UNIT[1])],
    ),
    "poisson": (nn.poisson_nll_loss, F.poisson_nll_loss, [normal(6), np.arange(6.0)]),
    "poisson full": (
        lambda a, b, **k: nn.poisson_nll_loss(a, b, log_input=False, full=True, **k),
        lambda a, b, **k: F.poisson_nll_loss(a, b.detach(), log_input=False, full=True, **k),
        [UNIT[0], UNIT[1]],
    ),
    "gaussian": (nn.gaussian_nll_loss, F.gaussian_nll_loss, [*PAIR, UNIT[0]]),
    "hinge_embedding": (nn.hinge_embedding_loss, F.hinge_embedding_loss, [PAIR[0], SIGNS]),
    "soft_margin": (nn.soft_margin_loss, F.soft_margin_loss, [PAIR[0], SIGNS]),
    "ranking": (nn.margin_ranking_loss, F.margin_ranking_loss, [*PAIR, SIGNS]),
    "cosine": (
        lambda a, b, y, **k: nn.cosine_embedding_loss(a, b, y, margin=0.1, **k),
        lambda a, b, y, **k: F.cosine_embedding_loss(a, b, y, margin=0.1, **k),
        [*ROWS[:2], SIGNS],
    ),
    "triplet": (nn.triplet_margin_loss, F.triplet_margin_loss, ROWS),
    "triplet swap": (
        lambda *x, **k: nn.triplet_margin_loss(*x, swap=True, **k),
        lambda *x, **k: F.triplet_margin_loss(*x, swap=True, **k),
        ROWS,
    ),
    "cross entropy": (nn.cross_entropy, F.cross_entropy, [ROWS[0], LABELS]),
    "cross entropy smoothed": (
        lambda a, b, **k: nn.cross_entropy(a, b, label_smoothing=0.2, ignore_index=3, **k),
        lambda a, b, **k: F.cross_entropy(a, b, label_smoothing=0.2, ignore_index=3, **k),
        [ROWS[0], LABELS],
    ),
    "nll": (
        lambda a, b, **k: nn.nll_loss(a, b, ignore_index=3, **k),
        lambda a, b, **k: F.nll_loss(a, b, ignore_index=3, **k),
        [ROWS[0], LABELS],
    ),
}
FIXED_TARGET = {
    "soft_margin",
    "bce weighted",
    "poisson full",
    "hinge_embedding",
    "ranking",
    "cosine",
}


@pytest.mark.filterwarnings("ignore:reduction")  # that "mean" is not "batchmean"
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    for reduction in ("none", "mean"):
        _compare_losses(name, reduction)


def _compare_losses(name: str, reduction: str) -> None:
    ours, theirs, arrays = LOSSES[name]
    given = [a.copy() for a in arrays]
    fixed: list[Any] = []
    if name in FIXED_TARGET:  # a target of signs or counts is not differentiated by
        fixed = [given.pop()]
    if name == "bce weighted":
        fixed = [*fixed, UNIT[1] + 1]

    def mine(*x: Any) -> Any:
        rest = [a.astype(x[0].dtype.name) for a in fixed]
        return ours(*x, *rest, reduction=reduction)

    def other(*x: Any) -> Any:
        rest = [torch.from_numpy(a).to(x[0].dtype) for a in fixed]
        return theirs(*x, *rest, reduction=reduction)

    compare(mine, other, given)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_class_weights(reduction: str, smoothing: float) -> None:
    weight = np.array([0.5, 2.0, 1.0, 3.0])
    options = {"reduction": reduction, "label_smoothing": smoothing}

    def theirs(x: Any, y: Any, **more: Any) -> Any:
        scale = torch.from_numpy(weight).to(x.dtype)
        return F.cross_entropy(x, y, weight=scale, **options, **more)

    def ours(x: Any, y: Any, **more: Any) -> Any:
        scale = weight.astype(x.dtype.name)
        return nn.cross_entropy(x, y, weight=scale, **options, **more)

    compare(ours, theirs, [ROWS[0], LABELS])
    ignoring = lambda f: lambda x, y: f(x, y, ignore_index=1)  # noqa: E731
    compare(ignoring(ours), ignoring(theirs), [ROWS[0], LABELS])
    soft = np.random.default_rng(1).dirichlet(np.ones(4), 6)
    compare(ours, theirs, [ROWS[0], soft])


def test_similarity() -> None:
    a, b = normal(3, 4), normal(3, 4, seed=1)
    a[1] = 0
    compare(nn.cosine_similarity, lambda x, y: F.cosine_similarity(x, y, -1), [a, b])
    first_axis = lambda x, y: nn.cosine_similarity(x, y, axis=0)  # noqa: E731
    compare(first_axis, lambda x, y: F.cosine_similarity(x, y, 0), [a, b])


def test_embedding() -> None:
    table, places = normal(5, 3), np.array([[1, 4], [0, 1]])
    compare(
        lambda w: nn.embedding(places, w),
        lambda w: F.embedding(torch.from_numpy(places), w),
        [table],
    )
    ours = lambda w: nn.embedding(places, w, padding_idx=1)  # noqa: E731
    compare(ours, lambda w: F.embedding(torch.from_numpy(places), w, padding_idx=1), [table])


def test_cumulative_logsumexp() -> None:
    x = np.array([[-800.0, 3, 2, 900, -np.inf, 1], normal(6)])
    ours = lambda x: nn.cumulative_logsumexp(x, axis=1)  # noqa: E731
    compare(ours, lambda x: torch.logcumsumexp(x, 1), [x])
