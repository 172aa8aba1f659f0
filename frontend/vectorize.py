"""`vmap`: a function of one example, applied to a whole batch at once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from einkorn.convert import as_tensor, is_weak
from einkorn.functions.manipulation import moveaxis
from einkorn.inner import Closed, close, recording, replay
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.ir.ops import Op
from einkorn.leaf import Counter
from einkorn.passes.batching.regions import batch_graph
from einkorn.passes.scan_variants import share_scans
from einkorn.recording import Value, apply
from einkorn.tensor import Tensor
from einkorn.tree import END, Structure, describe, flatten, paths, unflatten

MSG_PREFIX = (
    "vmap: {name} is an int, None, or a nest of them that matches {of} {structure}; got {got}"
)
MSG_NOT_ARRAY = (
    "vmap: {name} is {got}, which has no axis {axis} to map over; give in_axes=None for what all "
    "examples share"
)
MSG_AXIS = "vmap: {name} is {type}, which has no axis {axis}; in_axes and out_axes name axes"
MSG_SIZES = (
    "vmap: the mapped axes have different sizes: {rows}; give in_axes=None for what all examples "
    "share"
)
MSG_NO_SIZE = "vmap: in_axes maps no argument; map one of them, or give axis_size="
MSG_SHARED_OUT = (
    "vmap: the result{where} has a value for each example, so it cannot have out_axes=None; give "
    "the place of the batch axis, or reduce it outside"
)
MSG_STATE = (
    "vmap: {leaf} was assigned a value for each example; a leaf holds one. Return the values and "
    "assign their mean or sum outside of vmap"
)


def vmap(
    fn: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0, *, axis_size: int | None = None
) -> Callable[..., Any]:
    """A function that applies `fn` to every example of a batch: out[b] = fn(x[b], y[b], ...).

    `fn` is recorded once, with the types of one example; its graph is then batched, op by op, so
    the cost is that of ops on larger arrays. What does not depend on the batch is computed once.
    `fn` may use anything from outside, which all examples share, and may itself be a gradient:
    `vmap(grad(loss), in_axes=(None, 0))` gives the gradient of each example. A draw without a key
    of the example's own gives all examples the same numbers; map over `ek.random.split(key, n)`
    for different ones.

    Args:
        fn: the function of one example. Keyword arguments are mapped over their first axis.
        in_axes: the axis to map over, None for what all examples share; or one for each argument,
            each of which may be a nest that matches (the beginning of) the argument.
        out_axes: where the batch axis goes in the result; None for what is the same for all.
        axis_size: the number of examples; needed only when no argument is mapped.

    Raises:
        ShapeError: an axis is out of range, or sizes differ.
        TraceError: `fn` branches on a value, or a shape depends on one.
        EinkornError: in_axes or out_axes do not match, or a leaf is assigned a batch.
    """
    if not callable(fn):
        raise EinkornError(f"vmap: a function is needed as the first argument, got {fn!r}")

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        ends, structure = flatten((args, kwargs))
        axes = _in_axes(in_axes, args, kwargs)
        names = _names(fn, structure)
        mapped = {
            k: _front(name, end, axis)
            for k, (name, end, axis) in enumerate(zip(names, ends, axes))
            if axis is not None
        }
        size = _size(axis_size, [(names[k], x, axes[k]) for k, x in mapped.items()])
        with recording("ek.vmap", fn) as trace:
            for k, x in mapped.items():
                example = x._type.with_shape(x.shape[1:])
                ends[k] = trace.example(x, names[k], example)
            new_args, new_kwargs = unflatten(structure, ends)
            returned, out_structure = flatten(fn(*new_args, **new_kwargs))
            kept = [k for k, x in enumerate(returned) if _is_array(x)]
            outputs = [as_tensor(returned[k], "vmap") for k in kept]
            for x in outputs:
                trace.node_of(x)
        places = spread_prefix("out_axes", out_axes, "the result", out_structure)
        where = paths(out_structure)
        found = apply_batched(close(trace, outputs), list(mapped.values()), size)
        for k, (x, many) in zip(kept, found):
            returned[k] = _placed(x, many, places[k], size, where[k])
        return unflatten(out_structure, returned)

    return wrapped


def apply_batched(closed: Closed, values: Sequence[Value], size: int) -> list[tuple[Tensor, bool]]:
    """The outputs of a recorded function whose inputs all have the batch axis in front.

    Returns:
        Each output, and whether it has the batch axis.
    """
    captured = closed.captured
    flags = [True] * len(values) + [False] * len(captured)
    graph, batched = batch_graph(closed.graph, flags, size)
    graph = share_scans(graph)
    count = len(closed.tracked)
    held = list(zip((*closed.with_grad, *closed.updated), batched[count:]))
    for leaf, many in held:
        if many and not isinstance(leaf, Counter):
            raise EinkornError(MSG_STATE.format(leaf=leaf.name or f"leaf {leaf.id}"))
    found = replay(graph, [*values, *captured])
    for k, (leaf, many) in enumerate(held, count):
        if many:  # a counter
            found[k] = apply(Op.MAX, found[k], axes=(0,)) if size else leaf
    closed.commit(found[count:])
    # Derivatives inside are not recorded unless they are nested, so they are not from outside.
    rows = zip(found, closed.tracked, batched)
    return [(x if tracked else x.detach(), many) for x, tracked, many in rows]


def _is_array(x: Any) -> bool:
    return isinstance(x, Value) or is_weak(x) or hasattr(x, "__array__")


# -- arguments -------------------------------------------------------------------------------------


def _in_axes(in_axes: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int | None]:
    """The axis of every end of the arguments."""
    _, structure = flatten(args)
    prefix = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    by_position = spread_prefix("in_axes", prefix, "the arguments", structure)
    return by_position + [0] * len(flatten(kwargs)[0])


def spread_prefix(name: str, prefix: Any, of: str, structure: Structure) -> list[int | None]:
    """The axis of every end of a structure from a nest that ends where axes are the same."""
    try:
        return _spread(prefix, structure)
    except _Mismatch:
        raise EinkornError(
            MSG_PREFIX.format(name=name, of=of, structure=describe(structure), got=repr(prefix))
        ) from None


class _Mismatch(Exception):
    """A prefix does not match a structure."""


def _spread(prefix: Any, structure: Structure) -> list[int | None]:
    if prefix is None or type(prefix) is int:
        return [prefix] * len(paths(structure))
    if structure == END:
        raise _Mismatch
    kind, _, keys, _, *inside = structure
    if kind == "dict":
        if not isinstance(prefix, dict) or set(prefix) != set(keys):
            raise _Mismatch
        parts = [dict.__getitem__(prefix, key) for key in keys]
    elif kind == "dataclass":
        if not all(hasattr(prefix, key) for key in keys):
            raise _Mismatch
        parts = [getattr(prefix, key) for key in keys]
    else:
        if not isinstance(prefix, (tuple, list)) or len(prefix) != len(inside):
            raise _Mismatch
        parts = list(prefix)
    return [axis for part, below in zip(parts, inside) for axis in _spread(part, below)]


def _names(fn: Callable[..., Any], structure: Structure) -> list[str]:
    """A name for every end of the arguments: the parameter's, and the way to it."""
    try:
        known = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        known = []
    names: list[str] = []
    for side, key, *rest in paths(structure):
        named = side == 1 or key < len(known)
        head = (key if side == 1 else known[key]) if named else f"argument {key}"
        names.append("/".join(map(str, (head, *rest))))
    return names


def _front(name: str, x: Any, axis: int) -> Tensor:
    """A mapped argument with its batch axis first."""
    if not _is_array(x) or is_weak(x):
        got = f"a {type(x).__name__}" if not isinstance(x, Value) else "a number"
        raise EinkornError(MSG_NOT_ARRAY.format(name=name, got=got, axis=axis))
    tensor = as_tensor(x, "vmap")
    if not -tensor.ndim <= axis < tensor.ndim:
        raise ShapeError(MSG_AXIS.format(name=name, type=tensor._type, axis=axis))
    axis %= tensor.ndim
    return moveaxis(tensor, axis, 0) if axis else tensor


def _size(given: int | None, rows: Sequence[tuple[str, Tensor, int | None]]) -> int:
    sizes = {x.shape[0] for _, x, _ in rows}
    if given is not None:
        sizes.add(given)
    if len(sizes) > 1:
        listed = [f"{name} has {x.shape[0]} along axis {axis}" for name, x, axis in rows]
        listed += [] if given is None else [f"axis_size is {given}"]
        raise ShapeError(MSG_SIZES.format(rows=", ".join(listed)))
    if not sizes:
        raise EinkornError(MSG_NO_SIZE)
    return sizes.pop()


# -- results ---------------------------------------------------------------------------------------


def _placed(x: Tensor, many: bool, axis: int | None, size: int, path: tuple[Any, ...]) -> Tensor:
    """A result with the batch axis where out_axes wants it."""
    where = f" at {'/'.join(map(str, path))}" if path else ""
    if axis is None:
        if many:
            raise EinkornError(MSG_SHARED_OUT.format(where=where))
        return x
    if not many:
        x = apply(Op.BROADCAST, x, shape=(size, *x.shape))
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(MSG_AXIS.format(name=f"the result{where}", type=x._type, axis=axis))
    return moveaxis(x, 0, axis) if axis % x.ndim else x
