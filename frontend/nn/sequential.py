"""`Sequential`: modules in a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from einkorn.ir.errors import BoundsError, EinkornError
from einkorn.nn.module import Module


class Sequential(Module):
    """Each module is called with the result of the one before."""

    def __init__(self, *modules: Module) -> None:
        for k, module in enumerate(modules):
            if not isinstance(module, Module):
                name = getattr(module, "__name__", type(module).__name__)
                raise EinkornError(
                    f"Sequential: item {k} is {name}, which is not a Module instance; functions "
                    "have modules too, such as nn.ReLU() for nn.relu"
                )
        self._submodules = list(modules)

    def forward(self, x: Any) -> Any:
        for module in self._submodules:
            x = module(x)
        return x

    def __len__(self) -> int:
        return len(self._submodules)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Module]:
        return iter(self._submodules)

    def __getitem__(self, index: int | slice) -> Module:
        """One module, or a Sequential that shares the modules of a slice."""
        if isinstance(index, slice):
            return Sequential(*self._submodules[index])
        if not -len(self) <= index < len(self):
            raise BoundsError(f"Sequential has {len(self)} modules, got index {index}")
        return self._submodules[index]


class FunctionModule(Module):
    """A function as a module: modules that it makes are made once and kept."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise EinkornError(f"to_module takes a function, got {type(function).__name__}")
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


def to_module(function: Callable[..., Any]) -> FunctionModule:
    """A module whose `forward` is `function`; its layers may be made inside of it."""
    return FunctionModule(function)
