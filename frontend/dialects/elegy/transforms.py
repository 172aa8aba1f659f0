"""`jit` and `value_and_grad` as Elegy calls them; modules need not be named, but may be."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from einkorn import nn
from einkorn.compile import Compiled
from einkorn.dialects.elegy.narrowing import narrow
from einkorn.ir.errors import EinkornError
from einkorn.transforms import gradients

MSG_MODULES = "{what}: modules is a Module or a list of them, got {given!r}"
MSG_STATIC = "jit: static_argnums {number} is not among the arguments of {name}({known})"


class Jitted(Compiled):
    """A compiled function that reads arrays of 64-bit floats as such of 32 bits."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*narrow(args), **narrow(kwargs))


def jit(
    f: Callable[..., Any],
    modules: Any = None,
    static_argnums: int | Sequence[int] = (),
    **options: Any,
) -> Jitted:
    """Compile a function or a Module.

    Args:
        modules: those whose state it may change; all that it reaches are found without.
        static_argnums: positions of arguments that are constants of a trace.
        options: those of `ek.compile`.
    """
    _listed("jit", f, modules)
    numbers = [static_argnums] if isinstance(static_argnums, int) else list(static_argnums)
    names = [_parameter(f, number) for number in numbers]
    return Jitted(f, static_argnames=names, **options)


def _parameter(f: Any, number: int) -> str:
    """The name of a function's parameter at a position."""
    known = list(inspect.signature(getattr(f, "forward", f)).parameters)
    if not -len(known) <= number < len(known):
        name = getattr(f, "__name__", type(f).__name__)
        raise EinkornError(MSG_STATIC.format(number=number, name=name, known=", ".join(known)))
    return known[number]


def _listed(what: str, f: Any, modules: Any) -> list[Any]:
    """The modules that were named, and the function when it is one."""
    given = list(modules) if isinstance(modules, (list, tuple)) else [modules]
    if modules is None:
        given = []
    if not all(isinstance(module, nn.Module) for module in given):
        raise EinkornError(MSG_MODULES.format(what=what, given=modules))
    if isinstance(f, nn.Module) and not any(module is f for module in given):
        given.append(f)
    return given


class _Chosen:
    """The parameters that a function gives for modules, also when they are still to be made."""

    def __init__(self, modules: list[Any], choose: Callable[[list[Any]], Any]) -> None:
        self._modules, self._choose = modules, choose

    def _gradient_targets(self, growing: bool = False) -> Any:
        if growing and any(module._ek_found().pending for module in self._modules):
            return []
        return self._choose(self._modules)


def value_and_grad(
    f: Callable[..., Any],
    modules: Any = None,
    parameters_fn: Callable[[list[Any]], list[Any]] | None = None,
) -> Callable[..., tuple[Any, Any]]:
    """A function that gives what `f` returns, and the gradient of it, or of the first of it.

    Args:
        modules: a Module or a list of them; `f` is one of them when it is a Module.
        parameters_fn: what to differentiate by, from the list of modules: a list with the
            parameters for each. The trainable ones by default.

    Returns:
        A function of the arguments of `f` that returns (outputs, gradient); the gradient is a list
        when `modules` is one.
    """
    listed = _listed("value_and_grad", f, modules)
    if not listed:
        raise EinkornError("value_and_grad needs modules=, a Module or a list of them")
    wrt: Any = listed if parameters_fn is None else _Chosen(listed, parameters_fn)

    def with_rest(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        out = f(*args, **kwargs)
        return (out[0], out) if isinstance(out, tuple) else (out, None)

    differentiated = gradients.value_and_grad(with_rest, wrt, has_aux=True)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        (loss, out), grads = differentiated(*narrow(args), **narrow(kwargs))
        outputs = loss if out is None else (loss, *out[1:])
        return outputs, list(grads) if isinstance(modules, list) else grads[0]

    return wrapped
