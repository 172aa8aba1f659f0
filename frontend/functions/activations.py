"""Activation functions that are a formula of a few ops; where they bend, PyTorch's derivative."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from einkorn.convert import as_number, as_tensor, normal_axis
from einkorn.functions import elementwise as ew
from einkorn.functions.floating import in_single
from einkorn.functions.manipulation import cut
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import ShapeError

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
_ROOT = math.sqrt(2 / math.pi)


def _floats(what: str, x: Any) -> Tensor:
    tensor = as_tensor(x, what)
    return tensor if tensor.dtype.is_float else ew.cast(tensor, float32)


def gelu(x: Any, /, *, approximate: str = "none") -> Tensor:
    """x * Phi(x), Phi the normal distribution (Hendrycks & Gimpel, 2016).

    Args:
        approximate: "tanh" for 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))).
    """
    if approximate == "none":
        return ew.gelu(x)
    if approximate != "tanh":
        raise ShapeError(f"gelu: approximate is 'none' or 'tanh', got {approximate!r}")
    tensor = _floats("gelu", x)
    inner = ew.multiply(ew.add(tensor, ew.multiply(ew.pow(tensor, 3), 0.044715)), _ROOT)
    return ew.multiply(ew.multiply(tensor, 0.5), ew.add(ew.tanh(inner), 1.0))


def relu6(x: Any, /) -> Tensor:
    """min(max(x, 0), 6); the gradient is 0 at 0 and at 6."""
    return hardtanh(x, 0.0, 6.0)


def hardtanh(x: Any, min: Any = -1.0, max: Any = 1.0, /) -> Tensor:
    """x limited to [min, max]; the gradient is 0 at both ends."""
    tensor = as_tensor(x, "hardtanh")
    low, high = (as_number("hardtanh", end, "min and max are numbers") for end in (min, max))
    if not low <= high:
        raise ShapeError(f"hardtanh: min must not be above max, got {low} and {high}")
    above = ew.where(ew.less_equal(tensor, low), low, tensor)
    return ew.where(ew.greater_equal(tensor, high), high, above)


def hardsigmoid(x: Any, /) -> Tensor:
    """relu6(x + 3) / 6; the gradient is 0 at -3 and at 3."""
    tensor = _floats("hardsigmoid", x)
    inner = ew.divide(ew.add(tensor, 3.0), 6.0)
    above = ew.where(ew.less_equal(tensor, -3.0), 0.0, inner)
    return ew.where(ew.greater_equal(tensor, 3.0), 1.0, above)


def hardswish(x: Any, /) -> Tensor:
    """x * relu6(x + 3) / 6 (Howard et al., 2019); the gradient is 0 at -3 and 1 at 3."""
    tensor = _floats("hardswish", x)
    inner = ew.divide(ew.multiply(tensor, ew.add(tensor, 3.0)), 6.0)
    above = ew.where(ew.less_equal(tensor, -3.0), 0.0, inner)
    return ew.where(ew.greater_equal(tensor, 3.0), tensor, above)


def hardshrink(x: Any, threshold: Any = 0.5, /) -> Tensor:
    """x where |x| > threshold, else 0; the gradient is 0 at the threshold."""
    tensor = as_tensor(x, "hardshrink")
    inside = ew.less_equal(ew.abs(tensor), threshold)
    return ew.where(inside, 0, tensor)


def softshrink(x: Any, threshold: Any = 0.5, /) -> Tensor:
    """x moved towards 0 by the threshold, and 0 within it; the gradient is 0 at the threshold."""
    tensor = as_tensor(x, "softshrink")
    limit = as_number("softshrink", threshold, "the threshold is a number")
    below = ew.where(ew.greater_equal(tensor, -limit), 0, ew.add(tensor, limit))
    return ew.where(ew.greater(tensor, limit), ew.subtract(tensor, limit), below)


def tanhshrink(x: Any, /) -> Tensor:
    """x - tanh(x)."""
    return in_single("tanhshrink", lambda x: ew.subtract(x, ew.tanh(x)), x)


def softsign(x: Any, /) -> Tensor:
    """x / (1 + |x|)."""
    tensor = _floats("softsign", x)
    return ew.divide(tensor, ew.add(ew.abs(tensor), 1.0))


def mish(x: Any, /) -> Tensor:
    """x * tanh(softplus(x)) (Misra, 2019)."""
    tensor = _floats("mish", x)
    return ew.multiply(tensor, ew.tanh(ew.softplus(tensor)))


def leaky_relu(x: Any, negative_slope: Any = 0.01) -> Tensor:
    """x where x > 0, else negative_slope * x (Maas et al., 2013)."""
    tensor = as_tensor(x, "leaky_relu")
    return ew.where(ew.greater(tensor, 0), tensor, ew.multiply(tensor, negative_slope))


def elu(x: Any, alpha: Any = 1.0) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al., 2016)."""
    tensor = as_tensor(x, "elu")
    below = ew.multiply(ew.expm1(_negative_part(tensor)), alpha)
    return ew.where(ew.greater(tensor, 0), tensor, below)


def selu(x: Any, /) -> Tensor:
    """scale * x where x > 0, else scale * alpha * (exp(x) - 1) (Klambauer et al., 2017)."""
    tensor = _floats("selu", x)
    below = ew.multiply(ew.expm1(_negative_part(tensor)), SELU_SCALE * SELU_ALPHA)
    return ew.where(ew.greater(tensor, 0), ew.multiply(tensor, SELU_SCALE), below)


def celu(x: Any, alpha: Any = 1.0, /) -> Tensor:
    """x where x > 0, else alpha * (exp(x / alpha) - 1) (Barron, 2017)."""
    tensor = _floats("celu", x)
    below = ew.multiply(ew.expm1(ew.divide(_negative_part(tensor), alpha)), alpha)
    return ew.where(ew.greater(tensor, 0), tensor, below)


def _negative_part(x: Tensor) -> Tensor:
    """x where it is not positive, else 0, so that exp does not overflow where it is not used."""
    return ew.where(ew.greater(x, 0), 0, x)


def prelu(x: Any, a: Any, /) -> Tensor:
    """x where x > 0, else a * x (He et al., 2015); `a` broadcasts to x and is learned."""
    tensor = as_tensor(x, "prelu")
    return ew.where(ew.greater(tensor, 0), tensor, ew.multiply(tensor, a))


def threshold(x: Any, limit: Any, value: Any, /) -> Tensor:
    """x where x > limit, else value; the gradient is 0 at the limit."""
    tensor = as_tensor(x, "threshold")
    return ew.where(ew.less_equal(tensor, limit), value, tensor)


def log_sigmoid(x: Any, /) -> Tensor:
    """log(sigmoid(x)), computed as -softplus(-x)."""
    return ew.negative(ew.softplus(ew.negative(_floats("log_sigmoid", x))))


def logit(x: Any, /, eps: Any = None) -> Tensor:
    """log(x / (1 - x)); NaN outside [0, 1].

    Args:
        eps: x is limited to [eps, 1 - eps] first, and the gradient is 0 outside.
    """
    number = None if eps is None else as_number("logit", eps, "eps is a number")

    def computed(x: Tensor) -> Tensor:
        kept = x if number is None else ew.clip(x, number, 1 - number)
        return ew.log(ew.divide(kept, ew.subtract(1.0, kept)))

    return in_single("logit", computed, x)


# -- gated -----------------------------------------------------------------------------------------


def _halves(what: str, x: Any, axis: Any) -> tuple[Tensor, Tensor]:
    tensor = _floats(what, x)
    at = normal_axis(what, axis, tensor.ndim)
    n = tensor.shape[at] if tensor.ndim else 1
    if n % 2:
        raise ShapeError(f"{what}: axis {axis} of {tensor._type} cannot be halved")
    return cut(tensor, at, 0, n // 2), cut(tensor, at, n // 2, n)


def glu(x: Any, /, *, axis: int = -1) -> Tensor:
    """The first half of an axis times sigmoid of the second (Dauphin et al., 2017)."""
    first, second = _halves("glu", x, axis)
    return ew.multiply(first, ew.sigmoid(second))


def geglu(x: Any, /, *, axis: int = -1, approximate: str = "none") -> Tensor:
    """The first half of an axis times gelu of the second (Shazeer, 2020)."""
    first, second = _halves("geglu", x, axis)
    return ew.multiply(first, gelu(second, approximate=approximate))


def swiglu(x: Any, /, *, axis: int = -1) -> Tensor:
    """The first half of an axis times silu of the second (Shazeer, 2020)."""
    first, second = _halves("swiglu", x, axis)
    return ew.multiply(first, ew.silu(second))
