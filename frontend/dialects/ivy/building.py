"""When a Module of Ivy makes its variables: on init, when it is told to, on the first call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn import nn
from einkorn.container import as_mapping, check_structure
from einkorn.convert import check_device
from einkorn.dialects.ivy.containers import Container
from einkorn.ir.dtypes import DType, as_dtype
from einkorn.ir.errors import EinkornError, StateError
from einkorn.leaf import Leaf, Parameter
from einkorn.loading import write_all
from einkorn.nn import building
from einkorn.nn.building import PENDING, RUNNING
from einkorn.nn.describing import Place
from einkorn.tensor import Tensor
from einkorn.tree import tree_leaves

MODES = ("on_init", "explicit", "on_call")

MSG_NO_INIT = (
    "{owner}.__init__ did not call ivy.Module.__init__(self), which makes the variables; call it "
    "at its end"
)
MSG_EXPLICIT = "{owner} has build_mode='explicit' and is not built; call its build() first"
MSG_NOT_STORED = "{owner} has store_vars=False: its variables come with each call, as v="
MSG_TAKEN = (
    "{owner}._create_variables: {name!r} is also the name of an attribute; rename one of them"
)
MSG_BUFFER = "{owner}: there is no buffer {path!r}, and the name of a new one has no '/'"


@dataclass(eq=False, slots=True)
class Given:
    """What the constructor was given, until it is used; no nest in which leaves are found."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    v: Mapping[str, Any] | None
    buffers: Mapping[str, Any] | None
    with_partial_v: bool
    training: bool


if TYPE_CHECKING:
    Base = nn.Module
else:  # so that `build` stays as it is written: a Module's class would wrap it
    Base = object


class Building(Base):
    """The part of Module that makes variables."""

    # -- what subclasses define ----------------------------------------------------------------

    def _create_variables(self, *, device: Any = None, dtype: Any = None) -> Mapping[str, Any]:
        """The variables of this module alone, by name; none unless a subclass makes some.

        A definition takes what it wants of `device` (also named `dev`) and `dtype`.
        """
        return {}

    def _build(self, *args: Any, **kwargs: Any) -> Any:
        """Make the modules inside; what it returns is of no effect."""

    # -- building ------------------------------------------------------------------------------

    def build(self, *args: Any, device: Any = None, dtype: Any = None, **kwargs: Any) -> Any:
        """Make the variables, unless they are there.

        Args:
            args: those of `_build`; with build_mode="on_call" those of a first call, for which the
                modules inside are built, too.
            device: "cpu" or None.
            dtype: that of the variables, in place of the constructor's.
            kwargs: as `args`.

        Returns:
            The variables, or None when some inside still wait for their first call.
        """
        check_begun(self)
        if self.__dict__.get(PENDING) is RUNNING:
            self._ek_make(args, kwargs, device, dtype)
            return None
        if PENDING in self.__dict__:
            building.build(self, args, {"device": device, "dtype": dtype, **kwargs})
        if self._build_mode == "on_call" and (args or kwargs):
            building.build_parts(self, args, kwargs)
        if not self.built:
            return None
        found = self._ek_found().v
        return found if self._store_vars else found.copy()

    def _ek_begin(self, given: Given, mode: str, store_vars: bool, device: Any, dtype: Any) -> None:
        name = type(self).__name__
        check_device(name, device)
        if mode not in MODES:
            raise EinkornError(f"{name}: build_mode is one of {', '.join(MODES)}, got {mode!r}")
        self._build_mode, self._store_vars = mode, store_vars
        self._dev = self._device = device or "cpu"
        self._dtype = None if dtype is None else as_dtype(dtype)
        self._ek_given: Given | None = given
        if mode == "on_init":
            self._ek_make((), {}, None, None)
            building.built(self)

    def _ek_make(self, args: Any, kwargs: Any, device: Any, dtype: Any) -> None:
        """Run `_build` and `_create_variables`, and take what the constructor was given."""
        given = self._ek_given
        assert given is not None
        check_device(type(self).__name__, device)
        chosen = self._dtype if dtype is None else as_dtype(dtype)
        if chosen is None and self._build_mode == "on_call":
            chosen = _dtype_of((args, kwargs))
        self._dtype = chosen or as_dtype("float32")
        if self._build_mode == "on_call" and not inspect.signature(self._build).parameters:
            self._build()  # it takes nothing of the first call
        else:
            self._build(*(args or given.args), **(kwargs or given.kwargs))
        args, named = _wanted(self._create_variables, self._dev, self._dtype)
        created = self._create_variables(*args, **named)
        for name, value in created.items():
            if name in self.__dict__:
                raise EinkornError(MSG_TAKEN.format(owner=type(self).__name__, name=name))
            setattr(self, name, _as_variables(value))
        self._ek_take(given)
        self._ek_given = None

    def _ek_take(self, given: Given) -> None:
        """Put in what the constructor was given."""
        own = self._ek_found().v  # which also tells the modules inside where they are
        for path, leaf in own.flat_items():
            whole = path.replace("/", ".")
            leaf.name = whole if whole.endswith(leaf.name) else leaf.name
        if given.v is not None:
            what = f"{type(self).__name__}(v=...)"
            values = as_mapping(given.v, what)
            if not given.with_partial_v:
                check_structure(own, values, what)
            write_all([(own[path], x, path) for path, x in values.flat_items()])
        if given.buffers is not None:
            self._ek_take_buffers(as_mapping(given.buffers, f"{type(self).__name__}: buffers"))
        if not given.training:
            self.train(False)

    def _ek_take_buffers(self, values: Any) -> None:
        """Write buffers, and add those that there are not."""
        own = self._ek_found().buffers
        known = [(own[path], x, path) for path, x in values.flat_items() if path in own]
        new = [(path, x) for path, x in values.flat_items() if path not in own]
        for path, _ in new:
            if "/" in path:
                raise EinkornError(MSG_BUFFER.format(owner=type(self).__name__, path=path))
        write_all(known)
        for path, x in new:
            self.add_buffer(path, x)

    def _ek_check_ready(self, values: Any) -> None:
        """StateError when a call, which is given values or not, comes too early."""
        check_begun(self)
        if PENDING in self.__dict__ and self._build_mode == "explicit":
            raise StateError(MSG_EXPLICIT.format(owner=type(self).__name__))
        given = self._store_vars or isinstance(values, dict) or self.v
        if not given and self._ek_found().v:
            raise StateError(MSG_NOT_STORED.format(owner=type(self).__name__))

    # -- what can be asked ---------------------------------------------------------------------

    @property
    def v(self) -> Any:
        """The variables, nested as the attributes are; assigning copies values into them."""
        kept = self.__dict__.get("_store_vars", True)
        return self._ek_built().v if kept else Container()

    @v.setter
    def v(self, values: Mapping[str, Any]) -> None:
        nn.Module.v.__set__(self, values)

    @property
    def build_mode(self) -> str:
        """When the variables are made: "on_init", "explicit" or "on_call"."""
        return self._build_mode

    @property
    def built(self) -> bool:
        """Whether this module and all inside have their variables."""
        found = self._ek_found()
        return not any(PENDING in module.__dict__ for module in found.modules.values())

    @Place
    def device(self) -> str:
        """Where the variables are: "cpu"."""
        return self._device

    @Place
    def dtype(self) -> DType | None:
        """The dtype that the variables are made with; None before."""
        return self._dtype


def check_begun(module: Any) -> None:
    """StateError when the constructor of Module was not called."""
    if "_build_mode" not in module.__dict__:
        raise StateError(MSG_NO_INIT.format(owner=type(module).__name__))


def _wanted(method: Any, device: Any, dtype: Any) -> tuple[list[Any], dict[str, Any]]:
    """The arguments for a `_create_variables` that names what it wants."""
    args: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in inspect.signature(method).parameters.items():
        value = dtype if name == "dtype" else device
        if parameter.kind is parameter.VAR_KEYWORD:
            named.update(device=device, dtype=dtype)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        elif name in ("dtype", "dev", "device") or parameter.default is parameter.empty:
            args.append(value)
    return args, named


def _as_variables(value: Any) -> Any:
    """Values, nested or not, as parameters."""
    if isinstance(value, Mapping):
        return {key: _as_variables(item) for key, item in value.items()}
    return value if isinstance(value, Leaf) else Parameter(value)


def _dtype_of(inputs: Any) -> DType | None:
    """The dtype of the first floats among the inputs of a call."""
    found = (x for x in tree_leaves(inputs) if isinstance(x, (Tensor, np.ndarray)))
    kinds = (as_dtype(x.dtype) for x in found)
    return next((kind for kind in kinds if kind.is_float), None)
