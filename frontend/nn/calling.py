"""The options of a module's call: other values, captured outputs, expected outputs."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from einkorn.collector import OUTPUTS, Collector, open_collector
from einkorn.container import Container, check_structure, frozen
from einkorn.ir.errors import EinkornError, TraceError
from einkorn.leaf import Leaf
from einkorn.loading import fitting
from einkorn.nn.structure import INTERNAL, Structure, replaced
from einkorn.recording import Value, current_trace
from einkorn.runtime.settings import override
from einkorn.tree import alike, describe, flatten
from einkorn.tunable import is_number, module_path
from einkorn.watched import showing

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


MSG_VALUES = (
    "{owner}(..., {name}=) takes a Container or dict of values like {owner}.{name}, got {kind}"
)
MSG_STRUCTURE = (
    "{error}; to exchange some of them only, give {kind}=model.{kind}.overwrite_at_key_chains("
    '{{"a/path": value}})'
)


class MismatchError(EinkornError, AssertionError):
    """A module returned something else than was expected."""


def own_options(module: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the options of the call itself out of `kwargs`; the others are `forward`'s."""
    parameters = inspect.signature(module.forward).parameters.values()
    known = {p.name for p in parameters}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    found: dict[str, Any] = {}
    for name in ("v", "buffers"):
        value = kwargs.get(name)
        if isinstance(value, dict):
            found[name] = kwargs.pop(name)
        elif name in kwargs and name not in known and not takes_all:
            if kwargs.pop(name) is not None:
                owner, kind = type(module).__name__, type(value).__name__
                raise EinkornError(MSG_VALUES.format(owner=owner, name=name, kind=kind))
    others = [name for name in ("capture", "expected", "rtol", "atol") if name in kwargs]
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
    chosen = {name: x for name, x in found.items() if _is_chosen(name, patterns)}
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


def _is_chosen(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits a path; it then fits later calls of that module, "act#2", too."""
    path = name.partition("#")[0]
    return any(fnmatchcase(name, p) or fnmatchcase(path, p) for p in patterns)


def _tolerances(owner: str, options: Mapping[str, Any], expected: Any) -> tuple[float, float]:
    if expected is None and ("rtol" in options or "atol" in options):
        raise EinkornError(f"{owner}: rtol and atol belong to expected=, which is missing")
    return options.get("rtol", RTOL), options.get("atol", ATOL)


# -- other values ----------------------------------------------------------------------------------


@contextmanager
def with_values(module: Any, values: Mapping[str, Any]) -> Generator[None]:
    """Within the block every attribute that holds a parameter shows its stand-in instead."""
    found = module._ek_built()
    other = _like(found.v, values, type(module).__name__, "v")
    new = {leaf: fitting(leaf, other[path], path) for path, leaf in found.v.flat_items()}
    with _showing(found, "v", new):
        yield


@contextmanager
def with_buffers(module: Any, values: Mapping[str, Any]) -> Generator[None]:
    """Within the block the buffers have other values; what is assigned to them is forgotten."""
    found = module._ek_built()
    own = found.buffers
    other = _like(own, values, type(module).__name__, "buffers")
    new = {leaf: fitting(leaf, other[path], path).detach() for path, leaf in own.flat_items()}
    if current_trace.get() is None:
        made = {leaf: Leaf(value, name=leaf.name) for leaf, value in new.items()}
        with _showing(found, "buffers", made):
            yield
        return
    old = [(leaf, leaf.detach()) for leaf in new]  # assignments belong to the trace
    try:
        for leaf, value in new.items():
            leaf.value = value
        yield
    finally:
        for leaf, value in old:
            leaf.value = value


def _like(own: Container, values: Mapping[str, Any], owner: str, kind: str) -> Container:
    """The values of a call as a Container of the same keys."""
    try:
        return check_structure(own, values, f"{owner}(..., {kind}=)")
    except EinkornError as error:
        raise EinkornError(MSG_STRUCTURE.format(error=error, kind=kind)) from None


@contextmanager
def _showing(found: Structure, kind: str, new: Mapping[Leaf, Any]) -> Generator[None]:
    """Within the block other values stand for leaves, for whoever runs in this context.

    Nothing is written to the modules, so other threads do not see it. Compiled functions that a
    `forward` calls have traces that know the leaves only: outside of a trace they run eagerly.

    Args:
        found: the modules.
        kind: "v" or "buffers", the attribute that shows all of them.
        new: what stands for each leaf.
    """
    by_id = {id(leaf): value for leaf, value in new.items()}
    whole = frozen(getattr(found, kind).map(lambda leaf: new[leaf]), "values of this call")
    stand_ins: dict[int, dict[str, Any]] = {}
    for path, inner in found.modules.items():
        shown = stand_ins[id(inner)] = {kind: whole.get(path, Container()) if path else whole}
        for name, value in inner.__dict__.items():
            stand_in = value if name in INTERNAL else replaced(value, by_id, is_module)
            if stand_in is not value:
                shown[name] = stand_in
    is_eager = current_trace.get() is None
    with showing(stand_ins), override(compile=False) if is_eager else nullcontext():
        yield


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
        outer.take((None, [*collector.added(), (OUTPUTS, "", out)]), key)
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
    numbers = (Value, np.ndarray, np.generic, int, float, complex)
    if not isinstance(got, numbers) or not isinstance(want, numbers):
        shown = (x._type if isinstance(x, Value) else reprlib.repr(x) for x in (got, want))
        return "" if got is want or got == want else "it is {}, expected is {}".format(*shown)
    a, b = np.asarray(got), np.asarray(want)
    if a.shape != b.shape:
        return f"its shape is {a.shape}, expected is {b.shape}"
    wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    x, y = a.astype(wide), b.astype(wide)
    with np.errstate(all="ignore"):
        near = np.isfinite(y) & (np.abs(x - y) <= atol + rtol * np.abs(y))
        off = ~(near | (x == y) | (np.isnan(x) & np.isnan(y)))
        size = np.where(off, np.nan_to_num(np.abs(x - y), nan=np.inf), -1.0)
    if not off.any():
        return ""
    worst = np.unravel_index(int(size.argmax()), off.shape)
    place = f" at {[int(k) for k in worst]}" if worst else ""
    return (
        f"{int(off.sum())} of {off.size} elements differ by more than {atol:g} + {rtol:g} * "
        f"|expected|, most{place}: got {a[worst]}, expected {b[worst]}"
    )
