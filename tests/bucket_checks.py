"""Shared by the tests of buckets: padded calls against calls without padding, to the bit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from compile_checks import assert_same_nest

import einkorn as ek
from einkorn import padded_arguments
from einkorn.ir.graph import Graph
from einkorn.ir.ops import Op
from einkorn.passes.autodiff import expand
from einkorn.passes.padding.context import touches

compile_module: Any = sys.modules["einkorn.compile"]  # whose name in the package is a function

POISON = ("nan", "huge")

Arrays = Callable[[int], tuple[Any, ...]]


def _filling(kind: str) -> Callable[[np.dtype[Any]], Any]:
    def filling(dtype: np.dtype[Any]) -> Any:
        if dtype.kind == "b":
            return True
        if dtype.kind in "iu":
            return np.iinfo(dtype).max if kind == "huge" else np.iinfo(dtype).min
        return np.nan if kind == "nan" else dtype.type(3e4)

    return filling


@contextmanager
def poisoned(kind: str) -> Generator[None]:
    """Within the block padding holds NaN and the least integers ("nan"), or what is huge."""
    before, padded_arguments.filling = padded_arguments.filling, _filling(kind)
    try:
        yield
    finally:
        padded_arguments.filling = before


def padded_ops(fn: Callable[..., Any], arguments: tuple[Any, ...], buckets: Any) -> set[Op]:
    """The ops of all nodes with sizes in the trace of a call, derivatives expanded."""
    seen: set[Op] = set()
    before = compile_module.pad

    def noting(graph: Graph) -> Any:
        seen.update(node.op for node in expand(graph).nodes if touches(node))
        return before(graph)

    compile_module.pad = noting
    try:
        ek.compile(fn, buckets=buckets).trace(*arguments)
    finally:
        compile_module.pad = before
    return seen


def check_padded(
    fn: Callable[..., Any],
    arrays: Arrays,
    buckets: Mapping[str, Mapping[int, Any]],
    sizes: Iterable[int] = (5, 8, 13),
    poison: Iterable[str] = POISON,
) -> None:
    """A function gives the same bits with buckets, whatever the padding holds, as without.

    Args:
        fn: of arrays.
        arrays: what it is called with, for a size.
        buckets: which of their axes have that size.
    """
    for kind in poison:
        step = ek.compile(fn, buckets=buckets, on_retrace="allow")
        plain = ek.compile(fn, on_retrace="allow")
        with poisoned(kind):
            for n in sizes:
                given = arrays(n)
                ek.random.seed(n)
                found = step(*given)
                ek.random.seed(n)
                assert_same_nest(found, plain(*given))
        assert any("shape" in text for x in step.explain().traces for text in x.guards)
