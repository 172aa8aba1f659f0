"""Draws refuse bad parameters by name, and a refused draw takes no number of the generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einkorn as ek

R = ek.random
NAN = math.nan

REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: R.uniform((2,), 2.0, 1.0), ek.EinkornError, "low <= high"),
    (lambda: R.uniform((2,), -3e38, 3e38), ek.EinkornError, "larger than every float32"),
    (lambda: R.uniform((2,), math.inf, math.inf), ek.EinkornError, "finite"),
    (lambda: R.uniform((2,), dtype="int32"), ek.DTypeError, "uniform: a floating-point dtype"),
    (lambda: R.uniform((2,), np.zeros(3), 1.0), ek.ShapeError, r"low f32\[3\] does not broadcast"),
    (lambda: R.normal((2,), std=-1.0), ek.EinkornError, "normal: std must be at least 0, got -1"),
    (lambda: R.normal((2,), mean=True), ek.DTypeError, "mean is a number"),
    (lambda: R.normal((-2,)), ek.ShapeError, "negative"),
    (lambda: R.normal((1 << 62,)), ek.ShapeError, "too large"),
    (lambda: R.normal((2,), key=3), ek.DTypeError, "normal: a key is made by"),
    (lambda: R.lognormal((2,), 0.0, -1.0), ek.EinkornError, "lognormal: std"),
    (lambda: R.exponential((2,), -1.0), ek.EinkornError, "exponential: scale"),
    (lambda: R.exponential((2,), np.array([1.0, NAN])), ek.EinkornError, "exponential: scale"),
    (lambda: R.gumbel((2,), scale=-1), ek.EinkornError, "gumbel: scale"),
    (lambda: R.laplace((2,), scale=-1), ek.EinkornError, "laplace: scale"),
    (lambda: R.logistic((2,), scale=-1), ek.EinkornError, "logistic: scale"),
    (lambda: R.cauchy((2,), scale=-1), ek.EinkornError, "cauchy: scale"),
    (lambda: R.truncated_normal((2,), 1.0, 1.0), ek.EinkornError, "low is less than high"),
    (lambda: R.truncated_normal((2,), std=-1), ek.EinkornError, "truncated_normal: std"),
    (lambda: R.pareto(0.0), ek.EinkornError, "pareto: b must be above 0, got 0.0"),
    (lambda: R.weibull_min(1.0, 0.0), ek.EinkornError, "weibull_min: concentration"),
    (lambda: R.gamma(0.0), ek.EinkornError, "gamma: a must be above 0"),
    (lambda: R.gamma(np.array([1.0, -1.0])), ek.EinkornError, "gamma: a must be above 0"),
    (lambda: R.gamma(1.0, scale=0.0), ek.EinkornError, "gamma: scale"),
    (lambda: R.gamma("a"), ek.DTypeError, "gamma"),
    (lambda: R.gamma(np.ones(3), (2,)), ek.ShapeError, "gamma: a "),
    (lambda: R.loggamma(-1.0), ek.EinkornError, "loggamma: a"),
    (lambda: R.beta(1.0, NAN), ek.EinkornError, "beta: b"),
    (lambda: R.beta(np.ones(2), np.ones(3)), ek.ShapeError, "beta: .* do not broadcast"),
    (lambda: R.chisquare(0), ek.EinkornError, "chisquare: df"),
    (lambda: R.student_t(0), ek.EinkornError, "student_t: df"),
    (lambda: R.dirichlet(1.0), ek.ShapeError, "dirichlet: alpha has a last axis"),
    (lambda: R.dirichlet(np.array([1.0, 0.0])), ek.EinkornError, "dirichlet: alpha"),
    (lambda: R.bernoulli(1.5), ek.EinkornError, "p must be between 0 and 1, got 1.5"),
    (lambda: R.bernoulli(np.ones(3), ()), ek.ShapeError, "bernoulli: p"),
    (lambda: R.rademacher((2,), dtype="uint8"), ek.DTypeError, "uint8 has no -1"),
    (lambda: R.rademacher((2,), dtype="bool"), ek.DTypeError, "bool has no -1"),
    (lambda: R.randint(3, 3), ek.EinkornError, "low < high, got 3 and 3"),
    (lambda: R.randint(np.array([1, 5]), 4), ek.EinkornError, "low < high"),
    (lambda: R.randint(0, 257, dtype="uint8"), ek.DTypeError, "high 256 does not fit uint8"),
    (lambda: R.randint(-1, 5, dtype="uint8"), ek.DTypeError, "low -1 does not fit uint8"),
    (lambda: R.randint(0, 2**63 + 1), ek.DTypeError, "does not fit int64"),
    (lambda: R.randint(0.5, 3), ek.DTypeError, "integers"),
    (lambda: R.randint(np.ones(2), 3), ek.DTypeError, "integers"),
    (lambda: R.randint(0, 3, dtype="float32"), ek.DTypeError, "an integer dtype is needed"),
    (lambda: R.geometric(0.0), ek.EinkornError, "geometric: p"),
    (lambda: R.categorical(np.array([1, 2])), ek.DTypeError, "logits are floats"),
    (lambda: R.categorical(np.zeros((2, 0))), ek.ShapeError, "no classes"),
    (lambda: R.categorical(np.zeros((2, 3)), axis=2), ek.ShapeError, "out of range"),
    (lambda: R.categorical(np.zeros((2, 3)), (3,)), ek.ShapeError, "does not broadcast"),
    (lambda: R.categorical(np.float32(1)), ek.ShapeError, "axis"),
    (lambda: R.poisson(-1.0), ek.EinkornError, "poisson: rate must be at least 0, got -1.0"),
    (lambda: R.poisson(1.0, dtype="float32"), ek.DTypeError, "an integer dtype"),
    (lambda: R.binomial(-1, 0.5), ek.EinkornError, "binomial: n"),
    (lambda: R.binomial(5, 1.5), ek.EinkornError, "binomial: p"),
    (lambda: R.multinomial(5, 0.5), ek.ShapeError, "multinomial: p has a last axis"),
    (lambda: R.multinomial(-5, [0.5]), ek.EinkornError, "multinomial: n"),
    (lambda: R.multinomial(5, [[0.5, -0.5]]), ek.EinkornError, "multinomial: p"),
    (lambda: R.permutation(-1), ek.ShapeError, "negative"),
    (lambda: R.permutation(np.float32(1)), ek.ShapeError, "permutation: needs an int or a tensor"),
    (lambda: R.permutation(np.ones(3), 1), ek.ShapeError, "axis"),
    (lambda: R.permutation(True), ek.ShapeError, "permutation"),
    (lambda: R.shuffle(3), ek.DTypeError, "use permutation"),
    (lambda: R.shuffle(np.ones(3), independent=1), ek.DTypeError, "independent"),
    (lambda: R.choice(0, (2,)), ek.EinkornError, "nothing to choose from"),
    (lambda: R.choice(3, (4,), replace=False), ek.EinkornError, "4 of 3 cannot be drawn"),
    (lambda: R.choice(3, p=[0.5, 0.5]), ek.ShapeError, "one probability for each of 3"),
    (lambda: R.choice(2, p=[0.5, -0.5]), ek.EinkornError, "choice: p"),
    (lambda: R.choice(2, p=[0.0, 0.0]), ek.EinkornError, "must be above 0"),
    (lambda: R.choice(3, (2,), False, [1.0, 0.0, 0.0]), ek.EinkornError, "1 of the probabilities"),
    (lambda: R.choice(3, replace=0), ek.DTypeError, "replace"),
    (lambda: R.choice(2.5), ek.DTypeError, "choice"),
    (lambda: R.multivariate_normal(1.0, [[1.0]]), ek.ShapeError, r"mean is \[..., n\]"),
    (lambda: R.multivariate_normal([1.0], [1.0]), ek.ShapeError, r"cov \[..., n, n\]"),
    (lambda: R.multivariate_normal([1.0], np.ones((2, 2))), ek.ShapeError, "cov"),
    (
        lambda: R.multivariate_normal(np.ones((2, 1)), np.ones((3, 1, 1))),
        ek.ShapeError,
        "do not broadcast",
    ),
    (lambda: R.orthogonal(-1), ek.ShapeError, "negative"),
    (lambda: R.orthogonal(2.5), ek.DTypeError, "n is an integer"),
]


@pytest.mark.parametrize("case", REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_bad_parameters_are_refused_and_take_no_number(case: Any) -> None:
    call, error, message = case
    before = R.default_generator().draw.item()
    with pytest.raises(error, match=message):
        call()
    assert R.default_generator().draw.item() == before


def test_bad_parameters_that_only_a_step_knows_give_what_is_documented() -> None:
    step = ek.compile(lambda x: (R.gamma(x), R.loggamma(x), R.poisson(x), R.binomial(x, 0.5)))
    gammas, logs, counts, hits = step(np.array([-1.0, NAN, 2.0], "float32"))
    assert np.isnan(np.asarray(gammas)).tolist() == [True, True, False]
    assert np.isnan(np.asarray(logs)).tolist() == [True, True, False]
    assert counts.tolist()[:2] == hits.tolist()[:2] == [-1, -1]
    ranges = ek.compile(lambda low, high: R.randint(low, high))
    assert ranges(np.array([3, 5]), np.array([3, -2])).tolist() == [3, 5]
    empty = R.gamma(np.ones((0, 3), "float32")), R.poisson(np.ones(0)), R.orthogonal(0)
    assert [x.shape for x in empty] == [(0, 3), (0,), (0, 0)]
