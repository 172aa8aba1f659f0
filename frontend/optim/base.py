"""The template of optimizers: two pure functions in a stateful shell.

`init(params)` gives the state and `update(params, grads, state)` the next parameters and state; a
subclass only says what happens to one parameter. `step` applies `update` to the leaves.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from einkorn.container import Container, as_mapping, frozen
from einkorn.convert import as_tensor, is_known, is_weak
from einkorn.epochs import structure_changed
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import bool_, float64
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError, StateError
from einkorn.leaf import Leaf
from einkorn.loading import LoadResult, load_leaves, write_all
from einkorn.recording import Value, no_grad, scalar
from einkorn.tensor import Tensor
from einkorn.tunable import Tunable, is_number
from einkorn.watched import Watched, note_birth

Slots = dict[str, Tensor]

MSG_NO_GRADS = (
    "{name}.step() found no gradient: call loss.backward() before it, or pass the gradients that "
    "ek.value_and_grad(fn, model) returns: opt.step(grads)"
)
MSG_MISSING = (
    "{name}.step(grads): there is no gradient for {missing}; give one for every trainable "
    "parameter, as ek.value_and_grad(fn, model) does, or freeze the parameter"
)
MSG_UNKNOWN = "{name}.step(grads): {unknown} is not among the parameters; there are {known}"
MSG_SETTING = "{owner} has no setting {name!r}{hint}; it has {known}"
MSG_PAIRS = (
    "{name} got pairs of a name and a parameter, as model.named_parameters() gives them; pass the "
    "model itself, or model.parameters()"
)
MSG_CHANGED = (
    "{name}: {path!r} is not the parameter that the optimizer was made for; make a new optimizer "
    "after the parameters of a model were added or exchanged (use leaf.value = ... to set values)"
)


class Hyper(Tunable):
    """A hyper-parameter: a float, read at each call of a compiled step.

    Args:
        low: the least value allowed.
        below: what the value must be less than.
        schedule: whether a callable of the step count or a tensor is allowed too.
    """

    def __init__(
        self, low: float = 0.0, below: float = math.inf, *, schedule: bool = False
    ) -> None:
        self.low, self.below, self.schedule = low, below, schedule

    def __set__(self, instance: Any, value: Any) -> None:
        new = self._checked(instance, value)
        old = instance.__dict__.get(self.name)
        super().__set__(instance, new)
        if old is not None and not type(old) is type(new) is float:
            structure_changed()

    def _checked(self, instance: Any, value: Any) -> Any:
        owner = f"{type(instance).__name__}: {self.name}"
        if self.schedule and isinstance(value, Value):
            if value._type.shape != () or not value._type.dtype.is_float:
                raise ShapeError(f"{owner} as a tensor is a float scalar, got {value._type}")
            return value
        if self.schedule and callable(value):
            return value
        if not is_number(value):
            more = ", a schedule or a tensor" if self.schedule else ""
            raise EinkornError(f"{owner} is a number{more}, got {value!r}")
        number = float(value)
        if not self.low <= number < self.below:
            limit = f" and below {self.below:g}" if self.below < math.inf else ""
            raise EinkornError(f"{owner} is at least {self.low:g}{limit}, got {value!r}")
        return number


class _OptimizerType(type):
    """Notes the end of `__init__`: from then on an unknown public attribute is a typo."""

    if not TYPE_CHECKING:  # for a checker a call is that of the class's own __init__

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            optimizer = cls.__new__(cls, *args, **kwargs)
            note_birth(optimizer)
            optimizer.__init__(*args, **kwargs)
            optimizer.__dict__["_ek_complete"] = True
            return optimizer


class Optimizer(Watched, metaclass=_OptimizerType):
    """The base of optimizers.

    Args:
        params: a Module, a Container, a leaf, or a list of those.
        lr: a number, a schedule (called with the number of steps taken, a float64 scalar), or a
            float scalar tensor or leaf.

    Attributes:
        slots: the names of the state kept for each parameter.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    lr = Hyper(schedule=True)

    def __init__(self, params: Any, lr: Any) -> None:
        self.lr = lr
        params = list(params) if isinstance(params, (Iterator, ValuesView)) else params
        self._source = params
        self._params = _checked_params(type(self).__name__, params)
        name = type(self).__name__.lower()
        state = self.init(self._params)
        self._state = state.map(lambda x: Leaf(x))
        for path, leaf in self._state.flat_items():
            leaf.name = f"{name}.{path.replace('/', '.')}"
        frozen(self._state, "state of the optimizer")

    # -- what subclasses define ----------------------------------------------------------------

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        """What the update of every parameter shares, for the step that is number `count`.

        Python numbers and weak scalars take a parameter's dtype by themselves; `in_dtype_of`
        brings a float64 tensor to it.
        """
        return {"lr": self.rate(count)}

    def apply_single(
        self, param: Tensor, grad: Tensor, slots: Slots, shared: dict[str, Any]
    ) -> tuple[Tensor, Slots]:
        """The next value and slots of one parameter."""
        raise NotImplementedError

    def rate(self, count: Tensor) -> Any:
        """The learning rate of the step that is number `count`: a number, or a float64 scalar."""
        lr: Any = self.lr
        if callable(lr) and not isinstance(lr, Value):
            lr = lr(ew.subtract(count, 1))
            found = as_tensor(lr, "the learning rate")
            if found.shape != ():
                raise ShapeError(f"a schedule gives a scalar, got {found._type}")
        return lr if is_weak(lr) else ew.astype(as_tensor(lr, "the learning rate"), float64)

    # -- the pure functions --------------------------------------------------------------------

    def init(self, params: Any) -> Container:
        """The state before the first step: the step count, and zeros for each slot."""
        flat = as_container(params)
        state = Container(count=scalar(float64, 0.0))
        for slot in self.slots:
            dict.__setitem__(state, slot, flat.map(_zeros_like))
        return state

    def update(self, params: Any, grads: Any, state: Mapping[str, Any]) -> tuple[Any, Container]:
        """The parameters and the state after one step, from nested tensors; nothing is written."""
        nested, old = as_container(params), Container(state)
        values = dict(nested.flat_items())
        wanted = self._matched(values, as_container(grads), list(values))
        new_values, new_state = self._advance(values, wanted, old)
        ends = iter([new_values.get(path, value) for path, value in values.items()])
        merged = Container((path, new_state.get(path, value)) for path, value in old.flat_items())
        return rebuilt(params, ends), merged

    def _advance(
        self, params: Mapping[str, Any], grads: Mapping[str, Tensor], state: Container
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The new values by path, for parameters that have a gradient."""
        new_params: dict[str, Tensor] = {}
        with no_grad():
            count = ew.add(state["count"], 1)
            new_state = {"count": count}
            shared = self.coefficients(count)
            for path, grad in grads.items():
                slots = {slot: state[slot][path] for slot in self.slots}
                value, slots = self.apply_single(params[path], grad, slots, shared)
                new_params[path] = value
                new_state.update({f"{slot}/{path}": slots[slot] for slot in self.slots})
        return new_params, new_state

    def _matched(
        self, params: Mapping[str, Any], grads: Container, required: list[str]
    ) -> dict[str, Tensor]:
        """The gradients by path, checked against the parameters."""
        name, given = type(self).__name__, dict(grads.flat_items())
        unknown = [path for path in given if path not in params]
        if unknown:
            known = ", ".join(params)
            raise EinkornError(MSG_UNKNOWN.format(name=name, unknown=unknown[0], known=known))
        missing = [path for path in required if given.get(path) is None]
        if missing:
            raise EinkornError(MSG_MISSING.format(name=name, missing=", ".join(missing[:5])))
        matched: dict[str, Tensor] = {}
        for path in required:
            grad, param = as_tensor(given[path], "step"), as_tensor(params[path], "step")
            both = f"the gradient of {path} is {grad._type}, the parameter {param._type}"
            if grad.shape != param.shape:
                raise ShapeError(f"{name}.step: {both}; they must have one shape")
            if grad.dtype is not param.dtype:
                raise DTypeError(f"{name}.step: {both}; cast it with .astype('{param.dtype}')")
            matched[path] = grad
        return matched

    # -- the shell -----------------------------------------------------------------------------

    def step(self, grads: Any = None, *, when: Any = None) -> None:
        """Move the trainable parameters one step; when anything is refused, nothing changes.

        Args:
            grads: gradients in the structure of the parameters, as `value_and_grad(fn, model)`
                gives them; None takes the `.grad` of the parameters, and skips those without one.
            when: a bool that a compiled step may bring; where it is False nothing changes.
        """
        params = self._current_params()
        matched = self._matched_now(params, grads)
        new_params, new_state = self._advance(params, matched, self._state)
        if when is not None:
            new_params = _chosen(when, new_params, params)
            new_state = _chosen(when, new_state, self._state)
        write_all(
            (
                *((params[path], value, path) for path, value in new_params.items()),
                *((self._state[path], value, path) for path, value in new_state.items()),
            )
        )

    def gradients(self, grads: Any = None) -> Container:
        """The gradients that `step(grads)` would use, by path, checked."""
        return Container(self._matched_now(self._current_params(), grads).items())

    def _matched_now(self, params: Mapping[str, Leaf], grads: Any) -> dict[str, Tensor]:
        trainable = [path for path, leaf in params.items() if leaf._trainable]
        if grads is not None:
            return self._matched(params, as_container(grads), trainable)
        own = {path: params[path].grad for path in trainable}
        trainable = [path for path in trainable if own[path] is not None]
        if not trainable:
            raise StateError(MSG_NO_GRADS.format(name=type(self).__name__))
        return self._matched(params, Container((x, own[x]) for x in trainable), trainable)

    def _current_params(self) -> dict[str, Leaf]:
        """The parameters by path; StateError when those of the model are others by now."""
        now = as_container(self._source)
        params = dict(self._params.flat_items())
        if now is not self._params:
            for path, leaf in now.flat_items():
                if params.get(path) is not leaf:
                    raise StateError(MSG_CHANGED.format(name=type(self).__name__, path=path))
        return params

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for leaf in self._params.to_flat_list():
            leaf.zero_grad()

    # -- state ---------------------------------------------------------------------------------

    @property
    def state(self) -> Container:
        """The live state: the step count, and for each slot leaves like the parameters."""
        return self._state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Copy values into the state: all of them or, when one does not fit, none."""
        values = as_mapping(state, f"{type(self).__name__}.set_state")
        load_leaves(
            f"{type(self).__name__}.set_state",
            dict(self._state.flat_items()),
            dict(values.flat_items()),
            strict=True,
        )

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the state by path, such as "m.hidden.w"."""
        return {
            path.replace("/", "."): np.array(leaf.numpy())
            for path, leaf in self._state.flat_items()
        }

    def load_state_dict(self, values: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy in what `state_dict` gave: all of it or, when something does not fit, nothing."""
        leaves = {path.replace("/", "."): leaf for path, leaf in self._state.flat_items()}
        return load_leaves(f"{type(self).__name__}.load_state_dict", leaves, values, strict)

    @classmethod
    def _settings(cls) -> list[str]:
        """The names of the hyper-parameters and modes."""
        owners = reversed(cls.__mro__)
        found = (name for cls in owners for name, x in vars(cls).items() if isinstance(x, Tunable))
        return list(dict.fromkeys(found))

    def __setattr__(self, name: str, value: Any) -> None:
        known = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        if not known and "_ek_complete" in self.__dict__:
            settings = self._settings()
            close = difflib.get_close_matches(name, settings, n=2, cutoff=0.5)
            hint = f" (did you mean {' or '.join(close)}?)" if close else ""
            raise EinkornError(
                MSG_SETTING.format(
                    owner=type(self).__name__, name=name, known=", ".join(settings), hint=hint
                )
            )
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        values = (f"{name}={self.__dict__[name]!r}" for name in self._settings())
        return f"{type(self).__name__}({', '.join(values)})"


# -- nests of parameters ---------------------------------------------------------------------------


def as_container(nest: Any) -> Container:
    """A Module's parameters, a Container, or lists and dicts of those, as one Container."""
    if hasattr(nest, "_gradient_targets"):
        return nest.v
    if isinstance(nest, Container):
        return nest
    if isinstance(nest, dict):
        return Container((str(key), _item(value)) for key, value in nest.items())
    if isinstance(nest, (list, tuple)):
        return Container((f"v{k}", _item(value)) for k, value in enumerate(nest))
    return Container(v0=nest)


def _item(value: Any) -> Any:
    nested = isinstance(value, (dict, list, tuple)) or hasattr(value, "_gradient_targets")
    return as_container(value) if nested else value


def _chosen(when: Any, new: Mapping[str, Tensor], old: Any) -> dict[str, Tensor]:
    """New values where `when` holds, else the old ones."""
    condition = as_tensor(when, "step")
    if condition.dtype is not bool_ or condition.shape:
        raise DTypeError(f"step: when is one bool, got {condition._type}")
    with no_grad():
        return {path: ew.where(condition, value, old[path]) for path, value in new.items()}


def rebuilt(nest: Any, values: Any) -> Any:
    """The nest that `as_container` was given, with new ends; a Module becomes a Container."""
    if hasattr(nest, "_gradient_targets"):
        nest = nest.v
    if isinstance(nest, dict):
        items = ((key, rebuilt(value, values)) for key, value in nest.items())
        return Container(items) if isinstance(nest, Container) else dict(items)
    if isinstance(nest, (list, tuple)):
        return type(nest)(rebuilt(value, values) for value in nest)
    return next(values)


def _checked_params(name: str, params: Any) -> Container:
    flat = as_container(params)
    seen: dict[int, str] = {}
    for path, leaf in flat.flat_items():
        if isinstance(leaf, str):
            raise EinkornError(MSG_PAIRS.format(name=name))
        if not isinstance(leaf, Leaf):
            raise EinkornError(
                f"{name} needs a Module, leaves (ek.Parameter, ek.tensor) or a nest of them, got "
                f"{type(leaf).__name__} at {path}"
            )
        if not leaf.dtype.is_float:
            raise DTypeError(
                f"{name}: only floating-point leaves can be trained; {path} is {leaf._type}"
            )
        if leaf.id in seen:
            raise StateError(
                f"{name}: {seen[leaf.id]} and {path} are the same leaf; pass it once, or pass the "
                "Module that holds both"
            )
        seen[leaf.id] = path
    if not seen:
        raise EinkornError(f"{name}: there is no parameter to train in {type(params).__name__}")
    return flat


def _zeros_like(x: Any) -> Tensor:
    like = as_tensor(x, "init")
    return as_tensor(np.zeros(like.shape, like.dtype.numpy), "init")


def in_dtype_of(param: Tensor, value: Any) -> Any:
    """A coefficient as it meets a parameter: rounded once to its dtype."""
    return value if is_weak(value) else ew.astype(value, param.dtype)


def global_norm(grads: Any) -> Tensor:
    """The Euclidean norm of all gradients together, in float32 or wider."""
    squares = [_square_sum(grad) for grad in as_container(grads).to_flat_list()]
    if not squares:
        raise EinkornError("global_norm: there are no gradients")
    total = squares[0]
    for square in squares[1:]:
        total = ew.add(total, square)
    return ew.sqrt(total)


def _square_sum(grad: Any) -> Tensor:
    wide = as_tensor(grad, "global_norm")
    wide = wide if wide.dtype.itemsize >= 4 else wide.astype("float32")
    return ew.multiply(wide, wide).sum()


def clip_by_global_norm(grads: Any, max_norm: Any) -> Any:
    """The gradients, scaled down when their global norm exceeds `max_norm` (Pascanu et al., 2013).

    The result has the structure of `grads`.
    """
    if is_known(max_norm) and (isinstance(max_norm, bool) or not max_norm > 0):
        raise EinkornError(f"clip_by_global_norm: max_norm is above 0, got {max_norm!r}")
    with no_grad():
        norm = global_norm(grads)
        scale = ew.divide(max_norm, ew.maximum(norm, max_norm))
        ends = as_container(grads).to_flat_list()
        clipped = [_scaled(grad, scale) for grad in ends]
    return rebuilt(grads, iter(clipped))


def _scaled(grad: Any, scale: Tensor) -> Tensor:
    tensor = as_tensor(grad, "clip_by_global_norm")
    return ew.multiply(tensor, in_dtype_of(tensor, scale))
