"""Dependency injection: losses, metrics and modules get what the names of their parameters say."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

from einkorn.ir.errors import EinkornError
from einkorn.tree import describe, flatten

NAMES = (
    "x", "y_true", "y_pred", "sample_weight", "class_weight", "training", "parameters", "states"
)  # fmt: skip
MSG_INPUTS = (
    "{name} cannot be called with inputs {inputs}: {error}; a tuple has one input for each "
    "parameter of forward, a dict has their names"
)
_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)

MSG_PARAMETER = (
    "{what} has a parameter {name!r}, for which there is no value: parameters may be named "
    "{names}; of those with other names the first is y_pred and the second y_true; give the "
    "others a default"
)


class Injected:
    """A function that is called with values by the names of its parameters.

    A value that is None is left out where the parameter has a default.

    Args:
        what: its name, for errors.
        fn: what is called.
        target: what has the parameters; `fn` by default.
    """

    def __init__(
        self, what: str, fn: Callable[..., Any], target: Callable[..., Any] | None = None
    ) -> None:
        self._fn = fn
        self._positional: list[str] = []
        self._keywords: list[tuple[str, str, bool]] = []  # parameter, value, has a default
        self._takes_all = False
        parameters = _parameters(what, fn if target is None else target)
        named = {p.name for p in parameters if p.kind in _NAMED}
        rest = [name for name in ("y_pred", "y_true") if name not in named]
        for parameter in parameters:
            self._read(what, parameter, rest)
        self.names = {name for _, name, _ in self._keywords} | set(self._positional)
        self.required = {name for _, name, optional in self._keywords if not optional}
        self.required |= set(self._positional)

    def _read(self, what: str, parameter: Parameter, rest: list[str]) -> None:
        name, kind = parameter.name, parameter.kind
        optional = parameter.default is not Parameter.empty
        if kind is Parameter.VAR_KEYWORD:
            self._takes_all = True
        elif kind is Parameter.VAR_POSITIONAL:
            self._positional.extend(rest)
            rest.clear()
        elif name in NAMES and kind in _NAMED:
            self._keywords.append((name, name, optional))
        elif not optional and not rest:
            names = ", ".join(NAMES)
            raise EinkornError(MSG_PARAMETER.format(what=what, name=name, names=names))
        elif not optional and kind is Parameter.POSITIONAL_ONLY:
            self._positional.append(rest.pop(0))
        elif not optional:
            self._keywords.append((name, rest.pop(0), False))

    def __call__(self, values: Mapping[str, Any], **more: Any) -> Any:
        found = {
            parameter: values.get(name)
            for parameter, name, optional in self._keywords
            if not optional or values.get(name) is not None
        }
        if self._takes_all:
            found = {**{k: x for k, x in values.items() if k not in self.names}, **found}
        return self._fn(*(values.get(name) for name in self._positional), **found, **more)


def _parameters(what: str, fn: Callable[..., Any]) -> list[Parameter]:
    try:
        return list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        raise EinkornError(f"{what}: the parameters of {fn!r} cannot be found") from None


def call_module(module: Any, x: Any, values: Mapping[str, Any]) -> Any:
    """Call a module with inputs, and with what else the names of its parameters ask for."""
    args, kwargs = module_arguments(module, x, values)
    return module(*args, **kwargs)


def module_arguments(
    module: Any, x: Any, values: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a module is called with for inputs.

    A dict whose keys are all parameters is passed by keywords, a tuple or list one by one where
    `forward` has more than one parameter without a default; anything else is the first argument.
    """
    name, target = type(module).__name__, getattr(module, "forward", module)
    parameters = _parameters(name, target)
    names = [p.name for p in parameters if p.kind in _NAMED]
    asked = [name for name in names if name in NAMES and name not in ("x", "y_pred", "y_true")]
    more = {name: values[name] for name in asked if values.get(name) is not None}
    if type(x) is dict and x and set(x) <= set(names):
        return (), {**x, **more}
    several = (
        any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
        or len([p for p in parameters if p.default is Parameter.empty and p.name not in more]) > 1
    )
    args = tuple(x) if type(x) in (tuple, list) and several else (x,)
    try:
        inspect.signature(target).bind(*args, **more)
    except TypeError as error:
        text = describe(flatten(x)[1])
        raise EinkornError(MSG_INPUTS.format(name=name, inputs=text, error=error)) from None
    return args, more
