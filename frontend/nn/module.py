"""`Module`: an ordinary class whose attributes hold parameters, buffers and other modules."""

from __future__ import annotations

import difflib
import inspect
import weakref
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.announcing import put
from einkorn.collector import open_collector
from einkorn.container import Container, as_mapping, check_structure, frozen
from einkorn.convert import as_shape, check_dtype
from einkorn.epochs import modules_changed, structure_changed
from einkorn.initializers import Zeros, as_initializer
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError, ShapeError, StateError, TraceError
from einkorn.leaf import Leaf, Parameter
from einkorn.loading import write_all
from einkorn.nn.building import BUILT, PENDING, build, build_parts, once
from einkorn.nn.calling import OPTIONS, call_with, own_options
from einkorn.nn.casting import cast
from einkorn.nn.describing import Described, children
from einkorn.nn.making import MADE, finish, forget, give_up, leaf_in_forward, made_in_forward
from einkorn.nn.saving import Saved
from einkorn.nn.structure import (
    INTERNAL,
    PARENT,
    Outline,
    Structure,
    every_path,
    set_trainable,
)
from einkorn.random.generator import apart
from einkorn.recording import Value, current_trace, no_grad
from einkorn.running import Call, current_call
from einkorn.same import is_same
from einkorn.seen import STRUCTURE, is_observed, observe
from einkorn.tunable import Training, module_path
from einkorn.watched import (
    Watched,
    is_carried,
    made_in,
    note_birth,
)

Array = np.ndarray[Any, Any]

MSG_NO_FORWARD = "{name} has no forward method: define  def forward(self, x): ...  in the class"
MSG_RESERVED = (
    "{owner}.{name} cannot be assigned: {name!r} is the name of {what} of every Module; choose "
    "another name for the attribute"
)
MSG_V = (
    "{owner}.v cannot hold {kind}: 'v' is reserved for the Container of all parameters, and "
    "assigning a Container or dict copies values into them; choose another name for the attribute"
)
MSG_KEPT = (
    "{owner}.{name} is a {leaf}, and the assignment would put {kind} in its place; write "
    "{owner}.{name}.value = ... to change its value (or assign another leaf, None, or del it first)"
)
MSG_DRAWN = (
    "a module makes parameters while {trace} is being traced, and would make new ones in every "
    "call; make it outside, or in the forward of a Module, which keeps what it makes"
)
MSG_TAKEN = "{owner} already has an attribute {name!r}; choose another name for the new {kind}"


class _ModuleType(type):
    """Sets a module up before `__init__`, so that no class has to call `super().__init__()`."""

    if not TYPE_CHECKING:  # for a checker a call is that of the class's own __init__

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            call = current_call.get()
            if call is not None:
                return made_in_forward(call, cls, cls._ek_create, args, kwargs)
            return cls._ek_create(*args, **kwargs)

        def _ek_create(cls, *args: Any, **kwargs: Any) -> Any:
            module = cls.__new__(cls, *args, **kwargs)
            put(module.__dict__, "training", True)
            if cls.build is not Module.build:
                module.__dict__[PENDING] = True
            note_birth(module)
            module.__init__(*args, **kwargs)
            return module

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of `__init__`, which the call above would hide."""
        signature = inspect.signature(cls.__init__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Module(Saved, Described, Watched, metaclass=_ModuleType):
    """The base of layers and models: assign parameters and modules to attributes, write `forward`.

    Leaves (`ek.Parameter`, `ek.tensor`) and modules are found in attributes and in any nesting of
    lists, tuples and dicts. One that is found twice counts once.

    A class with a method `build(self, *inputs)` makes parameters there whose sizes are those of
    inputs: it is called once, before the first `forward`, with the same arguments.

    Modules that `forward` makes are made once and kept as attributes named after their class, or
    after their attribute `name`: linear, linear_1, ... It has to make the same ones in the same
    order in every call.

    Attributes:
        training: True until `eval()`; layers such as Dropout read it.
    """

    training = Training()

    def __init__(self) -> None:
        """Nothing: there is no need to call it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__:
            cls.build = once(cls.__dict__["build"])

    # -- calling -------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes."""
        raise EinkornError(MSG_NO_FORWARD.format(name=type(self).__name__))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`.

        Args:
            v: a Container or dict like `self.v` whose values are used in place of the parameters,
                for this call only. Anything else under this name goes to `forward`.
            buffers: the same for the buffers; what `forward` assigns to them is forgotten.
            capture: True, or patterns of paths such as "encoder/*": the call returns a pair, its
                result and a dict of what the modules inside returned, by path in order of calls.
                A second call of the same module is "act#2".
            expected: what modules inside should return, by path; an error names the first, in
                order of calls, that differs by more than `atol` + `rtol` * |expected|.
        """
        if kwargs and not OPTIONS.isdisjoint(kwargs):
            options = own_options(self, kwargs)
            if options:
                return call_with(self, args, kwargs, options)
        state = self.__dict__
        outer = module_path.get()
        if not outer and "_ek_structure" not in state:
            self._ek_found()  # names the modules inside
        name = state.get("_ek_name") or type(self).__name__.lower()
        token = module_path.set(f"{outer}/{name}" if outer else name.replace("/", "."))
        call = Call(self)
        running = current_call.set(call)
        try:
            if PENDING in state:
                build(self, args, kwargs)
            out = self.forward(*args, **kwargs)
            if MADE in state:
                finish(call)
            collector = open_collector.get()
            if collector is not None:
                collector.keep(out, args, kwargs)
            return out
        finally:
            if call.turn is not None:
                give_up(call)
            current_call.reset(running)
            module_path.reset(token)

    def build(self, *inputs: Any, **named: Any) -> None:
        """Make every parameter whose size is that of an input, as a first call would.

        Nothing is computed and no state changes. A class that makes parameters for its inputs
        defines `build`; it is called once, with the arguments of the first call.
        """
        build_parts(self, inputs, named)

    def unbuild(self) -> Module:
        """Take away, here and inside, what was made for the first inputs; the next call makes it.

        These are parameters that `build` and `forward` have made, and modules made in `forward`.
        Parameters of sizes that were given stay. Make optimizers afterwards.
        """
        forget(self)
        return self

    # -- attributes ----------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__dict__":
            super().__setattr__(name, value)
            return
        state = self.__dict__
        is_known, old = name in state, state.get(name)
        if isinstance(old, Leaf) and value is not old and value is getattr(self, name):
            return  # its stand-in in a call with other values
        _check_name(type(self).__name__, name, value)
        if name == "v":
            object.__setattr__(
                self, name, value
            )  # copies values: nothing else becomes an attribute
            return
        _check_kept(type(self).__name__, name, old, value)
        if is_carried(self, name, value):
            return
        object.__setattr__(self, name, value)
        is_structural = isinstance(value, _STRUCTURAL) or isinstance(old, _STRUCTURAL)
        if is_structural:
            modules_changed()
            if isinstance(value, Module) or isinstance(value, (list, tuple, dict)):
                for key, module in children({name: value}):
                    if module is self:
                        continue
                    vars(module).setdefault("_ek_name", key or name)
                    vars(module).setdefault(PARENT, weakref.ref(self))
        if is_known and is_same(old, value):
            return
        if is_observed(state, name) or (is_structural and is_observed(state, STRUCTURE)):
            structure_changed()

    def __delattr__(self, name: str) -> None:
        state = self.__dict__
        is_structural = isinstance(state.get(name), _STRUCTURAL)
        super().__delattr__(name)
        if is_structural:
            modules_changed()
            if is_observed(state, STRUCTURE):
                structure_changed()

    def __getstate__(self) -> dict[str, Any]:
        drop = INTERNAL - {"_ek_name", PENDING, BUILT, MADE}
        return {key: value for key, value in self.__dict__.items() if key not in drop}

    def _ek_found(self) -> Structure:
        """The leaves and modules inside, found anew when something changed."""
        structure = self.__dict__.get("_ek_structure")
        if structure is None or not structure.current():
            structure = vars(self)["_ek_structure"] = Structure(self, _is_module)
        trace = current_trace.get()
        if trace is not None and not made_in(vars(self), trace):
            for module in structure.modules.values():
                observe(module, STRUCTURE)
            trace.seen.structure(self, Outline)
        return structure

    def _ek_built(self) -> Structure:
        """The same; a StateError when something inside is still to be built."""
        found = self._ek_found()
        if found.pending:
            found.check_built()
        return found

    def add_parameter(
        self,
        name: str,
        shape: Any = (),
        dtype: Any = float32,
        initializer: Any = Zeros,
        trainable: bool = True,
    ) -> Parameter:
        """A new parameter under the attribute `name`; in `forward` the same one in every call.

        Args:
            initializer: called with the shape and dtype; a class is instantiated first.
        """

        def create() -> Parameter:
            self._ek_check_free(name, "parameter")
            leaf = Parameter(initial(initializer, shape, dtype), dtype, trainable=trainable)
            setattr(self, name, leaf)
            return leaf

        call = current_call.get()
        if call is None or call.module is not self:
            return create()
        sizes, kind = as_shape("a parameter", shape), check_dtype(dtype)
        return leaf_in_forward(call, "parameter", name, sizes, kind, create)

    def add_buffer(self, name: str, value: Any, dtype: Any = None) -> Leaf:
        """State that is no parameter, such as a running mean, under the attribute `name`.

        In `forward` it is the same in every call, and `value` is that of the first one.
        """

        def create() -> Leaf:
            self._ek_check_free(name, "buffer")
            leaf = Leaf(value, dtype)
            setattr(self, name, leaf)
            return leaf

        call = current_call.get()
        if call is None or call.module is not self:
            return create()
        kind = None if dtype is None else check_dtype(dtype)
        return leaf_in_forward(call, "buffer", name, tuple(np.shape(value)), kind, create)

    def _ek_check_free(self, name: str, kind: str) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise EinkornError(f"the name of a {kind} is an identifier, got {name!r}")
        if hasattr(self, name):
            raise StateError(MSG_TAKEN.format(owner=type(self).__name__, name=name, kind=kind))

    # -- parameters ----------------------------------------------------------------------------

    @property
    def v(self) -> Container:
        """The parameters themselves, nested as the attributes are.

        Assigning a Container or dict copies its values into the parameters: all of them or, when
        one does not fit, none.
        """
        return self._ek_built().v

    @v.setter
    def v(self, values: Mapping[str, Any]) -> None:
        own = self._ek_built().v
        other = check_structure(own, values, f"{type(self).__name__}.v = ...")
        write_all([(leaf, other[path], path) for path, leaf in own.flat_items()])

    @property
    def buffers(self) -> Container:
        """The leaves that are not parameters, nested as the attributes are."""
        return self._ek_built().buffers

    def parameters(self) -> list[Leaf]:
        """The parameters, each once."""
        return self.v.to_flat_list()

    def named_parameters(self) -> Iterator[tuple[str, Leaf]]:
        """The path of each parameter, such as "hidden/w", and the parameter."""
        return self.v.flat_items()

    def get_parameters(self, trainable: bool | None = None) -> Container:
        """The parameters; only the trainable or only the frozen ones when asked for."""
        shown = self.v
        if trainable is None:
            return shown
        own = self._ek_built().v.flat_items()
        paths = [path for path, leaf in own if leaf.trainable is trainable]
        return frozen(shown.at_key_chains(paths), "parameters")

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Copy values into the parameters that `values` names; the others stay as they are."""
        given = as_mapping(values, "set_parameters")
        own = self._ek_built().v
        pairs: list[tuple[Leaf, Any, str]] = []
        for path, value in given.flat_items():
            leaf = own[path]
            if not isinstance(leaf, Leaf):
                raise EinkornError(f"set_parameters: {path!r} is not one parameter but several")
            pairs.append((leaf, value, path))
        write_all(pairs)

    def _gradient_targets(self, growing: bool = False) -> Container:
        """The trainable leaves; those that are made already while it is still growing."""
        return (self._ek_found() if growing else self._ek_built()).targets

    def freeze(self, pattern: str = "*") -> Module:
        """Stop training the parameters whose path matches a pattern such as "encoder/*".

        They stay parameters: in `v` and files, but without gradients, and optimizers leave them
        and their state as they are, weight decay included. Compiled steps notice.
        """
        return self._ek_set_trainable(pattern, False)

    def unfreeze(self, pattern: str = "*") -> Module:
        """Train the parameters whose path matches a pattern."""
        return self._ek_set_trainable(pattern, True)

    def _ek_set_trainable(self, pattern: str, on: bool) -> Module:
        if not isinstance(pattern, str):
            raise EinkornError(f'a pattern is text such as "encoder/*", got {pattern!r}')
        named = list(every_path(self._ek_built().v))
        chosen = {leaf: None for path, leaf in named if fnmatchcase(path, pattern)}
        if not chosen and pattern != "*":
            known = _near(pattern, [path for path, _ in named])
            raise EinkornError(f"{type(self).__name__}: no parameter matches {pattern!r}; {known}")
        floats = [leaf for leaf in chosen if leaf.dtype.is_inexact]
        for leaf in floats or chosen:  # integers are never trained
            set_trainable(leaf, on)
        return self

    def update_parameter(self, name: str, value: Any) -> None:
        """Copy a value into the parameter or buffer at a path, such as "hidden/w"."""
        found = self._ek_found()
        leaf = found.v.get(name, found.buffers.get(name))
        if not isinstance(leaf, Leaf):
            found.check_built()  # in the first forward other parts may be unknown still
            known = ", ".join([*found.v.key_chains(), *found.buffers.key_chains()])
            raise EinkornError(
                f"{type(self).__name__} has no parameter or buffer {name!r}; it has {known}"
            )
        write_all([(leaf, value, name)])

    def to(self, target: Any) -> Module:
        """Give all floating-point parameters and buffers another dtype; a device must be "cpu".

        They become other leaves: make optimizers afterwards. Nothing changes when it raises.
        """
        cast(self, target)
        return self

    # -- modes and modules ---------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Set `training` here and in every module inside."""
        if not isinstance(mode, bool):
            raise EinkornError(f"train() takes True or False, got {mode!r}")
        for module in self.modules():
            if module.__dict__["training"] is not mode:
                module.training = mode
        return self

    def eval(self) -> Module:
        """The same as `train(False)`."""
        return self.train(False)

    def modules(self) -> list[Module]:
        """This module and every one inside, each once."""
        return list(self._ek_found().modules.values())

    def named_modules(self) -> list[tuple[str, Module]]:
        """The path and module of this one, whose path is empty, and of every one inside."""
        return list(self._ek_found().modules.items())


_STRUCTURAL = (Leaf, Module, list, tuple, dict)
_SHOWN = 8  # names in an error
_NUMBERS = (Value, np.ndarray, np.generic, bool, int, float)
_RESERVED = {name for name in dir(Module) if not name.startswith("__")} - {
    "training", "v", "forward", "extra_repr", "parent", "path", "root", "tree", "graph"
}  # fmt: skip


def _check_name(owner: str, name: str, value: Any) -> None:
    if name in _RESERVED or name in INTERNAL:
        what = "a method" if callable(getattr(Module, name, None)) else "a property"
        raise EinkornError(MSG_RESERVED.format(owner=owner, name=name, what=what))
    if name == "v" and not isinstance(value, dict):
        raise EinkornError(MSG_V.format(owner=owner, kind=_kind_of(value)))


def _check_kept(owner: str, name: str, old: Any, new: Any) -> None:
    """Refuse to replace a leaf by a value: nothing would train or save it any more."""
    if isinstance(old, Leaf) and isinstance(new, _NUMBERS) and not isinstance(new, Leaf):
        leaf = type(old).__name__
        raise StateError(MSG_KEPT.format(owner=owner, name=name, leaf=leaf, kind=_kind_of(new)))


def _near(pattern: str, known: list[str]) -> str:
    """What a pattern without a match may have meant: paths, or all below a module."""
    keys = [path.split("/") for path in known]
    below = {"/".join(path[:depth]) + "/*" for path in keys for depth in range(1, len(path))}
    near = difflib.get_close_matches(pattern, [*sorted(below), *known], n=3)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"there are {', '.join(known[:_SHOWN])}{more}" if known else "it has none"


def _kind_of(value: Any) -> str:
    return f"an object of type {type(value).__name__}"


def _is_module(value: Any) -> bool:
    return isinstance(value, Module)


def initial(initializer: Any, shape: Any, dtype: Any) -> Any:
    """The first value of a parameter."""
    sizes, kind = as_shape("a parameter", shape), check_dtype(dtype)
    try:
        with no_grad(), apart():  # the same values at once, at a first call, and while tracing
            value: Any = as_initializer(initializer)(sizes, kind)
    except (MemoryError, OverflowError):
        raise ShapeError(
            f"a parameter of shape {sizes} does not fit in memory; choose smaller sizes"
        ) from None
    trace = getattr(value, "_trace", None)
    if trace is not None:
        raise TraceError(MSG_DRAWN.format(trace=trace.name))
    if tuple(np.shape(value)) != sizes:
        raise EinkornError(
            f"the initializer gave shape {tuple(np.shape(value))} for a parameter of shape {sizes}"
        )
    return value
