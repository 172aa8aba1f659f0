"""Elegy's Module: the call is `call`, and a few names differ from those of `ek.nn.Module`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from einkorn import nn
from einkorn.container import Container, as_mapping
from einkorn.dialects.elegy.hooks import can_update
from einkorn.dialects.elegy.narrowing import narrow
from einkorn.dialects.elegy.transforms import Jitted
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError
from einkorn.leaf import Leaf, Parameter
from einkorn.loading import write_all
from einkorn.nn.describing import children
from einkorn.nn.making import snake_case
from einkorn.nn.module import initial
from einkorn.nn.structure import set_trainable
from einkorn.running import current_call

MSG_NO_CALL = "{name} has no call method: define  def call(self, x): ...  in the class"


_NOTHING = SimpleNamespace()


class _Fixed:
    """An initializer that gives one value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, shape: Any, dtype: Any) -> Any:
        return self.value


class _Name:
    """The name that a module was given, or that of its class in snake case."""

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        return snake_case(owner.__name__)


class Module(nn.Module):
    """A module whose `call` makes parameters and modules, or uses those of `__init__`.

    Args:
        name: the attribute under which a module that makes this one in its `call` holds it.
        dtype: of the parameters for which none is given.

    Attributes:
        initialized: whether it was called, or `init` was.
        trainable: whether the parameters here and in modules inside train; setting it decides.
    """

    name: Any = _Name()
    dtype: Any = float32

    def __init__(self, name: str | None = None, dtype: Any = float32) -> None:
        if name is not None:
            self.name = name
        self.dtype = dtype

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "call" in vars(cls):
            cls.forward = vars(cls)["call"]
        elif cls.call is Module.call:  # a layer of `ek.nn`
            found = (vars(kind).get("forward") for kind in cls.__mro__ if kind is not nn.Module)
            own = next((fn for fn in found if fn not in (None, Module.call)), Module.call)
            cls.call = cls.forward = own

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes."""
        raise EinkornError(MSG_NO_CALL.format(name=type(self).__name__))

    forward = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `call`. The first one makes the parameters."""
        out = super().__call__(*narrow(args), **narrow(kwargs))
        self._made()
        return out

    def init(self, *args: Any, **kwargs: Any) -> None:
        """Make the parameters, as a first call would; nothing is computed and no state changes."""
        self.build(*narrow(args), **narrow(kwargs))
        self._made()

    @property
    def jit(self) -> Jitted:
        """The compiled call."""
        state = vars(self)
        if "_ek_jit" not in state:
            state["_ek_jit"] = Jitted(self)
        return state["_ek_jit"]

    @property
    def init_jit(self) -> Callable[..., None]:
        """`init`, which computes nothing anyway."""
        return self.init

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_ek_jit"}

    @property
    def initialized(self) -> bool:
        return bool(vars(self).get("_ek_initialized"))

    def _made(self) -> None:
        state = vars(self)
        if "_ek_initialized" not in state:
            state["_ek_initialized"] = True
            if state.get("_ek_frozen"):  # what was made just now, too
                self.trainable = False

    def reset(self) -> None:
        """Take away what the first call made; parameters of `__init__` get first values anew."""
        self.unbuild()
        for module in self.modules():
            state = vars(module)
            state.pop("_ek_initialized", None)
            for name, (initializer, shape, dtype) in vars(state.get("_ek_first", _NOTHING)).items():
                getattr(module, name).value = initial(initializer, shape, dtype)

    # -- parameters ----------------------------------------------------------------------------

    def add_parameter(
        self,
        name: str,
        shape: Any = (),
        dtype: Any = None,
        initializer: Any = np.zeros,
        trainable: bool = True,
    ) -> Parameter:
        """A parameter, in `call` the same one each time.

        Args:
            initializer: called with the shape and dtype, or the value itself.
            trainable: False for state, which `update_parameter` changes.
        """
        if not trainable:
            vars(self).setdefault("_ek_states", set[str]()).add(name)
        if not callable(initializer):
            value = narrow(np.asarray(initializer))
            shape, initializer = value.shape, _Fixed(value)
        kind = self.dtype if dtype is None else dtype
        trains = trainable and self.trainable
        leaf = super().add_parameter(name, tuple(shape), kind, initializer, trains)
        call = current_call.get()
        if call is None or call.module is not self:
            first = vars(self).setdefault("_ek_first", SimpleNamespace())
            setattr(first, name, (initializer, leaf.shape, leaf.dtype))
        return leaf

    def update_parameter(self, name: str, value: Any) -> None:
        """Copy a value into a parameter, unless an `init_context` says that nothing is written."""
        if can_update():
            super().update_parameter(name, narrow(value))

    @property
    def trainable(self) -> bool:
        return not vars(self).get("_ek_frozen", False)

    @trainable.setter
    def trainable(self, on: bool) -> None:
        states: set[str] = set()
        for path, module in self.named_modules():
            vars(module)["_ek_frozen"] = not on
            names = vars(module).get("_ek_states", ())
            states.update(f"{path}/{name}".lstrip("/") for name in names)
        for path, leaf in self._ek_found().v.flat_items():
            if path not in states:
                set_trainable(leaf, on)

    def get_parameters(self, trainable: bool | None = None) -> Container:
        """The parameters by the names of attributes; with those that do not train, unless asked.

        Running means and other buffers count as parameters that do not train.
        """
        if trainable:
            return super().get_parameters(True)
        own = super().get_parameters(trainable)
        return Container.combine(own, self.buffers) if self.buffers else own

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Copy values into the parameters that `values` names: all of them or none."""
        own, pairs = self.get_parameters(), list[tuple[Leaf, Any, str]]()
        for path, value in as_mapping(values, "set_parameters").flat_items():
            leaf = own[path]
            if not isinstance(leaf, Leaf):
                raise EinkornError(f"set_parameters: {path!r} is not one parameter but several")
            pairs.append((leaf, narrow(value), path))
        write_all(pairs)

    @property
    def submodules(self) -> dict[str, Any]:
        """The modules directly inside, by the names of their attributes."""
        return dict(children(self))

    def parameters_size(self, include_submodules: bool = True) -> int:
        """How many numbers the parameters hold."""
        return sum(leaf.size for leaf in self._leaves(None, include_submodules))

    def parameters_bytes(self, include_submodules: bool = True) -> int:
        """How many bytes the parameters take."""
        return sum(map(_bytes, self._leaves(None, include_submodules)))

    def states_size(self, include_submodules: bool = True) -> int:
        """How many numbers those hold that do not train."""
        return sum(leaf.size for leaf in self._leaves(False, include_submodules))

    def states_bytes(self, include_submodules: bool = True) -> int:
        """How many bytes those take that do not train."""
        return sum(map(_bytes, self._leaves(False, include_submodules)))

    def _leaves(self, trainable: bool | None, include_submodules: bool) -> list[Leaf]:
        found = self.get_parameters(trainable)
        inside = tuple(f"{path}/" for path, _ in self.named_modules() if path)
        return [
            leaf
            for path, leaf in found.flat_items()
            if include_submodules or not path.startswith(inside)
        ]


def _bytes(leaf: Leaf) -> int:
    return leaf.size * leaf.dtype.itemsize


def to_module(function: Callable[..., Any]) -> type[Module]:
    """A class of modules whose `call` is `function`; it may be given a `name`."""

    def call(self: Module, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    own = inspect.signature(function)
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    call.__signature__ = own.replace(parameters=[first, *own.parameters.values()])  # type: ignore[attr-defined]
    name = getattr(function, "__name__", type(function).__name__)
    return type(name, (Module,), {"call": call, "__doc__": function.__doc__})
