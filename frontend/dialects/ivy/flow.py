"""Control flow as Ivy writes it: functions, and the variables that they share.

`vars` is a tuple, whose items are positional arguments, or a dict, whose items are keywords.
Conditions on tensors become `ek.cond` and `ek.while_loop`; others are Python's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from einkorn import control
from einkorn.container.base import is_array
from einkorn.ir.errors import EinkornError, TraceError
from einkorn.recording import Value
from einkorn.tree import tree_leaves

MSG_VARS = "{what}: vars is a tuple or a dict, got {kind}"
MSG_COUNT = "{what}: the body takes {count} variables and returned {found}"


def if_else(
    cond: Any, body_fn: Callable[..., Any], orelse_fn: Callable[..., Any], vars: Any = ()
) -> Any:
    """What `body_fn` returns for the variables if `cond` holds for them, else `orelse_fn`.

    Args:
        cond: a function of the variables, or a bool.
    """
    args, named = _arguments("if_else", vars)
    holds = cond(*args, **named) if callable(cond) and not isinstance(cond, Value) else cond
    if is_array(holds):
        return control.cond(
            holds, lambda: body_fn(*args, **named), lambda: orelse_fn(*args, **named)
        )
    return (body_fn if holds else orelse_fn)(*args, **named)


def while_loop(test_fn: Callable[..., Any], body_fn: Callable[..., Any], vars: Any) -> Any:
    """The variables after `body_fn` has replaced them as long as `test_fn` holds for them.

    With a tensor among them they keep their types, and the functions are recorded once.
    """

    def test(now: Any) -> Any:
        args, named = _arguments("while_loop", now)
        return test_fn(*args, **named)

    def step(now: Any) -> Any:
        args, named = _arguments("while_loop", now)
        return _like("while_loop", now, body_fn(*args, **named))

    now = vars if isinstance(vars, Mapping) else tuple(_arguments("while_loop", vars)[0])
    if any(map(is_array, tree_leaves(now))):
        return control.while_loop(test, step, now)
    while test(now):
        now = step(now)
    return now


def for_loop(
    iterable: Iterable[Any], body_fn: Callable[[Any, Any], Any], vars: Any = ()
) -> tuple[Any, ...]:
    """The variables after `body_fn(item, variables)` has replaced them for each item.

    The loop is Python's: a compiled function has the body once for each item.
    """
    now = tuple(_arguments("for_loop", vars)[0])
    for item in iterable:
        now = _like("for_loop", now, body_fn(item, now))
    return now


def try_except(body1: Callable[..., Any], body2: Callable[..., Any], vars: Any = ()) -> Any:
    """What `body1` returns for the variables, or `body2` for them and the error of `body1`."""
    args, named = _arguments("try_except", vars)
    try:
        return body1(*args, **named)
    except TraceError:  # about the compiled function around, which would hide it
        raise
    except Exception as error:
        return body2(*args, error, **named)


def _arguments(what: str, vars: Any) -> tuple[Any, dict[str, Any]]:
    """The positional arguments and the keywords that variables stand for."""
    if isinstance(vars, Mapping):
        return (), dict(vars)
    if not isinstance(vars, (tuple, list)):
        raise EinkornError(MSG_VARS.format(what=what, kind=type(vars).__name__))
    return vars, {}


def _like(what: str, now: Any, new: Any) -> Any:
    """New variables in the form of those before."""
    if isinstance(now, Mapping) and isinstance(new, Mapping):
        return dict(new)
    values = new if isinstance(new, (tuple, list)) else () if new is None else (new,)
    if len(values) != len(now):
        raise EinkornError(MSG_COUNT.format(what=what, count=len(now), found=len(values)))
    return dict(zip(now, values, strict=True)) if isinstance(now, Mapping) else tuple(values)
