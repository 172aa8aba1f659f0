"""`checkpoint`: the backward pass computes a function again instead of keeping its values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from einkorn.collector import current_collector, handing_over
from einkorn.convert import as_tensor
from einkorn.inner import apply_region, close, recording
from einkorn.leaf import Leaf
from einkorn.recording import Value
from einkorn.transforms.targets import check_callable
from einkorn.tree import flatten, unflatten


def checkpoint(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, whose backward pass computes the forward pass again instead of keeping its values.

    Only arguments, and what `fn` uses from outside, are kept for the backward pass. Values and
    random numbers are the same to the bit as without it, and gradients are those of a compiled
    function in the same place: what `fn` contributes to a sum is added up first. It costs one more
    forward pass of `fn`: wrap the blocks of a deep model, not all of it.

    Args:
        fn: any function of tensors, nested or not; a Module too. It is recorded once per call, so
            it must not branch on values. Parameters are best used from outside, not passed.

    Raises:
        TraceError: `fn` branches on a value.
    """
    check_callable("checkpoint", fn)

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        ends, structure = flatten((args, kwargs))
        values = {k: as_tensor(x, "checkpoint") for k, x in enumerate(ends) if is_input(x)}
        with recording("ek.checkpoint", fn) as trace:
            for k, x in values.items():
                ends[k] = trace.example(x, f"x{k}")
            new_args, new_kwargs = unflatten(structure, ends)
            returned, out_structure = flatten(handing_over(fn)(*new_args, **new_kwargs))
            kept = [k for k, x in enumerate(returned) if isinstance(x, Value)]
            outputs = [as_tensor(returned[k], "checkpoint") for k in kept]
            for x in outputs:
                trace.node_of(x)
        closed = close(trace, outputs)
        given = [*values.values(), *closed.captured]
        # Behind barriers: what was passed. What is used from outside is there anyway.
        count = len(values) or len(given)
        found = apply_region(closed.graph, given, recompute=tuple(range(count)))
        closed.commit(found[len(kept) :])
        for k, x, tracked in zip(kept, found, closed.tracked):
            returned[k] = x if tracked else x.detach()
        out, collector = unflatten(out_structure, returned), current_collector()
        return out if collector is None else collector.take(out)

    return wrapped


def is_input(x: Any) -> bool:
    """Whether an argument becomes an input of a region: tensors and arrays, but no leaves."""
    if isinstance(x, Value):
        return not isinstance(x, Leaf) and not x._weak
    return isinstance(x, np.ndarray)
