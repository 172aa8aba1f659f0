"""The options of a module's call: other values, captured outputs, expected outputs."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from einkorn.collector import Collector, open_collector
from einkorn.container import Container, check_structure
from einkorn.ir.errors import EinkornError, TraceError
from einkorn.leaf import Leaf
from einkorn.loading import fitting
from einkorn.nn.structure import INTERNAL, replaced
from einkorn.recording import Value, current_trace
from einkorn.tree import alike, describe, flatten
from einkorn.tunable import is_number, module_path

OPTIONS = frozenset({"v", "buffers", "capture", "expected", "rtol", "atol"})
RTOL, ATOL = 1e-5, 1e-8

MSG_CAPTURE = (
    '{owner}(..., capture=): give True, or patterns of paths such as "encoder/*", got {given!r}'
)
MSG_NOTHING = (
    "{owner}(..., capture={given!r}): no module with such a path was called; those called were "
    "{known}"
)
MSG_EXPECTED = "{owner}: {path!r} is expected to be called, but was not; those called were {known}"
MSG_TRACED = (
    "{owner}(..., expected=) compares values, which {trace} has only when it runs; return the "
    "captured outputs, out, outputs = model(x, capture=True), and compare them outside with "
    "ek.nn.check_outputs(outputs, expected)"
)
MSG_DIFFERS = "{owner}: what {path} returned is not what is expected: {details}"


class MismatchError(EinkornError, AssertionError):
    """A module returned something else than was expected."""


def own_options(module: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the options of the call itself out of `kwargs`; the others are `forward`'s."""
    found = {
        name: kwargs.pop(name) for name in ("v", "buffers") if isinstance(kwargs.get(name), dict)
    }
    others = [name for name in ("capture", "expected", "rtol", "atol") if name in kwargs]
    if others:
        known = inspect.signature(module.forward).parameters
        found.update((name, kwargs.pop(name)) for name in others if name not in known)
    return found


def call_with(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]
) -> Any:
    """Call a module with these options."""
    owner = type(module).__name__
    capture, expected = options.get("capture"), options.get("expected")
    patterns = _patterns(owner, capture)
    tolerances = _tolerances(owner, options, expected)
    values, buffers = options.get("v"), options.get("buffers")
    with (
        nullcontext() if values is None else with_values(module, values),
        nullcontext() if buffers is None else with_buffers(module, buffers),
    ):
        if patterns is None and expected is None:
            return module(*args, **kwargs)
        if expected is not None and current_trace.get() is not None:
            raise TraceError(MSG_TRACED.format(owner=owner, trace=current_trace.get().name))
        out, collector = captured(module, args, kwargs)
    if expected is not None:
        check_outputs(collector.outputs, expected, *tolerances, owner=owner)
    if patterns is None:
        return out
    found = collector.outputs
    chosen = {path: x for path, x in found.items() if any(fnmatchcase(path, p) for p in patterns)}
    if not chosen and capture is not True:
        known = ", ".join(found) or "none"
        raise EinkornError(MSG_NOTHING.format(owner=owner, given=capture, known=known))
    return out, chosen


def _patterns(owner: str, capture: Any) -> Sequence[str] | None:
    if capture is None or capture is False:
        return None
    if capture is True:
        return ("*",)
    patterns = [capture] if isinstance(capture, str) else capture
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(x, str) for x in patterns):
        raise EinkornError(MSG_CAPTURE.format(owner=owner, given=capture))
    return patterns


def _tolerances(owner: str, options: Mapping[str, Any], expected: Any) -> tuple[float, float]:
    if expected is None and ("rtol" in options or "atol" in options):
        raise EinkornError(f"{owner}: rtol and atol belong to expected=, which is missing")
    return options.get("rtol", RTOL), options.get("atol", ATOL)


# -- other values ----------------------------------------------------------------------------------


@contextmanager
def with_values(module: Any, values: Mapping[str, Any]) -> Generator[None]:
    """Within the block every attribute that holds a parameter holds its stand-in instead."""
    found = module._ek_built()
    other = check_structure(found.v, values, f"{type(module).__name__}(..., v=)")
    new = {id(leaf): fitting(leaf, other[path], path) for path, leaf in found.v.flat_items()}
    undo: list[tuple[Any, str, Any]] = []
    try:
        for path, inner in found.modules.items():
            state = inner.__dict__
            part = other.get(path, Container()) if path else other
            undo.append((state, "_ek_values", state.get("_ek_values")))
            state["_ek_values"] = part
            for name, value in list(state.items()):
                if name not in INTERNAL:
                    stand_in = replaced(value, new, is_module)
                    if stand_in is not value:
                        undo.append((state, name, value))
                        state[name] = stand_in
        yield
    finally:
        for state, name, value in reversed(undo):
            state[name] = value


@contextmanager
def with_buffers(module: Any, values: Mapping[str, Any]) -> Generator[None]:
    """Within the block the buffers have other values, then those from before again."""
    own = module._ek_built().buffers
    other = check_structure(own, values, f"{type(module).__name__}(..., buffers=)")
    pairs: list[tuple[Leaf, Any]] = [
        (leaf, fitting(leaf, other[path], path).detach()) for path, leaf in own.flat_items()
    ]
    old = [(leaf, leaf.detach()) for leaf, _ in pairs]
    try:
        for leaf, value in pairs:
            leaf.value = value
        yield
    finally:
        for leaf, value in old:
            leaf.value = value


def is_module(value: Any) -> bool:
    """Whether a value is a Module: what has their bookkeeping."""
    return hasattr(type(value), "_ek_found")


# -- captured and expected outputs -----------------------------------------------------------------


def captured(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bool = False
) -> tuple[Any, Collector]:
    """What a module returns, and what the modules inside return, by path below it.

    Args:
        module: what to call.
        args: positional arguments.
        kwargs: the others.
        inputs: keep what the modules are called with, too.
    """
    outer, path = open_collector.get(), module_path.get()
    key = module.__dict__.get("_ek_name", "") if path else ""
    base = (*path.split("/")[1:], *key.split("/")) if path else ()
    collector = Collector(base=base, outputs=True)
    if inputs:
        collector.inputs = {}
    token = open_collector.set(collector)
    try:
        out = module(*args, **kwargs)
    finally:
        open_collector.reset(token)
    if outer is not None:
        outer.take((None, collector.added()), key)
    return out, collector


def check_outputs(
    outputs: Mapping[str, Any],
    expected: Mapping[str, Any],
    rtol: float = RTOL,
    atol: float = ATOL,
    *,
    owner: str = "check_outputs",
) -> None:
    """Compare captured outputs with those expected, in the order in which they were made.

    Args:
        outputs: by path, as `model(x, capture=True)` gives them.
        expected: the same for some of the paths; arrays, or nests of them.
        rtol: how much an element may differ, as a part of the one expected.
        atol: how much it may differ besides.
        owner: what is named in errors.

    Raises:
        MismatchError: naming the first that differs, and where it does most.
    """
    if not isinstance(expected, Mapping):
        raise EinkornError(f"{owner}: expected outputs are a dict by path, got {expected!r}")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not is_number(value) or not value >= 0:
            raise EinkornError(f"{owner}: {name} is a number that is not negative, got {value!r}")
    for path in expected:
        if path not in outputs:
            known = ", ".join(outputs) or "none"
            raise EinkornError(MSG_EXPECTED.format(owner=owner, path=path, known=known))
    for path, out in outputs.items():
        if path in expected:
            details = _difference(out, expected[path], rtol, atol)
            if details:
                raise MismatchError(MSG_DIFFERS.format(owner=owner, path=path, details=details))


def _difference(got: Any, want: Any, rtol: float, atol: float) -> str:
    ends, structure = flatten(got)
    others, other = flatten(want)
    if not alike(structure, other):
        return f"it is {describe(structure)}, expected is {describe(other)}"
    rows = (_array_difference(a, b, rtol, atol) for a, b in zip(ends, others))
    return next(filter(None, rows), "")


def _array_difference(got: Any, want: Any, rtol: float, atol: float) -> str:
    if not isinstance(got, (Value, np.ndarray, np.generic, int, float)):
        return "" if got is want or got == want else f"it is {got!r}, expected is {want!r}"
    a, b = np.asarray(got), np.asarray(want)
    if a.shape != b.shape:
        return f"its shape is {a.shape}, expected is {b.shape}"
    wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    x, y = a.astype(wide), b.astype(wide)
    with np.errstate(all="ignore"):
        off = ~((np.abs(x - y) <= atol + rtol * np.abs(y)) | (x == y) | (np.isnan(x) & np.isnan(y)))
        size = np.where(off, np.nan_to_num(np.abs(x - y), nan=np.inf), -1.0)
    if not off.any():
        return ""
    worst = np.unravel_index(int(size.argmax()), off.shape)
    place = f" at {[int(k) for k in worst]}" if worst else ""
    return (
        f"{int(off.sum())} of {off.size} elements differ by more than {atol:g} + {rtol:g} * "
        f"|expected|, most{place}: got {a[worst]}, expected {b[worst]}"
    )
