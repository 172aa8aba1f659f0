"""Gradients of scalars: `backward`, `grad` and `value_and_grad`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from einkorn.collector import current_collector
from einkorn.convert import as_tensor, in_dtype
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError, StateError
from einkorn.ir.ops import Op
from einkorn.leaf import Leaf
from einkorn.left_attributes import history_ends
from einkorn.passes.autodiff import vjp
from einkorn.recording import (
    Record,
    Value,
    apply,
    current_trace,
    free,
    result,
    tape,
)
from einkorn.runtime.evaluate import evaluate
from einkorn.tensor import Tensor
from einkorn.transforms.pull import grad_nodes, known_values, ones, pull
from einkorn.transforms.targets import Targets, check_callable, depth, run_recorded, split_aux

Array = np.ndarray[Any, Any]

MSG_UNTRACKED = (
    "backward() on a value that depends on nothing tracked: use it on the result of a computation "
    "with parameters or trainable leaves (ek.tensor, ek.Parameter), outside of ek.no_grad()"
)
MSG_NOT_SCALAR = "{what} needs a scalar, got {type}; take .sum() or .mean() first{more}"
MSG_MORE = ", or use ek.jacobian or ek.vjp"


# -- backward --------------------------------------------------------------------------------------


def backward(output: Tensor, gradient: Any, retain_graph: bool) -> None:
    """Add the gradient of `output` to `.grad` of the trainable leaves behind it."""
    seed = _seed(output, gradient)
    trace = current_trace.get()
    if trace is not None:
        behind = trace.trainable_behind(output)
        if not behind:
            raise StateError(MSG_UNTRACKED)
        wrt = [node for _, node in behind]
        root, cotangent = trace.node_of(output), trace.node_of(seed)
        for (leaf, _), new in zip(behind, grad_nodes(trace, [root], [cotangent], wrt, False)):
            _accumulate(leaf, new)
        return
    root = output._tracked()
    if root is None:
        raise StateError(MSG_UNTRACKED)
    records = tape([root])
    found = [record for record in records if record.leaf is not None]
    # The order in which a walk over the tape meets leaves must not matter to anyone.
    found.sort(key=lambda record: (record.leaf.id, record.node.attr("id")))
    arrays = _gradients(root, seed, found, records)
    for record, array in zip(found, arrays):
        if array is not None:
            _accumulate(record.leaf, result(record.node.tensor, array))
    if not retain_graph:
        free(records)


def _seed(output: Tensor, gradient: Any) -> Tensor:
    if not output.dtype.is_float:
        raise DTypeError(f"backward() needs a floating-point value, got {output._type}")
    if gradient is None:
        if output.size != 1:
            more = ", or pass the gradient: t.backward(gradient)"
            raise ShapeError(MSG_NOT_SCALAR.format(what="backward()", type=output._type, more=more))
        return ones(output._type)
    seed = in_dtype("backward", gradient, output.dtype)
    if seed.shape != output.shape:
        raise ShapeError(
            f"backward(): the gradient of {output._type} cannot be {seed._type}; it has the shape "
            "of the value"
        )
    return seed


def _accumulate(leaf: Leaf, new: Tensor) -> None:
    old = leaf.grad
    leaf.grad = new if old is None else apply(Op.ADD, old, new).detach()


def _gradients(
    root: Record, seed: Tensor, wrt: Sequence[Record], records: Iterable[Record]
) -> list[Array | None]:
    """The arrays of d root / d wrt, None where root does not depend on it."""
    known = known_values(records)
    cotangent = seed._as_record()
    known[cotangent.node] = seed._eager()
    nodes = vjp([root.node], [cotangent.node], [record.node for record in wrt])
    arrays = iter(evaluate([node for node in nodes if node is not None], known))
    return [None if node is None else next(arrays) for node in nodes]


# -- functional gradients --------------------------------------------------------------------------


def value_and_grad(
    fn: Callable[..., Any], wrt: Any = 0, *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that gives `fn`'s value and its gradient.

    Args:
        fn: gives a floating-point scalar; with `has_aux` a pair of it and anything else.
        wrt: what to differentiate by: the number of a positional argument, a leaf, a Module (its
            trainable leaves, also those that this call makes first), a Container, or a tuple or
            list of those. An argument may be nested.
        has_aux: whether `fn` returns a pair.

    Returns:
        A function of the same arguments that returns (value, gradient); the gradient has the
        structure of `wrt`. The value and the gradient are not recorded themselves, unless the call
        is inside another `grad` or `value_and_grad`.
    """
    check_callable("grad", fn)

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        targets, collector = Targets("grad", wrt, args, growing=True), current_collector()
        before = {} if collector is None else collector.so_far()
        with history_ends() if depth() == 0 else nullcontext():
            out = run_recorded(fn, targets.args, kwargs)
            targets.grown()
            value, aux = split_aux("grad", out, has_aux, "loss")
            loss = _scalar_loss(value)
            found = pull([loss], [ones(loss._type)], targets.nodes, targets.types)
        grads = targets.rebuild(found)
        if depth() == 0:
            loss = loss.detach()
            if collector is not None:
                collector.end_gradients(before)
        return ((loss, aux) if has_aux else loss), grads

    return wrapped


def grad(fn: Callable[..., Any], wrt: Any = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of `fn`; see `value_and_grad`.

    With `has_aux` it returns (gradient, aux).
    """
    both = value_and_grad(fn, wrt, has_aux=has_aux)

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return wrapped


def _scalar_loss(value: Any) -> Tensor:
    if not isinstance(value, (Value, float, np.floating, np.ndarray)):
        raise EinkornError(
            f"the function to differentiate must return a scalar tensor, got "
            f"{type(value).__name__}; return the loss (use has_aux=True to return more)"
        )
    loss = as_tensor(value, "grad")
    if loss.size != 1:
        raise ShapeError(MSG_NOT_SCALAR.format(what="grad", type=loss._type, more=MSG_MORE))
    if not loss.dtype.is_float:
        more = "; take ek.real or abs of it" if loss.dtype.is_complex else ""
        raise DTypeError(f"grad needs a real floating-point value, got {loss._type}{more}")
    return loss
