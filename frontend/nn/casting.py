"""`Module.to`: the same module with parameters and buffers of another dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.convert import check_device
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import DType, as_dtype
from einkorn.ir.errors import DTypeError, TraceError
from einkorn.leaf import Leaf
from einkorn.nn.calling import is_module
from einkorn.nn.structure import INTERNAL, is_parameter, replaced, set_trainable
from einkorn.recording import current_trace, no_grad

MSG_KIND = "{owner}.to(): a model is cast to a floating-point dtype, got {dtype}"
MSG_TRACED = (
    "{owner}.to() makes new leaves while {trace} is being traced, which a call would not repeat; "
    "cast the model outside"
)


def cast(module: Any, target: Any) -> None:
    """Give every floating-point leaf of a module another dtype, by other leaves in its place."""
    owner = type(module).__name__
    dtype = _dtype_of(owner, target)
    if dtype is None:
        return
    if not dtype.is_float:
        raise DTypeError(MSG_KIND.format(owner=owner, dtype=dtype))
    trace = current_trace.get()
    if trace is not None:
        raise TraceError(MSG_TRACED.format(owner=owner, trace=trace.name))
    found = module._ek_built()
    leaves = [*found.v.to_flat_list(), *found.buffers.to_flat_list()]
    new = {id(leaf): _other(leaf, dtype) for leaf in leaves if _changes(leaf, dtype)}
    for inner in found.modules.values():
        for name, value in list(inner.__dict__.items()):
            if name not in INTERNAL:
                other = replaced(value, new, is_module)
                if other is not value:
                    setattr(inner, name, other)


def _dtype_of(owner: str, target: Any) -> DType | None:
    """The dtype that is meant; None for a device."""
    if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda", "gpu", "mps"):
        check_device(f"{owner}.to", target)
        return None
    return as_dtype(target)


def _changes(leaf: Leaf, dtype: DType) -> bool:
    return leaf.dtype.is_float and leaf.dtype is not dtype


def _other(leaf: Leaf, dtype: DType) -> Leaf:
    with no_grad():
        value = np.asarray(ew.astype(leaf.detach(), dtype))
    made = type(leaf)(value, dtype, trainable=leaf.trainable, name=leaf.name)
    if is_parameter(leaf) and not is_parameter(made):
        set_trainable(made, False)
    return made
