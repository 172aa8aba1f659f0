"""Every function of tensors, as a call on arrays of one dtype: for the walk over dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import einkorn as ek
from einkorn import linalg, nn, special

Call = Callable[..., Any]
INDEX = np.array([2, 0, 1])
IDS = np.array([0, 0, 1])
LABELS = np.array([1, 0, 3])

# Called with x in (0.1, 0.9) for floats, small whole numbers, or bool: a matrix of 3 rows and 4
# columns. Names are those of the function; what follows a space tells calls apart.
UNARY = (
    "abs acos acosh asin asinh atan atanh bitwise_invert ceil conj cos cosh erf exp expm1 floor "
    "imag isfinite isinf isnan log log10 log1p log2 logical_not matrix_transpose negative positive "
    "real reciprocal round rsqrt sign signbit sin sinh sqrt square stop_gradient tan tanh trunc "
    "all any argmax argmin count_nonzero max mean min prod std sum var logsumexp argsort sort "
    "flip tril triu flatten ones_like zeros_like empty_like unstack tree_leaves"
)
BINARY = (
    "add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign "
    "divide equal floor_divide greater greater_equal hypot less less_equal logaddexp logical_and "
    "logical_or logical_xor maximum minimum multiply nextafter not_equal remainder subtract"
)
NN = (
    "gelu elu celu selu glu geglu swiglu mish relu relu6 leaky_relu sigmoid silu softplus softsign "
    "softmax softmin log_softmax log_sigmoid hardshrink hardsigmoid hardswish hardtanh softshrink "
    "tanh tanhshrink logit cumulative_logsumexp layer_norm rms_norm batch_statistics"
)
PAIRS = (
    "binary_cross_entropy cosine_similarity hinge_loss huber_loss kl_div l1_loss log_cosh_loss "
    "mse_loss poisson_nll_loss smooth_l1_loss soft_margin_loss binary_cross_entropy_with_logits"
)
SPECIAL = "erfc erfinv ndtr gammaln digamma expit logit"


def _with_reversed(function: Call) -> Call:
    """The function of two operands, the second of which is the first with its rows reversed."""
    return lambda x: function(x, x[::-1])


CALLS: dict[str, Call] = {
    **{name: getattr(ek, name) for name in UNARY.split()},
    **{name: _with_reversed(getattr(ek, name)) for name in BINARY.split()},
    **{f"nn.{name}": getattr(nn, name) for name in NN.split()},
    **{f"nn.{name}": _with_reversed(getattr(nn, name)) for name in PAIRS.split()},
    **{f"special.{name}": getattr(special, name) for name in SPECIAL.split()},
    "sum of an axis": lambda x: ek.sum(x, axis=1),
    "mean of an axis": lambda x: ek.mean(x, axis=0),
    "pow": lambda x: ek.pow(x, x),
    "pow whole": lambda x: x**3,
    "pow negative": lambda x: x**-2,
    "clip": lambda x: ek.clip(x, x[0], x[1]),
    "where": lambda x: ek.where(x > x[0], x, x[1]),
    "astype": lambda x: x.astype("float32"),
    "broadcast_to": lambda x: ek.broadcast_to(x, (2, 3, 4)),
    "broadcast_arrays": lambda x: ek.broadcast_arrays(x, x[0]),
    "concat": lambda x: ek.concat([x, x]),
    "stack": lambda x: ek.stack([x, x]),
    "split": lambda x: ek.split(x, 2, axis=1),
    "pad": lambda x: ek.pad(x, ((1, 0), (0, 2))),
    "repeat": lambda x: ek.repeat(x, 2),
    "tile": lambda x: ek.tile(x, (2, 1)),
    "roll": lambda x: ek.roll(x, 1, axis=1),
    "reshape": lambda x: ek.reshape(x, (2, 6)),
    "permute_dims": lambda x: ek.permute_dims(x, (1, 0)),
    "moveaxis": lambda x: ek.moveaxis(x, 0, 1),
    "swapaxes": lambda x: ek.swapaxes(x, 0, 1),
    "expand_dims": lambda x: ek.expand_dims(x, axis=0),
    "squeeze": lambda x: ek.squeeze(x[:1], 0),
    "full_like": lambda x: ek.full_like(x, 1),
    "take": lambda x: ek.take(x, INDEX, axis=0),
    "take_along_axis": lambda x: ek.take_along_axis(x, INDEX[:, None], axis=1),
    "index": lambda x: x[INDEX, 1:],
    "at set": lambda x: x.at[INDEX[:2]].set(x[:2]),
    "at add": lambda x: x.at[IDS].add(x),
    "topk": lambda x: ek.topk(x, 2).values,
    "searchsorted": lambda x: ek.searchsorted(ek.sort(x.flatten()), x[0]),
    "cumulative_sum": lambda x: ek.cumulative_sum(x, axis=1),
    "cumulative_prod": lambda x: ek.cumulative_prod(x, axis=1),
    "cumulative_max": lambda x: ek.cumulative_max(x, axis=1),
    "cumulative_min": lambda x: ek.cumulative_min(x, axis=0),
    "diff": lambda x: ek.diff(x, axis=1),
    "meshgrid": lambda x: ek.meshgrid(x[0], x[1]),
    "matmul": lambda x: x @ x.mT,
    "tensordot": lambda x: ek.tensordot(x, x.mT, axes=1),
    "vecdot": lambda x: ek.vecdot(x, x[::-1]),
    "outer": lambda x: ek.outer(x[0], x[1]),
    "einsum": lambda x: ek.einsum("ij,kj->ik", x, x),
    "linalg.vector_norm": lambda x: linalg.vector_norm(x, axis=1),
    "linalg.matrix_norm": linalg.matrix_norm,
    "linalg.cross": lambda x: linalg.cross(x[:, :3], x[:, 1:]),
    "linalg.diagonal": linalg.diagonal,
    "linalg.trace": linalg.trace,
    "linalg.matrix_power": lambda x: linalg.matrix_power(x[:, :3], 2),
    "linalg.det": lambda x: linalg.det(x[:, :3]),
    "special.polygamma": lambda x: special.polygamma(1, x),
    "special.xlogy": lambda x: special.xlogy(x, x),
    "special.xlog1py": lambda x: special.xlog1py(x, x),
    "nn.gelu tanh": lambda x: nn.gelu(x, approximate="tanh"),
    "nn.prelu": lambda x: nn.prelu(x, x[0]),
    "nn.cross_entropy": lambda x: nn.cross_entropy(x, LABELS),
    "nn.nll_loss": lambda x: nn.nll_loss(x, LABELS),
    "nn.group_norm": lambda x: nn.group_norm(x, 2),
    "nn.attention": lambda x: nn.attention(x, x, x),
    "nn.conv": lambda x: nn.conv(x.reshape(1, 3, 4, 1), x[:2, :2].reshape(1, 2, 2, 1)),
    "nn.max_pool": lambda x: nn.max_pool(x.reshape(1, 3, 4, 1), 2),
    "nn.avg_pool": lambda x: nn.avg_pool(x.reshape(1, 3, 4, 1), 2),
    "nn.adaptive_avg_pool": lambda x: nn.adaptive_avg_pool(x.reshape(1, 3, 4, 1), 2),
    "nn.interpolate": lambda x: nn.interpolate(x.reshape(1, 3, 4, 1), (6, 8)),
    "nn.embedding": lambda x: nn.embedding(INDEX, x),
    "nn.segment_sum": lambda x: nn.segment_sum(x, IDS, 2),
    "nn.segment_mean": lambda x: nn.segment_mean(x, IDS, 2),
    "nn.segment_max": lambda x: nn.segment_max(x, IDS, 2),
    "nn.segment_prod": lambda x: nn.segment_prod(x, IDS, 2),
    "nn.rotary_embedding": nn.rotary_embedding,
}


def listed(found: Any) -> list[np.ndarray[Any, Any]]:
    """Results as a list of arrays."""
    many = isinstance(found, (list, tuple))
    return [np.asarray(x) for x in (found if many else [found])]
