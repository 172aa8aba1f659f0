"""`jacobian` and `hessian`: all derivatives at once, by products with a batch of unit vectors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import Any

from einkorn.convert import as_choice
from einkorn.functions.creation import eye
from einkorn.functions.manipulation import cut, moveaxis, to_shape
from einkorn.inner import close, recording
from einkorn.ir.errors import DTypeError
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.recording import Value, apply, no_grad
from einkorn.tensor import Tensor
from einkorn.transforms.products import float_ends
from einkorn.transforms.pull import pull, push
from einkorn.transforms.targets import Targets, check_callable, depth, run_recorded, split_aux
from einkorn.tree import flatten, unflatten
from einkorn.vectorize import apply_batched


def jacobian(
    fn: Callable[..., Any], wrt: Any = 0, *, mode: str = "reverse", has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives the Jacobian of `fn`: J[i, j] = d out[i] / d in[j].

    `fn` is run once; its products with all unit vectors are one batch. "reverse" costs a batch of
    as many as `fn` has result elements, "forward" as many as there are elements to differentiate
    by: take the smaller.

    Args:
        fn: gives floating-point tensors in any nest; with `has_aux` a pair of that and anything.
        wrt: what to differentiate by, as in `ek.grad`.
        mode: "reverse" or "forward".
        has_aux: whether `fn` returns a pair.

    Returns:
        A function of the same arguments. For each end of `fn`'s result it gives the structure of
        `wrt`, with a tensor of shape (*out.shape, *in.shape) at each end; with `has_aux` a pair of
        that and aux.

    Raises:
        DTypeError: a result, or what to differentiate by, is not floating-point.
        TraceError: `fn` branches on a value.
    """
    what = "jacobian"
    check_callable(what, fn)
    as_choice(what, "mode", mode, ("reverse", "forward"))

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with recording("ek.jacobian", fn) as trace:
            targets = Targets(what, wrt, args)
            out, aux = split_aux(what, run_recorded(fn, targets.args, kwargs), has_aux)
            outputs, structure = float_ends(what, out)
            rows, columns = [x._type for x in outputs], targets.types
            _check_real((*rows, *columns))
            if mode == "reverse":
                units = [trace.argument(type, "unit") for type in rows]
                products = pull(outputs, units, targets.nodes, columns)
            else:
                units = [trace.argument(type, "unit") for type in columns]
                products = push(outputs, targets.nodes, units)
            aux_ends, aux_structure = flatten(aux)
            kept = [k for k, x in enumerate(aux_ends) if isinstance(x, Value)]
            tensors = [aux_ends[k] for k in kept]
            for x in (*products, *tensors):
                trace.node_of(x)
        closed = close(trace, [*products, *tensors])
        with nullcontext() if depth() else no_grad():
            basis, size = _units([x._type for x in units])
            found = apply_batched(closed, basis, size)
            full = [_all(x, many, size) for x, many in found[: len(products)]]
            blocks = _blocks(full, rows, columns, mode)
        for k, (x, _) in zip(kept, found[len(products) :]):
            aux_ends[k] = x
        result = unflatten(structure, [targets.rebuild(block) for block in blocks])
        return (result, unflatten(aux_structure, aux_ends)) if has_aux else result

    return wrapped


def _check_real(types: Sequence[TensorType]) -> None:
    """Refuse complex numbers: the two numbers for each pair of elements are no matrix of theirs."""
    for type in types:
        if type.dtype.is_complex:
            raise DTypeError(
                f"jacobian: needs real numbers, got {type}; take ek.real and ek.imag apart, or use "
                "ek.vjp or ek.jvp"
            )


def _units(types: Sequence[TensorType]) -> tuple[list[Tensor], int]:
    """A batch of unit vectors of the space of some tensors, one batch entry for each element."""
    sizes = [type.size for type in types]
    total = sum(sizes)
    basis: list[Tensor] = []
    for type, size, stop in zip(types, sizes, accumulate(sizes)):
        columns = cut(eye(total, dtype=type.dtype), 1, stop - size, stop)
        basis.append(to_shape(columns, (total, *type.shape)))
    return basis, total


def _all(x: Tensor, many: bool, size: int) -> Tensor:
    return x if many else apply(Op.BROADCAST, x, shape=(size, *x.shape))


def _blocks(
    products: Sequence[Tensor],
    rows: Sequence[TensorType],
    columns: Sequence[TensorType],
    mode: str,
) -> list[list[Tensor]]:
    """For each result the derivatives by each target, from products that were batched."""
    along = rows if mode == "reverse" else columns
    stops = list(accumulate(type.size for type in along))
    blocks: list[list[Tensor]] = []
    for j, row in enumerate(rows):
        block: list[Tensor] = []
        for k, column in enumerate(columns):
            x, place = (products[k], j) if mode == "reverse" else (products[j], k)
            part = cut(x, 0, stops[place] - along[place].size, stops[place])
            if mode == "forward":
                part = moveaxis(part, 0, -1)
            block.append(to_shape(part, (*row.shape, *column.shape)))
        blocks.append(block)
    return blocks


def hessian(fn: Callable[..., Any], wrt: Any = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the Hessian of `fn`: H[i, j] = d^2 fn / d in[i] d in[j].

    Forward over reverse: the Jacobian of the gradient.

    Args:
        fn: gives a floating-point scalar, or tensors, whose elements then each have a Hessian.
        wrt: what to differentiate by, as in `ek.grad`.
        has_aux: whether `fn` returns a pair.

    Returns:
        A function of the same arguments. It gives the structure of `wrt` inside the structure of
        `wrt`, with a tensor of shape (*out.shape, *in_i.shape, *in_j.shape) at each end.
    """
    inner = jacobian(fn, wrt, has_aux=has_aux)
    return jacobian(inner, wrt, mode="forward", has_aux=has_aux)
