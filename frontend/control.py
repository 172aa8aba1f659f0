"""Control flow as ops: `cond`, `switch`, `while_loop`, `fori_loop`, `scan` and `map`.

Each function is traced once, whatever the number of steps, in eager mode too (twice when a Python
number among the first values turns out to be of another width): prints and other side effects in
Python do not happen in each step, and the values that it sees are stand-ins. Nests, captured leaves
and tensors, assignments to leaves and random draws work as elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from einkorn.closed import (
    Nest,
    Traced,
    apply_control,
    assign,
    check_alike,
    close,
    nest,
    trace_function,
)
from einkorn.convert import as_int, as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.creation import arange
from einkorn.ir.dtypes import bool_, int64
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.recording import Value, apply
from einkorn.tensor import Tensor
from einkorn.tracing import Trace

MSG_PAIR = (
    "scan: {name} must return a pair (carry, y), got {got}; return (carry, None) when there is "
    "nothing to stack"
)
KEPT = "enters as {} and leaves as {}"
MSG_ASSIGNS = (
    "while_loop: the condition assigns {leaf} or draws random numbers; only the body may change "
    "state"
)


# -- branches --------------------------------------------------------------------------------------


def cond(
    pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any
) -> Any:
    """`true_fn(*operands)` where `pred`, a scalar, holds, else `false_fn(*operands)`.

    Both functions are traced, one of them runs. What they return must agree in structure, shapes
    and dtypes.
    """
    condition = _scalar("cond", pred)
    if condition.dtype is not bool_:
        condition = ew.not_equal(condition, 0)
    index = apply(Op.CAST, condition, dtype=int64)
    branches = {"false_fn": false_fn, "true_fn": true_fn}
    return _choose("cond", index, branches, operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """`branches[index](*operands)`; an index outside is taken as the first or the last branch."""
    if not isinstance(branches, (list, tuple)) or not branches:
        raise EinkornError("switch takes a list of at least one function")
    number = _scalar("switch", index)
    if not number.dtype.is_integer:
        raise DTypeError(f"switch: the index is an integer, got {number._type}")
    if number.dtype is not int64:
        number = apply(Op.CAST, number, dtype=int64)
    named = {f"branch {k}": branch for k, branch in enumerate(branches)}
    return _choose("switch", number, named, operands)


def _scalar(what: str, value: Any) -> Tensor:
    found = as_tensor(value, what)
    if found.size != 1:
        raise ShapeError(f"{what} chooses by a scalar, got {found._type}; use ek.where for arrays")
    return found.reshape(())


def _choose(
    what: str, index: Tensor, branches: Mapping[str, Callable[..., Any]], operands: tuple[Any, ...]
) -> Any:
    given = nest(what, operands)
    arguments = _named("x", given)
    first: Nest | None = None
    traced: list[Traced] = []
    for name, branch in branches.items():
        how = f"is {{}} in {next(iter(branches))} and {{}} in {name}"

        def run(
            tensors: list[Tensor], trace: Trace, branch: Any = branch, how: str = how
        ) -> Sequence[Tensor]:
            nonlocal first
            found = nest(what, branch(*given.rebuild(tensors)), first)
            if first is None:
                first = found
            check_alike(what, "result", first, found, trace, how)
            return found.tensors

        traced.append(trace_function(what, branch, arguments, run))
    assert first is not None
    count = len(first.tensors)
    closed = close(traced, (len(arguments), count), [True] * len(traced))
    inputs = (index, *closed.consts, *given.tensors, *closed.state)
    found = apply_control(Op.COND, inputs, branches=tuple(closed.graphs))
    assign(closed.state, found[count:])
    return first.rebuild(found[:count])


# -- loops -----------------------------------------------------------------------------------------


def while_loop(cond_fn: Callable[[Any], Any], body_fn: Callable[[Any], Any], init: Any) -> Any:
    """The value after `value = body_fn(value)` for as long as `cond_fn(value)` holds.

    The value keeps its structure, shapes and dtypes. There is no gradient backwards through it: use
    `fori_loop` or `scan` with a bound for that.
    """
    return _while("while_loop", cond_fn, body_fn, nest("while_loop", init))


def _while(what: str, cond_fn: Any, body_fn: Any, first: Nest) -> Any:
    after = first
    arguments = _named("value", first)

    def test(tensors: list[Tensor], trace: Trace) -> Sequence[Tensor]:
        holds = _scalar(what, cond_fn(first.rebuild(tensors)))
        if holds.dtype is not bool_:
            raise DTypeError(f"{what}: the condition gives a bool, got {holds._type}")
        return [holds]

    def step(tensors: list[Tensor], trace: Trace) -> Sequence[Tensor]:
        nonlocal after
        after = nest(what, body_fn(first.rebuild(tensors)), first)
        return after.tensors

    condition = trace_function(what, cond_fn, arguments, test)
    _, assigned, _ = condition.trace.finish(condition.outputs)
    if assigned:
        raise EinkornError(MSG_ASSIGNS.format(leaf=assigned[0].name or "a leaf"))
    body = trace_function(what, body_fn, arguments, step)
    settled = first.settled(what, after)
    if settled is not None:
        return _while(what, cond_fn, body_fn, settled)
    check_alike(what, "value", first, after, body.trace, KEPT)
    closed = close([condition, body], (len(arguments), len(arguments)), [False, True])
    found = apply_control(
        Op.WHILE,
        (*closed.consts, *first.tensors, *closed.state),
        condition=closed.graphs[0],
        body=closed.graphs[1],
        consts=len(closed.consts),
    )
    assign(closed.state, found[len(arguments) :])
    return first.rebuild(found[: len(arguments)])


def fori_loop(lower: Any, upper: Any, body_fn: Callable[[Any, Any], Any], init: Any) -> Any:
    """The value after `value = body_fn(i, value)` for each i in range(lower, upper).

    With Python ints as bounds it is a scan, and has gradients; with a tensor a while loop.
    """
    if any(isinstance(x, Value) and not x._weak for x in (lower, upper)):
        bounds = [as_tensor(x, "fori_loop") for x in (lower, upper)]
        for bound in bounds:
            if bound._type != TensorType(bound.dtype, ()) or not bound.dtype.is_integer:
                raise DTypeError(f"fori_loop: a bound is one integer, got {bound._type}")
        start, stop = ew.astype(bounds[0], int64), ew.astype(bounds[1], int64)
        return while_loop(
            lambda pair: pair[0] < stop,
            lambda pair: (pair[0] + 1, body_fn(pair[0], pair[1])),
            (start, init),
        )[1]
    rule = "a bound is an integer"
    first, last = as_int("fori_loop", lower, rule), as_int("fori_loop", upper, rule)
    if not callable(body_fn):
        raise EinkornError(f"fori_loop takes functions, got {type(body_fn).__name__}")

    def step(value: Any, i: Any) -> tuple[Any, None]:
        return body_fn(i, value), None

    return scan(step, init, arange(first, max(first, last)))[0]


def scan(
    f: Callable[[Any, Any], Any],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Apply `carry, y = f(carry, x)` to each x along the first axis of `xs`.

    Args:
        f: keeps structure, shapes and dtypes of the carry.
        init: the first carry, a nest of tensors.
        xs: a nest of tensors with a first axis of one length, or None.
        length: the number of steps; needed without `xs`.
        reverse: go from the last x to the first; each y stands where its x does.

    Returns:
        The last carry, and a nest of all y stacked along a new first axis.
    """
    columns = nest("scan", xs)
    return _scan(f, nest("scan", init), columns, _steps(columns, length), int(bool(reverse)))


def _scan(f: Any, first: Nest, columns: Nest, steps: int, reverse: int) -> tuple[Any, Any]:
    rows = [type.with_shape(type.shape[1:]) for type in columns.types]
    split = len(first.tensors)
    after = given = first

    def run(tensors: list[Tensor], trace: Trace) -> Sequence[Tensor]:
        nonlocal after, given
        returned = f(first.rebuild(tensors[:split]), columns.rebuild(tensors[split:]))
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            got = type(returned).__name__
            raise EinkornError(MSG_PAIR.format(name=trace.name, got=got))
        after = nest("scan", returned[0], first)
        given = nest("scan", returned[1])
        return [*after.tensors, *given.tensors]

    labels = [f"x{label}" for label in columns.labels]
    traced = trace_function("scan", f, [*_named("carry", first), *zip(labels, rows)], run)
    settled = first.settled("scan", after)
    if settled is not None:
        return _scan(f, settled, columns, steps, reverse)
    check_alike("scan", "carry", first, after, traced.trace, KEPT)
    closed = close([traced], (split, split), [True])
    found = apply_control(
        Op.SCAN,
        (*closed.consts, *first.tensors, *closed.state, *columns.tensors),
        body=closed.graphs[0],
        consts=len(closed.consts),
        carries=split + len(closed.state),
        length=steps,
        reverse=reverse,
    )
    end = split + len(closed.state)
    assign(closed.state, found[split:end])
    return first.rebuild(found[:split]), given.rebuild(found[end:])


def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """`f` of each x along the first axis of `xs`, one after the other, stacked."""
    if not callable(f):
        raise EinkornError(f"map takes functions, got {type(f).__name__}")

    def step(_: Any, x: Any) -> tuple[tuple[()], Any]:
        return (), f(x)

    return scan(step, (), xs)[1]


def _steps(columns: Nest, length: int | None) -> int:
    """The number of steps of a scan."""
    found = None if length is None else as_int("scan", length, "the length is an integer")
    for label, type in zip(columns.labels, columns.types):
        if not type.shape:
            raise ShapeError(f"scan: xs{label} is {type}, which has no first axis to go along")
        if found is not None and type.shape[0] != found:
            other = "length" if length is not None else f"xs{columns.labels[0]}"
            raise ShapeError(
                f"scan: xs{label} has {type.shape[0]} steps and {other} has {found}; all must "
                "have the same number"
            )
        found = type.shape[0]
    if found is None:
        raise ShapeError("scan: without xs the number of steps is needed: length=...")
    if found < 0:
        raise ShapeError(f"scan: the length cannot be negative, got {found}")
    return found


def _named(name: str, given: Nest) -> list[tuple[str, TensorType]]:
    """The name and type of each tensor of a nest."""
    return [(f"{name}{label}", type) for label, type in zip(given.labels, given.types)]
