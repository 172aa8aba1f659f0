"""`ek.callback`: Python functions that each call of a compiled function calls, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from einkorn.convert import as_tensor
from einkorn.functions.manipulation import as_sizes
from einkorn.ir.callbacks import Callback, run
from einkorn.ir.dtypes import as_dtype, bool_
from einkorn.ir.errors import EinkornError, TraceError
from einkorn.ir.node import Node, constant, make, make_region, project
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.recording import current_trace, result, traced, user_origin
from einkorn.tensor import Tensor
from einkorn.tree import alike, describe, flatten, unflatten

MSG_INSIDE = (
    "ek.callback at {where}: inside of {name}, a function that a loop, a branch or a transform of "
    "einkorn records, it would have no place in the order of calls; call it outside, with what "
    "that function returns"
)
MSG_RESULTS = (
    "ek.callback: {what!r} in the declared results has no shape and dtype; declare them as "
    "ek.ShapeDtype((2, 3), 'float32'), or by an array or tensor of that kind"
)


class ShapeDtype:
    """The shape and dtype of an array that is not there yet; an end of nests, not a nest."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: Any, dtype: Any) -> None:
        self.dtype = as_dtype(dtype)
        self.shape = as_sizes("ShapeDtype", shape, self.dtype)

    def __repr__(self) -> str:
        return f"ShapeDtype({self.shape}, {self.dtype.name!r})"


def callback(function: Callable[..., Any], results: Any, /, *operands: Any) -> Any:
    """What `function` returns for the values of `operands`, called each time the step runs.

    In a compiled function it is called inside the native call, in the order of the program, before
    any state changes; when it raises, no state has changed. No gradient flows through it. It
    cannot come before a branch on a tensor.

    Args:
        function: takes NumPy arrays nested as the operands are, its own to keep, and returns arrays
            nested as `results` is; nothing, when that is None.
        results: the shape and dtype of each array: `ek.ShapeDtype`, an array or a tensor, nested.
        operands: tensors and arrays, nested in tuples, lists and dicts.
    """
    if not callable(function):
        raise EinkornError(f"ek.callback takes a function first, got {type(function).__name__}")
    specs, structure = flatten(results) if results is not None else ([], None)
    types = tuple(_type_of(spec) for spec in specs)
    ends, outer = flatten(operands)
    tensors = [as_tensor(x, "callback").detach() for x in ends]

    def call(*arrays: Any) -> Sequence[Any]:
        found = function(*unflatten(outer, list(arrays)))
        if structure is None:
            return ()
        parts, shape = flatten(found)
        if not alike(shape, structure):
            raise EinkornError(
                f"ek.callback: {name} returned {describe(shape)}, declared is {describe(structure)}"
            )
        return parts

    name = getattr(function, "__name__", type(function).__name__)
    found = _call(Callback(call, name), types, tensors)
    return None if structure is None else unflatten(structure, found)


def _call(callback: Callback, types: tuple[TensorType, ...], tensors: list[Tensor]) -> list[Tensor]:
    trace = current_trace.get()
    if trace is None:
        arrays = [x._eager() for x in tensors]
        token = np.ones((), np.bool_)
        made = run(*arrays, token, callback=callback, results=types, id=0)
        return [result(type, np.array(x)) for type, x in zip(types, made[1:] if types else ())]
    inside = trace.recorded_once
    if inside is not None:
        raise TraceError(MSG_INSIDE.format(where=user_origin(), name=inside.name))
    nodes = [*map(trace.node_of, tensors), _before(trace)]
    node = make_region(Op.CALLBACK, nodes, callback=callback, results=types)
    trace.note(node)
    trace.token = project(node, 0)
    return [traced(project(node, k + 1), trace) for k in range(len(types))]


def _before(trace: Any) -> Node:
    """What comes before the next callback: the last one, or the branches taken so far.

    A compiled function that another one calls goes on where that is.
    """
    if trace.token is not None:
        return trace.token
    if trace.outer is not None:
        before = _before(trace.outer)
        return trace.node_of(result(before.tensor, node=before, trace=trace.outer))
    found: Node | None = None
    for branch in trace.branches.taken if trace.branches is not None else ():
        found = branch.check if found is None else make(Op.OR, found, branch.check)
    return constant(bool_, True) if found is None else found


def _type_of(spec: Any) -> TensorType:
    if not hasattr(spec, "shape") or not hasattr(spec, "dtype"):
        raise EinkornError(MSG_RESULTS.format(what=spec))
    return TensorType(as_dtype(spec.dtype), tuple(spec.shape))
