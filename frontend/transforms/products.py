"""Products with Jacobians and Hessians: `vjp`, `jvp`, `hvp`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from einkorn.convert import as_tensor
from einkorn.ir.errors import DTypeError, EinkornError, TraceError
from einkorn.recording import Value, current_trace
from einkorn.tensor import Tensor
from einkorn.transforms.elsewhere import Pullback
from einkorn.transforms.gradients import grad
from einkorn.transforms.pull import pull, push
from einkorn.transforms.targets import (
    Targets,
    check_callable,
    place,
    read_like,
    run_recorded,
    settle,
    split_aux,
)
from einkorn.tree import flatten, paths, unflatten

MSG_END = (
    "{what}: the function returned {got}{where}, which has no derivative; return floating-point "
    "tensors, and anything else beside them with has_aux=True: (result, aux)"
)
MSG_PRIMALS = "{what}: {name} is a tuple or list with one entry for each argument, got {got}"
MSG_COUNT = "{what}: {primals} primals need as many tangents, got {tangents}"
MSG_OVER = (
    "this function came from ek.vjp inside of {trace}, which has returned; call it there, or call "
    "ek.vjp here"
)
INSTEAD = "pass it through a closure: lambda x: fn(x, n)"


def float_ends(what: str, out: Any) -> tuple[list[Tensor], Any]:
    """The floating-point tensors that a function returned, and how they are nested."""
    ends, structure = flatten(out)
    found: list[Tensor] = []
    for end, path in zip(ends, paths(structure)):
        known = isinstance(end, (Value, float, np.floating, np.ndarray))
        tensor = as_tensor(end, what) if known else None
        if tensor is None or not tensor.dtype.is_inexact:
            got = type(end).__name__ if tensor is None else str(tensor._type)
            kind = EinkornError if tensor is None else DTypeError
            raise kind(MSG_END.format(what=what, got=got, where=place(path)))
        found.append(tensor)
    return found, structure


def vjp(fn: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of `fn` and the function that takes cotangents back: u -> u^T J.

    Args:
        fn: gives floating-point tensors in any nest; with `has_aux` a pair of that and anything.
        *primals: the arguments; each may be nested, and a Module stands for its trainable leaves.
        has_aux: whether `fn` returns a pair.

    Returns:
        (out, vjp_fn), with `has_aux` (out, vjp_fn, aux). `vjp_fn(cotangents)` takes a nest with the
        structure, shapes and dtypes of `out` and gives a tuple: for each primal a nest of its
        structure, shapes and dtypes. It may be called many times; forward values are computed once.

    Raises:
        DTypeError: a primal or result is not floating-point.
        ShapeError, EinkornError: cotangents have another shape or structure.
    """
    what = "vjp"
    check_callable(what, fn)
    targets = Targets(what, tuple(range(len(primals))), primals, INSTEAD)
    out, aux = split_aux(what, run_recorded(fn, targets.args, {}), has_aux)
    outputs, structure = float_ends(what, out)
    types = [x._type for x in outputs]
    home = current_trace.get()
    elsewhere = Pullback(home, outputs, targets.nodes, targets.types)

    def vjp_fn(cotangents: Any) -> tuple[Any, ...]:
        if home is not None and not home.active:
            raise TraceError(MSG_OVER.format(trace=home.name))
        seeds = read_like(what, "the cotangent", cotangents, "the result", structure, types)
        if current_trace.get() is not home:
            return targets.rebuild(elsewhere(seeds))
        return targets.rebuild(pull(outputs, seeds, targets.nodes, targets.types))

    result = unflatten(structure, settle(outputs))
    return (result, vjp_fn, aux) if has_aux else (result, vjp_fn)


def jvp(
    fn: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    has_aux: bool = False,
) -> Any:
    """The value of `fn` and its derivative along `tangents`: J t.

    Forward mode is the transpose of the transpose: u -> J^T u is linear in u, and its own reverse
    is t -> J t. So one table of gradient rules serves both modes, to any order. It computes what a
    table of forward rules would: what J^T u alone needs is never run in eager mode and not part of
    the compiled graph. A value of `fn` lives until the derivative has used it.

    Args:
        fn: gives floating-point tensors in any nest; with `has_aux` a pair of that and anything.
        primals: a tuple of the arguments; each may be nested.
        tangents: a tuple of nests with the structure, shapes and dtypes of the primals.
        has_aux: whether `fn` returns a pair.

    Returns:
        (out, tangent_out), both with the structure of `out`; with `has_aux` aux behind them.

    Raises:
        DTypeError: a primal or result is not floating-point, or a tangent has another dtype.
        ShapeError, EinkornError: tangents have another shape or structure than the primals.
    """
    what = "jvp"
    check_callable(what, fn)
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, (tuple, list)):
            raise EinkornError(MSG_PRIMALS.format(what=what, name=name, got=type(given).__name__))
    if len(primals) != len(tangents):
        raise EinkornError(
            MSG_COUNT.format(what=what, primals=len(primals), tangents=len(tangents))
        )
    targets = Targets(what, tuple(range(len(primals))), primals, INSTEAD)
    along = targets.read("tangent", tangents, "primal")
    out, aux = split_aux(what, run_recorded(fn, targets.args, {}), has_aux)
    outputs, structure = float_ends(what, out)
    through = unflatten(structure, push(outputs, targets.nodes, along))
    result = unflatten(structure, settle(outputs))
    return (result, through, aux) if has_aux else (result, through)


def hvp(fn: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, ...]:
    """The Hessian of a scalar function times a vector, H t, without the Hessian.

    The derivative of the gradient along `tangents` (forward over reverse): it costs a few times
    what the gradient costs.

    Args:
        fn: gives a floating-point scalar.
        primals: a tuple of the arguments.
        tangents: a tuple of nests with the structure, shapes and dtypes of the primals.

    Returns:
        A tuple with a nest of its structure for each primal.
    """
    if not isinstance(primals, (tuple, list)):
        raise EinkornError(
            MSG_PRIMALS.format(what="hvp", name="primals", got=type(primals).__name__)
        )
    by_all = grad(fn, tuple(range(len(primals))))
    return jvp(by_all, primals, tangents)[1]
