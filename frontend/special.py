"""Special functions, named as in `scipy.special`: error, gamma and logistic functions."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from einkorn.autocast import in_single_precision, low_dtype, single_precision
from einkorn.convert import as_int
from einkorn.functions.elementwise import atanh as _atanh
from einkorn.functions.elementwise import (
    bitwise_and,
    bitwise_or,
    divide,
    equal,
    erf,
    less,
    less_equal,
    log,
    log1p,
    multiply,
    subtract,
    where,
)
from einkorn.functions.elementwise import sigmoid as expit
from einkorn.functions.floating import floats, in_single
from einkorn.functions.statistical import logsumexp
from einkorn.ir.ops import Op
from einkorn.recording import apply

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

__all__ = [
    "digamma",
    "erf",
    "erfc",
    "erfinv",
    "expit",
    "gammaln",
    "logit",
    "logsumexp",
    "ndtr",
    "polygamma",
    "xlog1py",
    "xlogy",
]


def _floating(what: str, op: Op, x: Any, **attrs: Any) -> Tensor:
    """Apply a function of floats; integers and bool are converted to float32 first."""
    (tensor,) = floats(what, x)
    if low_dtype() is not None:
        tensor = in_single_precision(tensor)
    return apply(op, tensor, **attrs)


def erfc(x: Any, /) -> Tensor:
    """The complementary error function, 1 - erf(x), accurate where erf(x) is near 1."""
    return _floating("erfc", Op.ERFC, x)


def erfinv(x: Any, /) -> Tensor:
    """The inverse of erf: infinite at -1 and 1, NaN beyond."""
    return _floating("erfinv", Op.ERFINV, x)


def ndtr(x: Any, /) -> Tensor:
    """The distribution function of the standard normal distribution, erfc(-x / sqrt(2)) / 2."""
    return _floating("ndtr", Op.NDTR, x)


def gammaln(x: Any, /) -> Tensor:
    """log|gamma(x)|; inf at 0 and at the negative integers."""
    return _floating("gammaln", Op.LGAMMA, x)


def digamma(x: Any, /) -> Tensor:
    """The derivative of gammaln; NaN at the negative integers, an infinity of sign -x at 0."""
    return _floating("digamma", Op.POLYGAMMA, x, order=0)


def polygamma(n: int, x: Any, /) -> Tensor:
    """The n-th derivative of digamma, n a Python int up to 30; infinite at 0, -1, -2, ... if n > 0.

    In float64 the error is up to 4 (n + 1) units in the last place for n > 0.
    """
    return _floating("polygamma", Op.POLYGAMMA, x, order=as_int("polygamma", n))


@single_precision
def logit(x: Any, /) -> Tensor:
    """log(x / (1 - x)), the inverse of expit; NaN outside of [0, 1]."""
    return in_single("logit", _logit, x)


def _logit(x: Tensor) -> Tensor:
    """2 atanh(2x - 1) from 1/4 on, where 2x - 1 is exact; each branch sees arguments of its own."""
    low = less(x, 0.25)
    first = where(low, x, 0.25)
    second = where(low, 0.5, x)
    small = log(divide(first, subtract(1, first)))
    large = multiply(_atanh(subtract(multiply(second, 2), 1)), 2)
    return where(low, small, large)


@single_precision
def xlogy(x: Any, y: Any, /) -> Tensor:
    """x * log(y), and 0 where x is 0 unless y is NaN.

    Where x is 0 and y is not positive, the gradient is 0, as PyTorch's.
    """
    return in_single("xlogy", _xlogy, x, y)


def _xlogy(x: Tensor, y: Tensor) -> Tensor:
    singular = bitwise_or(less_equal(y, 0), equal(y, inf))
    return multiply(x, log(where(bitwise_and(equal(x, 0), singular), 1, y)))


@single_precision
def xlog1py(x: Any, y: Any, /) -> Tensor:
    """x * log1p(y), and 0 where x is 0 unless y is NaN.

    Where x is 0 and y is not above -1, the gradient is 0, as PyTorch's.
    """
    return in_single("xlog1py", _xlog1py, x, y)


def _xlog1py(x: Tensor, y: Tensor) -> Tensor:
    singular = bitwise_or(less_equal(y, -1), equal(y, inf))
    return multiply(x, log1p(where(bitwise_and(equal(x, 0), singular), 0, y)))


def __dir__() -> list[str]:
    return __all__
