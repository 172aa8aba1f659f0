"""What optimizers do to a variable, as functions of values: of one array, or of each in a nest.

Nothing is written unless `inplace` asks for it. `lr` is a number or a scalar, `step` the number of
the step, from 1.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

from einkorn.container import Container, check_structure
from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import float64
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.leaf import Leaf
from einkorn.loading import write_all
from einkorn.optim.large_batch import norm, where_both
from einkorn.optim.nests import as_container, in_dtype_of, rebuilt
from einkorn.tensor import Tensor

MSG_INPLACE = (
    "{what}: inplace=True writes to the variables, but {path} is a {kind}, not a variable; give "
    "model.v, or take the new values that are returned"
)
MSG_TYPES = "{what}: a variable, its gradient and its moments have one type, got {types}"


def adam_step(
    dcdw: Any,
    mw: Any,
    vw: Any,
    step: Any,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-7,
) -> tuple[Any, Any, Any]:
    """The direction of Adam (Kingma & Ba, 2015), in the form with one correction of the bias.

    Returns:
        (direction, new mw, new vw): what a step takes the multiple `lr` of, and the moments.
    """
    unbias = _unbias(step, beta1, beta2, epsilon)

    def single(grad: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return _adam(grad, m, v, unbias, beta1, beta2, epsilon)

    return _over("adam_step", single, dcdw, mw, vw)


def optimizer_update(
    w: Any, effective_grad: Any, lr: Any, inplace: Any = None, stop_gradients: bool = True
) -> Any:
    """w - lr * effective_grad."""

    def single(x: Tensor, move: Tensor) -> Tensor:
        return _kept(ew.subtract(x, ew.multiply(move, in_dtype_of(x, lr))), stop_gradients)

    new = _over("optimizer_update", single, w, effective_grad)
    return written("optimizer_update", w, new, inplace)


def gradient_descent_update(
    w: Any, dcdw: Any, lr: Any, inplace: Any = None, stop_gradients: bool = True
) -> Any:
    """w - lr * dcdw."""
    return optimizer_update(w, dcdw, lr, inplace, stop_gradients)


def adam_update(
    w: Any,
    dcdw: Any,
    lr: Any,
    mw_tm1: Any,
    vw_tm1: Any,
    step: Any,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-7,
    inplace: Any = None,
    stop_gradients: bool = True,
) -> tuple[Any, Any, Any]:
    """One step of Adam.

    Returns:
        (new w, new mw, new vw).
    """
    move, mw, vw = adam_step(dcdw, mw_tm1, vw_tm1, step, beta1, beta2, epsilon)
    return optimizer_update(w, move, lr, inplace, stop_gradients), mw, vw


def lars_update(
    w: Any,
    dcdw: Any,
    lr: Any,
    decay_lambda: float = 0.0,
    inplace: Any = None,
    stop_gradients: bool = True,
) -> Any:
    """w - lr * rate * (dcdw + decay_lambda * w), without momentum (You et al., 2017).

    rate = |w| / (|dcdw| + decay_lambda * |w|) for each array, 1 where one of the norms is 0.
    """

    def single(x: Tensor, grad: Tensor) -> Tensor:
        size, slope = norm(x), norm(grad)
        ratio = ew.divide(size, ew.add(slope, ew.multiply(size, decay_lambda)))
        rate = in_dtype_of(x, where_both(size, slope, ratio))
        return ew.multiply(ew.add(grad, ew.multiply(x, decay_lambda)), rate)

    return optimizer_update(w, _over("lars_update", single, w, dcdw), lr, inplace, stop_gradients)


def lamb_update(
    w: Any,
    dcdw: Any,
    lr: Any,
    mw_tm1: Any,
    vw_tm1: Any,
    step: Any,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-7,
    max_trust_ratio: float = 10.0,
    decay_lambda: float = 0.0,
    inplace: Any = None,
    stop_gradients: bool = True,
) -> tuple[Any, Any, Any]:
    """w - lr * ratio * u with u = the direction of Adam + decay_lambda * w (You et al., 2020).

    ratio = min(|w| / |u|, max_trust_ratio) for each array, 1 where one of the norms is 0.

    Returns:
        (new w, new mw, new vw).
    """
    direction, mw, vw = adam_step(dcdw, mw_tm1, vw_tm1, step, beta1, beta2, epsilon)

    def single(x: Tensor, move: Tensor) -> Tensor:
        move = ew.add(move, ew.multiply(x, decay_lambda))
        size, length = norm(x), norm(move)
        ratio = ew.minimum(ew.divide(size, length), max_trust_ratio)
        return ew.multiply(move, in_dtype_of(x, where_both(size, length, ratio)))

    moves = _over("lamb_update", single, w, direction)
    return optimizer_update(w, moves, lr, inplace, stop_gradients), mw, vw


def _unbias(step: Any, beta1: Any, beta2: Any, epsilon: Any) -> Tensor:
    """What corrects the moments of a step, a float64 scalar."""
    count = ew.astype(as_tensor(step, "adam_step"), float64)
    first, second = (ew.subtract(1.0, ew.pow(beta, count)) for beta in (beta1, beta2))
    return ew.divide(ew.sqrt(second), ew.add(first, epsilon))


def _adam(
    grad: Tensor, m: Tensor, v: Tensor, unbias: Tensor, beta1: Any, beta2: Any, epsilon: Any
) -> tuple[Tensor, ...]:
    m = ew.add(ew.multiply(m, beta1), ew.multiply(grad, 1 - beta1))
    v = ew.add(ew.multiply(v, beta2), ew.multiply(ew.multiply(grad, grad), 1 - beta2))
    move = ew.divide(ew.multiply(m, in_dtype_of(m, unbias)), ew.add(ew.sqrt(v), epsilon))
    return move, m, v


def _kept(x: Tensor, stop_gradients: bool) -> Tensor:
    return ew.stop_gradient(x) if stop_gradients else x


def _over(what: str, function: Callable[..., Any], *nests: Any) -> Any:
    """`function` of tensors, or of each of nests of the same keys; tuples become several nests."""
    first, *others = map(as_container, nests)
    others = [check_structure(first, other, what) for other in others]

    def single(x: Any, *rest: Any) -> Any:
        row = [as_tensor(end, what) for end in (x, *rest)]
        if any(end._type != row[0]._type for end in row):
            raise ShapeError(
                MSG_TYPES.format(what=what, types=", ".join(str(x._type) for x in row))
            )
        return function(*row)

    found = first.map(single, *others)
    ends = found.to_flat_list()
    if not ends or not isinstance(ends[0], tuple):
        return _like(nests[0], found)
    columns = range(len(ends[0]))
    return tuple(_like(nests[0], found.map(itemgetter(column))) for column in columns)


def _like(nest: Any, values: Container) -> Any:
    """Values in the structure of what they came from."""
    return values if isinstance(nest, Container) else rebuilt(nest, iter(values.to_flat_list()))


def written(what: str, w: Any, new: Any, inplace: Any) -> Any:
    """The new values; with `inplace` the variables, which hold them now."""
    if not inplace:
        return new
    check_variables(what, w)
    paths = as_container(w).flat_items()
    values = as_container(new).to_flat_list()
    write_all((leaf, value, path) for (path, leaf), value in zip(paths, values, strict=True))
    return w


def check_variables(what: str, w: Any) -> None:
    """EinkornError when something in `w` cannot be written."""
    for path, x in as_container(w).flat_items():
        if not isinstance(x, Leaf):
            raise EinkornError(MSG_INPLACE.format(what=what, path=path, kind=type(x).__name__))
