"""Eager execution of one op: NumPy where it gives the canonical bits, a one-op program elsewhere.

Programs are found by op, attributes and operand types, and run through the same pipeline, kernels
and driver as compiled steps.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from einkorn.ir.dtypes import DType
from einkorn.ir.errors import BoundsError
from einkorn.ir.graph import Graph
from einkorn.ir.host_calls import call_host, on_host, result_types
from einkorn.ir.node import infer, make, placeholder
from einkorn.ir.ops import OPS, Op
from einkorn.ir.types import TensorType
from einkorn.runtime import settings
from einkorn.runtime.compiler import compile_graph
from einkorn.runtime.executable import Executable
from einkorn.runtime.locks import LOCKS
from einkorn.runtime.memory import address_of

Array = np.ndarray[Any, Any]
Attrs = dict[str, Any]

CACHED_OPS = 8192

_programs: OrderedDict[Any, tuple[Executable, TensorType]] = OrderedDict()

MSG_BOUNDS = (
    "{what}: an index is out of range; every index must be at least -n and less than n for an axis "
    "of n elements. Nothing was changed."
)


def run_op(op: Op, types: Sequence[TensorType], arrays: Sequence[Array], attrs: Attrs) -> Array:
    """The result of one op on arrays of the given types; elementwise operands may broadcast."""
    row = OPS[op]
    if on_host(op, types):
        return run_host(op, types, arrays, attrs)[0]
    if row.exact and row.numpy is not None:
        with np.errstate(all="ignore"):
            return np.asarray(row.numpy(*arrays, **attrs))
    return _run_program(op, types, arrays, attrs)


def run_host(
    op: Op, types: Sequence[TensorType], arrays: Sequence[Array], attrs: Attrs
) -> list[Array]:
    """The results of a node that is computed on the host."""
    if OPS[op].elementwise and len(types) > 1:  # as the compiled step, on operands of one shape
        shape = np.broadcast_shapes(*(type.shape for type in types))
        types = [type.with_shape(shape) for type in types]
        arrays = [np.broadcast_to(x, shape) for x in arrays]
    return call_host(op, attrs, arrays, result_types(infer(op, types, attrs)))


def run_cast(source: Array, type: TensorType, dtype: DType) -> Array:
    """`cast` on one array; NumPy does the conversions that are exact."""
    if dtype is type.dtype:
        return source
    if on_host(Op.CAST, (type, type.with_dtype(dtype))):
        return run_host(Op.CAST, [type], [source], {"dtype": dtype})[0]
    if _widening(type.dtype, dtype):
        return source.astype(dtype.numpy)
    return _run_program(Op.CAST, [type], [source], {"dtype": dtype})


def _widening(source: DType, target: DType) -> bool:
    if source.kind == "b":
        return True
    if source.is_float:
        return target.is_float and target.itemsize > source.itemsize
    if target.is_float:
        return target.itemsize > source.itemsize and target.itemsize >= 4
    return target.itemsize >= source.itemsize


def _run_program(
    op: Op, types: Sequence[TensorType], arrays: Sequence[Array], attrs: Attrs
) -> Array:
    key = (op, tuple(types), tuple(attrs.items()))
    found = _programs.get(key)
    if found is None:
        found = _build(op, types, attrs)
        with LOCKS.programs:
            _programs[key] = found
            while len(_programs) > CACHED_OPS:
                _programs.popitem(last=False)
    executable, type = found
    return run_arrays(executable, arrays, [type], op.name.lower())[0]


def clear_caches() -> None:
    """Forget the programs of single ops."""
    with LOCKS.programs:
        _programs.clear()


def run_arrays(
    executable: Executable, arrays: Sequence[Array], types: Sequence[Any], name: str
) -> list[Array]:
    """Run a program without captures or updates on arrays; BoundsError for a bad index."""
    dense = [np.ascontiguousarray(x) for x in arrays]
    outputs = [np.empty(type.shape, type.dtype.numpy) for type in types]
    addresses = array("q", [address_of(x) for x in (*dense, *outputs)])
    if executable.run(addresses, settings.current().threads):
        raise BoundsError(MSG_BOUNDS.format(what=name))
    return outputs


def _build(op: Op, types: Sequence[TensorType], attrs: Attrs) -> tuple[Executable, TensorType]:
    inputs = tuple(placeholder(type) for type in types)
    operands = inputs
    if OPS[op].elementwise and len(types) > 1:
        shape = np.broadcast_shapes(*(type.shape for type in types))
        operands = tuple(make(Op.BROADCAST, node, shape=shape) for node in inputs)
    result = make(op, *operands, **attrs)
    graph = Graph(op.name.lower(), inputs, (), (result,))
    return compile_graph(graph), result.tensor
