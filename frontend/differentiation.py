"""Gradients: `backward`, `grad` and `value_and_grad`, all through the autodiff pass.

In eager mode the recording is differentiated at once and the gradient's ops are run; inside a trace
a `grad` node is recorded, which the pass `expand-autodiff` expands. Both add up in the same order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from einkorn.convert import as_tensor, in_dtype
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError, StateError
from einkorn.ir.node import Node, alias, constant, make, project
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.leaf import Leaf
from einkorn.passes.autodiff import vjp
from einkorn.recording import (
    Record,
    Value,
    apply,
    current_region,
    current_trace,
    free,
    recorded,
    result,
    spread,
    tape,
    traced,
)
from einkorn.runtime.evaluate import evaluate
from einkorn.tensor import Tensor
from einkorn.tree import flatten, unflatten

Array = np.ndarray[Any, Any]

# How many functional gradients are being taken around this point: only then are their results
# recorded themselves, for a derivative of higher order.
_depth: ContextVar[int] = ContextVar("einkorn_grad_depth", default=0)

MSG_UNTRACKED = (
    "backward() on a value that depends on nothing tracked: use it on the result of a computation "
    "with parameters or trainable leaves (ek.tensor, ek.Parameter), outside of ek.no_grad()"
)
MSG_NOT_SCALAR = "{what} needs a scalar, got {type}; take .sum() or .mean() first{more}"
MSG_WRT = "wrt is an argument's number, a leaf, a Module, or several of those; got {got}"


def depth() -> int:
    """How many functional gradients enclose this point."""
    return _depth.get()


# -- backward --------------------------------------------------------------------------------------


def backward(output: Tensor, gradient: Any, retain_graph: bool) -> None:
    """Add the gradient of `output` to `.grad` of the trainable leaves behind it."""
    seed = _seed(output, gradient)
    trace = current_trace.get()
    if trace is not None:
        behind = trace.trainable_behind(output)
        if not behind:
            raise StateError(MSG_UNTRACKED)
        grads = _grad_nodes(trace, output, seed, [node for _, node in behind], tracks=False)
        for (leaf, _), new in zip(behind, grads):
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
        return _ones(output._type)
    seed = in_dtype("backward", gradient, output.dtype)
    if seed.shape != output.shape:
        raise ShapeError(f"backward(): the gradient of {output._type} cannot be {seed._type}")
    return seed


def _ones(type: TensorType) -> Tensor:
    node = spread(constant(type.dtype, 1), type.shape)
    return result(type, np.ones(type.shape, type.dtype.numpy), node=node)


def _zeros(type: TensorType) -> Tensor:
    node = spread(constant(type.dtype, 0), type.shape)
    return result(type, np.zeros(type.shape, type.dtype.numpy), node=node)


def _accumulate(leaf: Leaf, new: Tensor) -> None:
    old = leaf.grad
    leaf.grad = new if old is None else apply(Op.ADD, old, new).detach()


def _gradients(
    root: Record, seed: Tensor, wrt: Sequence[Record], records: Iterable[Record]
) -> list[Array | None]:
    """The arrays of d root / d wrt, None where root does not depend on it."""
    nodes, known = _gradient_nodes(root, seed, wrt, records)
    arrays = iter(evaluate([node for node in nodes if node is not None], known))
    return [None if node is None else next(arrays) for node in nodes]


def _gradient_nodes(
    root: Record, seed: Tensor, wrt: Sequence[Record], records: Iterable[Record]
) -> tuple[list[Node | None], dict[Node, Array]]:
    known: dict[Node, Array] = {}
    for record in records:
        assert record.array is not None
        known[record.node] = record.array
        if record.known:
            known.update(record.known)
    seed_record = seed._as_record()
    known[seed_record.node] = seed._eager()
    return vjp([root.node], [seed_record.node], [record.node for record in wrt]), known


def _grad_nodes(
    trace: Any, output: Tensor, seed: Tensor, wrt: Sequence[Node], tracks: bool
) -> list[Tensor]:
    """A `grad` node in the trace and its results."""
    if not wrt:
        return []
    node = make(Op.GRAD, trace.node_of(output), trace.node_of(seed), *wrt)
    trace.note(node)
    return [traced(project(node, k), trace, tracks=tracks) for k in range(len(wrt))]


# -- functional gradients --------------------------------------------------------------------------


def value_and_grad(
    fn: Callable[..., Any], wrt: Any = 0, *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that gives `fn`'s value and its gradient.

    Args:
        fn: gives a floating-point scalar; with `has_aux` a pair of it and anything else.
        wrt: what to differentiate by: the number of a positional argument, a leaf, a Module (its
            trainable leaves), a Container, or a tuple or list of those. An argument may be nested.
        has_aux: whether `fn` returns a pair.

    Returns:
        A function of the same arguments that returns (value, gradient); the gradient has the
        structure of `wrt`. The value and the gradient are not recorded themselves, unless the call
        is inside another `grad` or `value_and_grad`.
    """

    if not callable(fn):
        raise EinkornError(f"a function is needed to differentiate, got {type(fn).__name__}")

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        targets = _Targets(wrt, args)
        token = _depth.set(_depth.get() + 1)
        try:
            with recorded():  # also inside no_grad(): a gradient was asked for
                out = fn(*targets.args, **kwargs)
        finally:
            _depth.reset(token)
        value, aux = _split(out, has_aux)
        loss = _scalar_loss(value)
        grads = targets.rebuild(_functional(loss, targets.values, targets.nodes))
        if _depth.get() == 0:
            loss = loss.detach()
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


def _split(out: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return out, None
    if not isinstance(out, tuple) or len(out) != 2:
        raise EinkornError("has_aux=True: the function must return a pair (loss, aux)")
    return out


def _scalar_loss(value: Any) -> Tensor:
    if not isinstance(value, (Value, float, np.floating, np.ndarray)):
        raise EinkornError(
            f"the function to differentiate must return a scalar tensor, got "
            f"{type(value).__name__}; return the loss (use has_aux=True to return more)"
        )
    loss = as_tensor(value, "grad")
    if loss.size != 1:
        raise ShapeError(MSG_NOT_SCALAR.format(what="grad", type=loss._type, more=""))
    if not loss.dtype.is_float:
        raise DTypeError(f"grad needs a floating-point value, got {loss._type}")
    return loss


class _Targets:
    """What to differentiate by: arguments under new names, and leaves."""

    def __init__(self, wrt: Any, args: tuple[Any, ...]) -> None:
        self.args = list(args)
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self._renamed: dict[int, Any] = {}
        self._plan = self._resolve(wrt)

    def _resolve(self, wrt: Any) -> Any:
        if isinstance(wrt, (tuple, list)):
            return type(wrt), [self._resolve(item) for item in wrt]
        if isinstance(wrt, bool) or wrt is None or isinstance(wrt, (str, float)):
            raise EinkornError(MSG_WRT.format(got=repr(wrt)))
        if isinstance(wrt, int):
            return self._argument(wrt)
        if hasattr(wrt, "_gradient_targets"):  # a Module: its trainable leaves
            wrt = wrt._gradient_targets()
        ends, structure = flatten(wrt)
        for end in ends:
            if not isinstance(end, Leaf):
                raise EinkornError(MSG_WRT.format(got=type(end).__name__))
            self._add(end)
        return structure, len(ends)

    def _argument(self, number: int) -> Any:
        if not -len(self.args) <= number < len(self.args):
            raise EinkornError(
                f"wrt={number}: the function was called with {len(self.args)} positional arguments"
            )
        number %= len(self.args)
        if hasattr(self.args[number], "_gradient_targets"):
            return self._resolve(self.args[number])
        ends, structure = flatten(self.args[number])
        if number in self._renamed:
            for x in ends:
                self._add(x)
            return structure, len(ends)
        self.args[number] = unflatten(structure, [self._rename(x) for x in ends])
        self._renamed[number] = structure
        return structure, len(ends)

    def _rename(self, x: Any) -> Tensor:
        """The argument as a tensor with a node of its own, so that other uses of it stay apart.

        A trainable leaf stays itself: as argument and as capture it has one gradient.
        """
        if isinstance(x, Leaf) and x._trainable:
            self._add(x)
            return x
        tensor = as_tensor(x, "grad")
        if not tensor.dtype.is_float:
            raise DTypeError(
                f"cannot differentiate by {tensor._type}: integers and bool have no gradient; cast "
                "it to a float dtype or choose another argument with wrt"
            )
        trace = current_trace.get()
        if trace is not None:
            new = traced(alias(trace.operand(tensor, True)), trace, tracks=True)
        else:
            record = tensor._as_record()
            region = current_region.get()
            record = record if region is None else region.bring(record)
            tensor._lend()
            inner = Record(alias(record.node), record.array, (record,))
            new = result(tensor._type, tensor._eager(), record=inner)
            if region is not None:
                region.add(inner)
        self._add(new)
        return new

    def _add(self, value: Value) -> None:
        trace = current_trace.get()
        if not value._type.dtype.is_float:
            raise DTypeError(f"cannot differentiate by {value._type}: it is not floating-point")
        if isinstance(value, Leaf) and not value._trainable:
            raise EinkornError(
                f"leaf {value.name or value.id} is not trainable; set leaf.trainable = True"
            )
        if trace is not None:
            node = trace.node_of(value)
        else:
            record = value._tracked() or value._as_record()
            region = current_region.get()
            node = (record if region is None else region.bring(record)).node
        self.values.append(value)
        self.nodes.append(node)

    def rebuild(self, grads: Sequence[Any]) -> Any:
        return self._build(self._plan, iter(grads))

    def _build(self, plan: Any, grads: Any) -> Any:
        head, tail = plan
        if isinstance(tail, list):
            return head(self._build(part, grads) for part in tail)
        return unflatten(head, [next(grads) for _ in range(tail)])


def _functional(loss: Tensor, values: Sequence[Value], wrt: Sequence[Node]) -> list[Tensor]:
    """The gradients of a scalar by nodes of the recording or the trace."""
    seed = _ones(loss._type)
    trace = current_trace.get()
    nested = _depth.get() > 0
    if trace is not None:
        if not trace.tracks(loss):
            return [_zeros(value._type) for value in values]
        return _grad_nodes(trace, loss, seed, wrt, tracks=nested)
    root = loss._tracked()
    types = [value._type for value in values]
    if root is None:
        return [_zeros(type) for type in types]
    region = current_region.get()
    root = root if region is None else region.bring(root)
    records = tape([root])
    targets = [Record(node, None) for node in wrt]
    nodes, known = _gradient_nodes(root, seed, targets, records)
    wanted = [node for node in nodes if node is not None]
    kept: dict[Node, Array] = {}
    arrays = iter(evaluate(wanted, known, kept if nested else None))
    grads: list[Tensor] = []
    for node, type in zip(nodes, types):
        if node is None:
            grads.append(_zeros(type))
            continue
        array = next(arrays)
        record = Record(node, array, (root,), known=kept) if nested else None
        if record is not None and region is not None:
            region.add(record)
        grads.append(result(type, array, record=record))
    return grads
