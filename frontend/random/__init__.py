"""Random numbers from a counter-based generator: the same in every mode and thread count.

Each draw takes the generator's key and counter and moves the counter by one; element i of a draw
depends on (key, counter, i) alone. The global generator is a pair of leaves, so a compiled step
carries it as state. Draws that reject take further words from a key of their own, made from key and
counter, so they too count as one.
"""

from einkorn.random.continuous import (
    bits,
    cauchy,
    exponential,
    gumbel,
    laplace,
    logistic,
    lognormal,
    normal,
    pareto,
    truncated_normal,
    uniform,
    weibull_min,
)
from einkorn.random.counts import binomial, multinomial, poisson
from einkorn.random.discrete import bernoulli, categorical, geometric, rademacher, randint
from einkorn.random.gamma import beta, chisquare, dirichlet, gamma, loggamma, student_t
from einkorn.random.generator import (
    Generator,
    Key,
    default_generator,
    fold_in,
    key,
    seed,
    split,
    use,
)
from einkorn.random.multivariate import multivariate_normal, orthogonal
from einkorn.random.ordering import choice, permutation, shuffle

__all__ = [
    "Generator",
    "Key",
    "bernoulli",
    "beta",
    "binomial",
    "bits",
    "categorical",
    "cauchy",
    "chisquare",
    "choice",
    "default_generator",
    "dirichlet",
    "exponential",
    "fold_in",
    "gamma",
    "geometric",
    "gumbel",
    "key",
    "laplace",
    "loggamma",
    "logistic",
    "lognormal",
    "multinomial",
    "multivariate_normal",
    "normal",
    "orthogonal",
    "pareto",
    "permutation",
    "poisson",
    "rademacher",
    "randint",
    "seed",
    "shuffle",
    "split",
    "student_t",
    "truncated_normal",
    "uniform",
    "use",
    "weibull_min",
]


def __dir__() -> list[str]:
    return __all__
