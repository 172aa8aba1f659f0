"""Draws: their distributions, moments and streams, the same in every mode, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek

R = ek.random
N, M = 20_000, 6_000
Array = np.ndarray[Any, Any]
Cdf = Callable[[Array], Array]

erf = np.vectorize(math.erf)


def phi(x: Array) -> Array:
    """The distribution function of the standard normal distribution."""
    return (1 + erf(x / math.sqrt(2))) / 2


def kolmogorov_smirnov(x: Array, cdf: Cdf) -> float:
    """sqrt(n) times the largest distance; above 2.9 with a probability of 1e-7."""
    x = np.sort(np.asarray(x, np.float64).ravel())
    n, f = len(x), cdf(x)
    above, below = np.arange(1, n + 1) / n - f, f - np.arange(n) / n
    return float(max(above.max(), below.max()) * math.sqrt(n))


def laplace_cdf(x: Array) -> Array:
    return np.where(x < 0, np.exp(np.minimum(x, 0)) / 2, 1 - np.exp(-np.maximum(x, 0)) / 2)


LIMIT = 2.9
DRAWS: dict[str, tuple[Callable[..., Any], Cdf]] = {
    "uniform": (lambda **o: R.uniform((N,), -1.0, 3.0, **o), lambda x: (x + 1) / 4),
    "normal": (lambda **o: R.normal((N,), 2.0, 3.0, **o), lambda x: phi((x - 2) / 3)),
    "lognormal": (lambda **o: R.lognormal((N,), **o), lambda x: phi(np.log(x))),
    "exponential": (lambda **o: R.exponential((N,), 2.0, **o), lambda x: 1 - np.exp(-x / 2)),
    "gumbel": (lambda **o: R.gumbel((N,), **o), lambda x: np.exp(-np.exp(-x))),
    "laplace": (lambda **o: R.laplace((N,), **o), laplace_cdf),
    "logistic": (lambda **o: R.logistic((N,), **o), lambda x: 1 / (1 + np.exp(-x))),
    "cauchy": (lambda **o: R.cauchy((N,), **o), lambda x: np.arctan(x) / np.pi + 0.5),
    "pareto": (lambda **o: R.pareto(3.0, (N,), **o), lambda x: 1 - x**-3.0),
    "weibull": (
        lambda **o: R.weibull_min(2.0, 1.5, (N,), **o),
        lambda x: 1 - np.exp(-((x / 2) ** 1.5)),
    ),
    "truncated": (
        lambda **o: R.truncated_normal((N,), -1.0, 2.0, **o),
        lambda x: (phi(x) - phi(np.float64(-1))) / (phi(np.float64(2)) - phi(np.float64(-1))),
    ),
    "gamma 1": (lambda **o: R.gamma(1.0, (N,), **o), lambda x: 1 - np.exp(-x)),
    "gamma 1/2": (lambda **o: R.gamma(0.5, (N,), **o), lambda x: erf(np.sqrt(x))),
    "gamma 2": (lambda **o: R.gamma(2.0, (N,), **o), lambda x: 1 - (1 + x) * np.exp(-x)),
    "loggamma": (lambda **o: R.loggamma(1.0, (N,), **o), lambda x: 1 - np.exp(-np.exp(x))),
    "chisquare": (lambda **o: R.chisquare(2, (N,), **o), lambda x: 1 - np.exp(-x / 2)),
    "beta": (lambda **o: R.beta(0.5, 1.0, (N,), **o), np.sqrt),
    "beta arcsine": (
        lambda **o: R.beta(0.5, 0.5, (N,), **o),
        lambda x: 2 / np.pi * np.arcsin(np.sqrt(np.clip(x, 0, 1))),
    ),
    "student_t": (
        lambda **o: R.student_t(2.0, (N,), **o),
        lambda x: 0.5 + x / (2 * np.sqrt(2 + x * x)),
    ),
    "dirichlet": (
        lambda **o: R.dirichlet(np.ones(3, "float32"), (N,), **o)[:, 1],
        lambda x: 1 - (1 - x) ** 2,
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", DRAWS)
def test_continuous_draws_follow_their_distribution(name: str, dtype: str) -> None:
    draw, cdf = DRAWS[name]
    x = np.asarray(draw(key=R.key(11), dtype=dtype))
    assert x.dtype == np.dtype(dtype)
    assert np.isfinite(x).all()
    assert kolmogorov_smirnov(x, cdf) < LIMIT


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_the_single_draw_rounded_once(name: str, dtype: str) -> None:
    if name == "uniform":
        pytest.skip("it takes as many bits as the dtype has")
    half = np.asarray(DRAWS[name][0](key=R.key(5), dtype=dtype))
    wide = "float64" if name == "truncated" else "float32"
    single = DRAWS[name][0](key=R.key(5), dtype=wide).astype(dtype)
    assert half.tobytes() == np.asarray(single).tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_uniform_numbers_stay_below_their_end(dtype: str) -> None:
    for low, high in ((0.0, 1.0), (1.0, 1.5), (-3.0, 0.1), (0.0, 1e-7)):
        x = np.asarray(R.uniform((N,), low, high, dtype=dtype, key=R.key(2))).astype("float64")
        end = np.asarray(ek.asarray(high, dtype=dtype)).astype("float64")
        assert x.min() >= np.asarray(ek.asarray(low, dtype=dtype)).astype("float64")
        assert x.max() < max(end, np.finfo(np.float64).tiny)
    assert (np.asarray(R.uniform((5,), 2.0, 2.0, dtype=dtype)) == 2).all()
    wide = R.uniform((N,), dtype="float64", key=R.key(1)).numpy()
    assert np.any((wide * 2.0**32) % 1)  # more than one word's bits


# -- discrete --------------------------------------------------------------------------------------


def poisson_pmf(rate: float, k: int) -> float:
    return math.exp(k * math.log(rate) - rate - math.lgamma(k + 1))


def binomial_pmf(n: int, p: float, k: int) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


COUNTS: dict[str, tuple[Callable[..., Any], Callable[[int], float], range]] = {
    "poisson 0.3": (lambda **o: R.poisson(0.3, (N,), **o), lambda k: poisson_pmf(0.3, k), range(6)),
    "poisson 9.9": (
        lambda **o: R.poisson(9.9, (N,), **o),
        lambda k: poisson_pmf(9.9, k),
        range(30),
    ),
    "poisson 40": (lambda **o: R.poisson(40, (N,), **o), lambda k: poisson_pmf(40, k), range(90)),
    "binomial 9": (
        lambda **o: R.binomial(9, 0.7, (N,), **o),
        lambda k: binomial_pmf(9, 0.7, k),
        range(10),
    ),
    "binomial 90": (
        lambda **o: R.binomial(90, 0.4, (N,), **o),
        lambda k: binomial_pmf(90, 0.4, k),
        range(91),
    ),
    "geometric": (
        lambda **o: R.geometric(0.3, (N,), **o),
        lambda k: 0.3 * 0.7 ** (k - 1) if k else 0.0,
        range(60),
    ),
    "randint": (lambda **o: R.randint(-3, 4, (N,), **o) + 3, lambda k: 1 / 7, range(7)),
    "rademacher": (lambda **o: (R.rademacher((N,), **o) + 1) // 2, lambda k: 1 / 2, range(2)),
    "categorical": (
        lambda **o: R.categorical(np.log([0.1, 0.2, 0.7]), (N,), **o),
        lambda k: (0.1, 0.2, 0.7)[k],
        range(3),
    ),
    "choice": (
        lambda **o: R.choice(4, (N,), p=[0.1, 0.2, 0.0, 0.7], **o),
        lambda k: (0.1, 0.2, 0.0, 0.7)[k],
        range(4),
    ),
    "multinomial": (
        lambda **o: R.multinomial(20, [0.1, 0.2, 0.3, 0.4], (N,), **o)[:, 1],
        lambda k: binomial_pmf(20, 0.2, k),
        range(21),
    ),
    "permutation": (
        lambda **o: (
            R.permutation(ek.broadcast_to(ek.arange(3), (N, 3)), 1, independent=True, **o)
            @ ek.asarray([0, 1, 3])
        ),  # each of the six orders has a number of its own
        lambda k: 1 / 6 if k in (1, 2, 3, 5, 6, 7) else 0.0,
        range(8),
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_discrete_draws_follow_their_distribution(name: str) -> None:
    draw, mass, support = COUNTS[name]
    x = np.asarray(draw(key=R.key(3)))
    assert x.dtype == np.int64
    counts = np.bincount(x, minlength=len(support))
    want = np.array([mass(k) for k in support]) * N
    assert not counts[: len(want)][want == 0].any()
    assert counts.sum() == N
    often = want > 20
    z = ((counts[: len(want)] - want)[often] ** 2 / want[often]).sum()
    freedom = max(often.sum() - 1, 1)
    assert z < freedom + 6 * math.sqrt(2 * freedom) + 20  # beyond 1e-7 for every number of cells


def test_integers_are_the_upper_part_of_a_wide_product() -> None:
    words = np.asarray(R.bits((200, 4), key=R.key(9)))
    wide = [sum(int(x) << 32 * i for i, x in enumerate(row)) for row in words]
    for low, high, dtype in (
        (0, 7, "int8"),
        (-3, 2**62, "int64"),
        (-(2**63), 2**63, "int64"),
        (5, 2**64, "uint64"),
        (0, 2**64, "uint64"),
    ):
        got = np.asarray(R.randint(low, high, (200,), dtype=dtype, key=R.key(9)))
        assert got.tolist() == [low + (x * (high - low) >> 128) for x in wide]
    bounds = ek.asarray([[0], [10]]), ek.asarray([5, 17, 300])
    got = np.asarray(R.randint(bounds[0], bounds[1] + 10, key=R.key(1)))
    assert got.shape == (2, 3)
    assert ((got >= [[0], [10]]) & (got < [15, 27, 310])).all()


def test_large_means() -> None:
    for mean in (1e6, 1e15):
        x = np.asarray(R.poisson(mean, (N,), key=R.key(1)))
        assert kolmogorov_smirnov(x, lambda x, m=mean: phi((x + 0.5 - m) / math.sqrt(m))) < LIMIT
    x = np.asarray(R.binomial(10**12, 0.25, (N,), key=R.key(1)))
    spread = math.sqrt(10**12 * 0.25 * 0.75)
    assert kolmogorov_smirnov(x, lambda x: phi((x - 0.25e12) / spread)) < LIMIT
    x = np.asarray(R.gamma(1e6, (N,), key=R.key(1)), np.float64)
    assert kolmogorov_smirnov(x, lambda x: phi((x - 1e6) / 1e3)) < LIMIT
    edges = R.poisson(ek.asarray([0.0, math.inf]), key=R.key(1))
    assert edges.tolist() == [0, 2**63 - 1]
    assert R.binomial(ek.asarray([0, 5, 5]), ek.asarray([0.5, 0.0, 1.0])).tolist() == [0, 0, 5]


# -- vectors and matrices --------------------------------------------------------------------------


def test_multivariate_normal_vectors() -> None:
    cov = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.5], [0.0, 0.5, 1.5]])
    x = np.asarray(R.multivariate_normal([1.0, 2.0, 3.0], cov, (N,), key=R.key(1)))
    assert x.shape == (N, 3)
    np.testing.assert_allclose(x.mean(0), [1, 2, 3], atol=0.05)
    np.testing.assert_allclose(np.cov(x.T), cov, atol=0.1)
    flat = np.asarray(R.multivariate_normal([0.0, 0.0], np.ones((2, 2)), (50,), key=R.key(1)))
    np.testing.assert_allclose(flat[:, 0], flat[:, 1], atol=1e-6)
    assert np.isnan(np.asarray(R.multivariate_normal([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]))).any()
    many = R.multivariate_normal(np.zeros((4, 1, 3)), np.stack([cov] * 5))
    assert many.shape == (4, 5, 3)


@pytest.mark.parametrize(("n", "m"), [(1, None), (3, None), (5, 2), (2, 5)])
def test_orthogonal_matrices(n: int, m: int | None) -> None:
    q = np.asarray(R.orthogonal(n, (400,), m, dtype="float64", key=R.key(1)))
    k = min(n, m or n)
    product = q.transpose(0, 2, 1) @ q if n >= (m or n) else q @ q.transpose(0, 2, 1)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(k), product.shape), atol=1e-12)
    # Each entry of a uniform matrix has mean 0 and variance 1 / max(n, m).
    assert abs(q.mean(0)).max() < 0.3
    np.testing.assert_allclose(q.var(0), 1 / q.shape[1 if n >= (m or n) else 2], atol=0.13)


def test_choice_and_permutation_move_parts() -> None:
    x = np.arange(12).reshape(3, 4)
    mixed = np.asarray(R.permutation(x, 1, key=R.key(4)))
    assert sorted(map(tuple, mixed.T)) == sorted(map(tuple, x.T))
    rows = np.asarray(R.shuffle(x, 1, independent=True, key=R.key(4)))
    assert (np.sort(rows, 1) == x).all()
    assert sorted(R.permutation(10).tolist()) == list(range(10))
    assert R.permutation(0).shape == (0,)
    for p in (None, [0.1, 0.4, 0.2, 0.3]):
        got = np.asarray(R.choice(4, (2, 2), replace=False, p=p))
        assert sorted(got.ravel()) == [0, 1, 2, 3]
    assert R.choice(x, (5,), axis=1).shape == (3, 5)
    certain = R.choice(5, (3,), replace=False, p=[0, 0.2, 0, 0.1, 0.7])
    assert sorted(certain.tolist()) == [1, 3, 4]


# -- streams ---------------------------------------------------------------------------------------


def test_streams_are_not_correlated() -> None:
    keys = [R.key(0), R.key(1), R.key(2**63)]
    keys += R.split(keys[0], 3) + R.split(keys[1], 2)
    keys += [R.fold_in(key, k) for key in keys[:2] for k in (0, 1, 2)]
    rows = [np.asarray(R.normal((4000,), key=key)) for key in keys]
    rows.append(np.asarray(R.gamma(5.0, (4000,), key=keys[0])))
    rows.append(np.asarray(R.poisson(30.0, (4000,), key=keys[1])).astype("float32"))
    R.seed(0)
    rows += [np.asarray(R.normal((4000,))) for _ in range(3)][1:]
    matrix = np.corrcoef(rows)
    assert abs(matrix - np.eye(len(rows))).max() < 6 / math.sqrt(4000)


def test_a_number_folded_in_is_not_part_of_the_key() -> None:
    """Keys n with numbers k, of equal n ^ k, would otherwise have one stream."""
    found = {
        np.asarray(R.bits((4,), key=R.fold_in(R.key(n), k))).tobytes()
        for n in range(8)
        for k in range(8)
    }
    assert len(found) == 64


def test_an_element_does_not_depend_on_the_shape() -> None:
    rate = np.linspace(0.5, 60, 40)
    for draw in (
        lambda n: R.normal((n,), key=R.key(1)),
        lambda n: R.uniform((n,), dtype="float64", key=R.key(1)),
        lambda n: R.gamma(rate[:n], key=R.key(1)),
        lambda n: R.poisson(rate[:n], key=R.key(1)),
        lambda n: R.binomial(200, rate[:n] / 100, key=R.key(1)),
        lambda n: R.randint(0, 1000, (n,), key=R.key(1)),
        lambda n: R.beta(rate[:n], 0.3, key=R.key(1)),
    ):
        whole, part = np.asarray(draw(40)), np.asarray(draw(7))
        assert whole[:7].tobytes() == part.tobytes()


# -- modes -----------------------------------------------------------------------------------------


def everything(shape: tuple[int, ...], rate: Any) -> dict[str, Any]:
    """One draw of each kind, of the global generator."""
    return {
        "bits": R.bits(shape),
        "uniform": R.uniform(shape, -1.0, 2.0),
        "normal": R.normal(shape, dtype="float64"),
        "truncated": R.truncated_normal(shape),
        "gumbel": R.gumbel(shape, dtype="float16"),
        "laplace": R.laplace(shape),
        "gamma": R.gamma(rate, shape),
        "beta": R.beta(0.3, rate, shape),
        "student_t": R.student_t(rate, shape),
        "dirichlet": R.dirichlet(np.array([0.2, 3.0], "float32"), shape),
        "poisson": R.poisson(rate * 4, shape),
        "binomial": R.binomial(60, 0.3, shape),
        "multinomial": R.multinomial(30, [0.5, 0.5], shape),
        "geometric": R.geometric(0.2, shape),
        "randint": R.randint(-5, 1000, shape),
        "bernoulli": R.bernoulli(0.3, shape),
        "categorical": R.categorical(np.zeros(3, "float32"), shape),
        "permutation": R.permutation(9),
        "choice": R.choice(9, (4,), replace=False, p=np.ones(9)),
        "multivariate": R.multivariate_normal([0.0, 1.0], [[1.0, 0.5], [0.5, 2.0]], shape),
        "orthogonal": R.orthogonal(3),
    }


def test_every_draw_is_the_same_in_every_mode_and_takes_one_number() -> None:
    rate = ek.asarray(np.float32(2.5))
    R.seed(7)
    eager = everything((90, 3), rate)
    used = R.default_generator().draw.item()
    assert used == len(eager)
    for threads in (1, 3):
        R.seed(7)
        step = ek.compile(lambda rate: everything((90, 3), rate), threads=threads)
        compiled = step(rate)
        assert R.default_generator().draw.item() == used
        for name, want in eager.items():
            assert_same_bits(np.asarray(compiled[name]), np.asarray(want))


def test_draws_inside_of_loops_are_those_of_separate_calls() -> None:
    def step(carry: Any, x: Any) -> Any:
        value = R.gamma(x) + R.poisson(x * 20).astype("float32") + R.normal(())
        return carry + value, value

    xs = np.array([0.5, 1.0, 2.5], "float32")
    R.seed(1)
    want = [np.asarray(step(0.0, ek.asarray(x))[1]) for x in xs]
    for run in (ek.scan, ek.compile(ek.scan, name="loop")):
        R.seed(1)
        got = run(step, ek.zeros(()), xs)[1]
        assert_same_bits(np.asarray(got), np.array(want))


GOLDEN = {
    "bits": (lambda: R.bits((3,)), [1851468003, 2243411547, 3016668856]),
    "uniform": (lambda: R.uniform((3,)), [0.4310784, 0.5223349, 0.7023729]),
    "normal": (lambda: R.normal((3,)), [-1.051644, -0.4487543, -1.735556]),
    "exponential": (lambda: R.exponential((3,)), [0.5640128, 0.7388455, 1.211914]),
    "gumbel": (lambda: R.gumbel((3,)), [0.5726783, 0.3026664, -0.192201]),
    "laplace": (lambda: R.laplace((3,)), [0.5640128, -1.211914, -4.446509]),
    "logistic": (lambda: R.logistic((3,)), [-0.2774523, 0.08939934, 0.8586233]),
    "cauchy": (lambda: R.cauchy((3,)), [-0.2199716, 0.07028265, 0.7379947]),
    "truncated": (lambda: R.truncated_normal((3,)), [-0.1656545, 0.5048415, 1.825852]),
    "gamma": (lambda: R.gamma(2.5, (3,)), [3.430691, 1.711128, 2.51075]),
    "small gamma": (lambda: R.gamma(0.1, (3,)), [0.1849515, 8.570341e-08, 0.7587126]),
    "beta": (lambda: R.beta(0.5, 2.0, (3,)), [0.2626478, 0.02677928, 0.5440696]),
    "t": (lambda: R.student_t(3.0, (3,)), [-1.338595, 0.3656251, 0.8179557]),
    "poisson": (lambda: R.poisson(4.0, (3,)), [2, 1, 4]),
    "many": (lambda: R.poisson(400.0, (3,)), [404, 388, 406]),
    "binomial": (lambda: R.binomial(9, 0.3, (3,)), [1, 0, 3]),
    "trials": (lambda: R.binomial(900, 0.3, (3,)), [273, 261, 270]),
    "geometric": (lambda: R.geometric(0.1, (3,)), [6, 12, 43]),
    "randint": (lambda: R.randint(0, 1000, (3,)), [296, 818, 903]),
    "permutation": (lambda: R.permutation(6), [0, 3, 4, 1, 5, 2]),
    "choice": (lambda: R.choice(9, (3,), replace=False), [0, 3, 8]),
    "split": (
        lambda: ek.stack([x for x, _ in R.split(R.key(3), 2)]),
        [11003031229824998761, 8102834425645016306],
    ),
    "fold_in": (lambda: R.fold_in(R.key(3), 4)[0], 772290645038686749),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_streams_are_those_of_earlier_versions(name: str) -> None:
    """A change makes results of others irreproducible: it needs a reason in docs/decisions.md."""
    draw, want = GOLDEN[name]
    R.seed(2026)
    got = np.asarray(draw())
    np.testing.assert_allclose(got, np.array(want, got.dtype), rtol=1e-5 * (got.dtype.kind == "f"))


# -- gradients -------------------------------------------------------------------------------------


def numeric(fn: Callable[[float], float], x: float, h: float = 1e-5) -> float:
    return (fn(x + h) - fn(x - h)) / (2 * h)


@pytest.mark.parametrize(
    "draw",
    [
        lambda p, key: R.normal((9,), p, p * 2, dtype="float64", key=key),
        lambda p, key: R.uniform((9,), p, p * 3, dtype="float64", key=key),
        lambda p, key: R.exponential((9,), p, dtype="float64", key=key),
        lambda p, key: R.gumbel((9,), p, p * p, dtype="float64", key=key),
        lambda p, key: R.laplace((9,), p, p * 2, dtype="float64", key=key),
        lambda p, key: R.logistic((9,), p, p * 2, dtype="float64", key=key),
        lambda p, key: R.cauchy((9,), p, p * 2, dtype="float64", key=key),
        lambda p, key: R.lognormal((9,), p, p * 2, dtype="float64", key=key),
        lambda p, key: R.pareto(p, (9,), key=key),
        lambda p, key: R.weibull_min(p, p * 2, (9,), key=key),
        lambda p, key: R.truncated_normal((9,), p - 1, p, p, p * 2, dtype="float64", key=key),
    ],
)  # fmt: skip
def test_gradients_of_transformed_draws(draw: Callable[..., Any]) -> None:
    key = R.key(6)
    total = lambda p: ek.sin(draw(p, key)).sum()  # noqa: E731 - short and used three times
    p = ek.asarray(np.float64(0.7))
    got = ek.grad(total)(p)
    want = numeric(lambda x: float(total(ek.asarray(np.float64(x)))), 0.7)
    assert float(got) == pytest.approx(want, rel=1e-6, abs=1e-8)
    assert_same_bits(np.asarray(ek.compile(ek.grad(total))(p)), np.asarray(got))


def test_gradients_of_gamma_draws_move_quantiles() -> None:
    """For a = 1 the quantile is -log(1 - q); its slope by a is known from the gamma function."""
    from einkorn.random.gamma_slope import slope

    special = pytest.importorskip("scipy.special")
    q = np.array([1e-6, 1e-3, 0.1, 0.4, 0.6, 0.9, 0.999, 1 - 1e-6])
    for a in (1.0, 1.3, 2.0, 7.0, 90.0, 1999.0, 2001.0, 1e5):
        x, h = special.gammaincinv(a, q), a * 1e-4
        near = [special.gammaincinv(a + k * h, q) for k in (-2, -1, 1, 2)]
        want = (near[0] - 8 * near[1] + 8 * near[2] - near[3]) / (12 * h)
        got = slope(ek.asarray(np.full_like(x, a)), ek.asarray(x))
        np.testing.assert_allclose(np.asarray(got), want, rtol=1e-7)


MOMENTS: list[tuple[Callable[..., Any], Callable[[float], float]]] = [
    (lambda a, key: R.gamma(a, (M,), key=key) ** 2, lambda a: a * (a + 1)),
    (lambda a, key: R.gamma(a * 0.2, (M,), key=key) ** 2, lambda a: a * 0.2 * (a * 0.2 + 1)),
    (lambda a, key: R.beta(a, 2.0, (M,), dtype="float64", key=key), lambda a: a / (a + 2)),
    (lambda a, key: R.beta(0.1, a, (M,), key=key), lambda a: 0.1 / (0.1 + a)),
    (lambda a, key: R.chisquare(a, (M,), key=key) ** 2, lambda a: a * (a + 2)),
    (
        lambda a, key: R.dirichlet(ek.stack([a, a * 0 + 1]), (M,), key=key)[:, 0],
        lambda a: a / (a + 1),
    ),
]


@pytest.mark.parametrize("case", MOMENTS)
def test_gradients_of_means_are_means_of_gradients(case: Any) -> None:
    draw, moment = case
    loss = lambda a: draw(a, R.key(8)).astype("float64").mean()  # noqa: E731 - used twice
    a = ek.asarray(np.float64(1.4))
    got = ek.grad(loss)(a)
    assert float(got) == pytest.approx(numeric(moment, 1.4), rel=0.1)
    assert_same_bits(np.asarray(ek.compile(ek.grad(loss))(a)), np.asarray(got))
    along = ek.jvp(loss, (a,), (ek.asarray(np.float64(1)),))[1]
    assert float(along) == pytest.approx(float(got), rel=1e-9)


def test_a_second_derivative_of_a_gamma_draw_is_refused() -> None:
    first = ek.grad(lambda a: R.gamma(a, (3,), key=R.key(1)).sum())
    with pytest.raises(ek.StateError, match="no gradient"):
        ek.grad(first)(ek.asarray(2.0))
