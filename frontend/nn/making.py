"""Modules that are made inside `forward`: found again by the order in which they are made.

The first run of a `forward` makes them and keeps them as attributes; every later one gets the same
ones back, and an error when it asks for others, for more or for fewer. Parameters and buffers are
found again by their names.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np

from einkorn.ir.dtypes import DType
from einkorn.ir.errors import DTypeError, ShapeError, StateError, TraceError
from einkorn.ir.graph import Origin
from einkorn.nn.building import outside, undo_build
from einkorn.recording import Value, current_trace, user_origin
from einkorn.running import Call
from einkorn.runtime.locks import LOCKS
from einkorn.tree import tree_map
from einkorn.tunable import module_path

# The entry of a module's `__dict__` that holds what its forward has made.
MADE = "_ek_made"

RULE = (
    "Modules made in forward come in the same order, with the same arguments, in every call; make "
    "what varies in __init__ and choose in forward"
)
MSG_OTHER = "{owner}.forward made {old} at {where} before, and now makes {new} at {here}. " + RULE
MSG_MORE = (
    "{owner}.forward made {count} before, the last one {old} at {where}, and now makes {new} at "
    "{here} besides. " + RULE
)
MSG_FEWER = (
    "{owner}.forward has not made {old}, as it did at {where} before; {last}. It made {count} "
    "instead of {before}. " + RULE
)
MSG_RECURSION = (
    "{owner}.forward calls itself while it makes its first modules ({new} at {here}); make them in "
    "__init__"
)
MSG_COMPILED = (
    "{new} is made at {here} in a compiled function that {owner}.forward calls; the code of that "
    "function does not run each time. Make the module in __init__, or compile {owner} as a whole"
)
MSG_LATE = (
    "{owner}.forward asks for the {kind} {name!r} at {here}, which its first call did not; use the "
    "same ones in every call, or make it in __init__"
)
MSG_TWICE = (
    "{owner}.forward asks for the {kind} {name!r} a second time in one call, at {here}; keep what "
    "the first one gave, or choose another name"
)
MSG_CHANGED = (
    "{path}: forward asks for {name!r} as {new} at {here}, but it was made as {old} at {where}; "
    "sizes that come from an input are those of the first call, until model.unbuild()"
)

MSG_UNBUILD = (
    "{owner}.unbuild() takes leaves away while {trace} is being traced, which a call would not "
    "repeat; call it outside"
)


class ModuleOrderError(StateError):
    """`forward` makes other modules than it did before."""


@dataclass(eq=False, slots=True)
class Made:
    """One module made in `forward`, and what asked for it."""

    module: Any
    kind: type[Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    origin: Origin | None
    name: str


@dataclass(eq=False, slots=True)
class Table:
    """What a `forward` makes, in order.

    Attributes:
        rows: one for each module.
        leaves: shape, dtype and origin of each parameter and buffer, by name.
        complete: whether a run of it has come to its end.
    """

    rows: list[Made] = field(default_factory=list[Made])
    leaves: dict[str, tuple[Any, Any, Origin | None]] = field(default_factory=dict[str, Any])
    complete: bool = False


def made_in_forward(
    call: Call, kind: type[Any], create: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """The module that a running `forward` asks for, made when it runs for the first time."""
    if call.compiled:
        raise ModuleOrderError(_text(MSG_COMPILED, call, kind, args, kwargs))
    table = _table(call)
    if table is None:
        raise ModuleOrderError(_text(MSG_RECURSION, call, kind, args, kwargs))
    position = call.made
    if call.turn is not None and position == len(table.rows):
        table.rows.append(_new(call, kind, create, args, kwargs))
    elif position == len(table.rows):
        last = table.rows[-1] if table.rows else None
        raise ModuleOrderError(_text(MSG_MORE, call, kind, args, kwargs, last, len(table.rows)))
    row = table.rows[position]
    if row.kind is not kind or not _same((row.args, row.kwargs), (args, kwargs)):
        raise ModuleOrderError(_text(MSG_OTHER, call, kind, args, kwargs, row))
    call.made += 1
    return row.module


def leaf_in_forward(
    call: Call, kind: str, name: str, shape: Any, dtype: DType | None, create: Callable[[], Any]
) -> Any:
    """The parameter or buffer that a running `forward` asks for, made when it runs first."""
    owner = call.module
    here = user_origin() or "an unknown place"
    known = {"owner": type(owner).__name__, "kind": kind, "name": name, "here": here}
    if call.compiled:
        raise ModuleOrderError(MSG_COMPILED.format(new=f"the {kind} {name!r}", **known))
    table = _table(call)
    if table is None:
        raise ModuleOrderError(MSG_RECURSION.format(new=f"the {kind} {name!r}", **known))
    if name in call.asked:
        raise StateError(MSG_TWICE.format(**known))
    call.asked = (*call.asked, name)
    found = table.leaves.get(name)
    if found is None:
        if call.turn is None:
            raise ModuleOrderError(MSG_LATE.format(**known))
        origin = user_origin()
        with outside():
            leaf = create()
        _, _, inner = module_path.get().partition("/")
        leaf.name = f"{inner}/{name}".lstrip("/").replace("/", ".")
        table.leaves[name] = (shape, dtype, origin)
    elif found[:2] != (shape, dtype):
        old, new = (f"{x} of {d or 'its own dtype'}" for x, d in (found[:2], (shape, dtype)))
        where = found[2] or "an unknown place"
        error = DTypeError if found[0] == shape else ShapeError
        path = module_path.get()
        text = MSG_CHANGED.format(path=path, name=name, new=new, old=old, here=here, where=where)
        raise error(text)
    return getattr(owner, name)


def _table(call: Call) -> Table | None:
    """What the running `forward` makes; None when it is called inside of its first run."""
    state = call.module.__dict__
    table: Table | None = state.get(MADE)
    if call.turn is None and (table is None or not table.complete):
        return _first(call, state)
    return table


def _first(call: Call, state: dict[str, Any]) -> Table | None:
    """A new table, which no other thread sees before it is complete; another thread's, if it is.

    None when this thread is already making one for the same module.
    """
    turn = LOCKS.tracing_turn()
    turn.__enter__()  # until the end of this run
    table = state.get(MADE)
    if table is None:
        call.turn = turn
        state[MADE] = table = Table()
        return table
    turn.__exit__(None, None, None)
    return table if table.complete else None


def _new(call: Call, kind: type[Any], create: Callable[..., Any], args: Any, kwargs: Any) -> Made:
    owner, origin = call.module, user_origin()
    with outside():
        module = create(*args, **kwargs)
        given: Any = getattr(module, "name", None)
        named = isinstance(given, str) and given.isidentifier()
        stem = name = str(given) if named else snake_case(kind.__name__)
        count = 0
        while hasattr(owner, name):
            count += 1
            name = f"{stem}_{count}"
        setattr(owner, name, module)
        if not owner.__dict__["training"]:
            module.train(False)
    kept_args, kept_kwargs = tree_map(lambda x: x, (args, kwargs))
    return Made(module, kind, kept_args, kept_kwargs, origin, name)


def finish(call: Call) -> None:
    """Check, when a `forward` has returned, that it made all that it made before."""
    table: Table = call.module.__dict__[MADE]
    if call.turn is not None:
        turn, call.turn, table.complete = call.turn, None, True
        turn.__exit__(None, None, None)
    elif call.made < len(table.rows):
        missing = table.rows[call.made]
        before = table.rows[call.made - 1] if call.made else None
        last = "it made none" if before is None else f"the last one was {_row(before)}"
        raise ModuleOrderError(
            MSG_FEWER.format(
                owner=type(call.module).__name__,
                old=_spoken(missing.kind, missing.args, missing.kwargs),
                where=missing.origin or "an unknown place",
                last=last,
                count=call.made,
                before=len(table.rows),
            )
        )


def give_up(call: Call) -> None:
    """Take back what a first run has made that did not come to its end."""
    table: Table = call.module.__dict__.pop(MADE)
    turn, call.turn = call.turn, None
    with outside():
        for name in (*(row.name for row in table.rows), *table.leaves):
            delattr(call.module, name)
    turn.__exit__(None, None, None)


def forget(module: Any) -> None:
    """Take away what `forward` and `build` have made in a module and in those inside."""
    trace = current_trace.get()
    if trace is not None:
        owner = type(module).__name__
        raise TraceError(MSG_UNBUILD.format(owner=owner, trace=trace.name))
    with LOCKS.tracing_turn():
        for inner in module.modules():
            state = inner.__dict__
            table: Table = state.pop(MADE, None) or Table()
            for name in (*(row.name for row in table.rows), *table.leaves):
                if name in state:
                    delattr(inner, name)
            undo_build(inner)


def snake_case(name: str) -> str:
    """The name of an attribute for an object of a class: LayerNorm, ReLU and Conv2D in small."""
    whole = re.sub(r"(Re|Si|Se|Ge)LU", lambda m: m.group(0).capitalize(), name)
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", whole)
    return re.sub(r"(?<=[A-Z])(?=[A-Z][a-z])", "_", parts).lower().lstrip("_")


# -- comparison and text ---------------------------------------------------------------------------


def _same(a: Any, b: Any, depth: int = 0) -> bool:
    """Whether two arguments of constructors make the same module."""
    if a is b:
        return True
    if type(a) is not type(b) or depth > 16 or isinstance(a, (Value, type)):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y, depth + 1) for x, y in zip(a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key], depth + 1) for key in a)
    if isinstance(a, (bool, int, float, complex, str, bytes)):
        return repr(a) == repr(b)
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, FunctionType):
        return a.__code__ is b.__code__ and _same(_around(a), _around(b), depth + 1)
    if hasattr(a, "_gradient_targets"):  # modules are what they are
        return False
    if type(a).__eq__ is not object.__eq__:
        return bool(a == b)
    return hasattr(a, "__dict__") and _same(vars(a), vars(b), depth + 1)


def _around(fn: FunctionType) -> tuple[Any, ...]:
    cells = tuple(cell.cell_contents for cell in fn.__closure__ or ())
    return fn.__defaults__, fn.__kwdefaults__, cells


def _spoken(kind: type[Any], args: Any, kwargs: Any) -> str:
    parts = [reprlib.repr(x) for x in args]
    parts += [f"{key}={reprlib.repr(x)}" for key, x in kwargs.items()]
    return f"{kind.__name__}({', '.join(parts)})"


def _row(row: Made) -> str:
    return f"{_spoken(row.kind, row.args, row.kwargs)} at {row.origin or 'an unknown place'}"


def _text(
    template: str,
    call: Call,
    kind: type[Any],
    args: Any,
    kwargs: Any,
    row: Made | None = None,
    count: int = 0,
) -> str:
    return template.format(
        owner=type(call.module).__name__,
        new=_spoken(kind, args, kwargs),
        here=user_origin() or "an unknown place",
        old="none" if row is None else _spoken(row.kind, row.args, row.kwargs),
        where="an unknown place" if row is None else row.origin or "an unknown place",
        count=f"{count} module{'s' if count != 1 else ''}",
    )
