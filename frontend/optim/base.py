"""The template of optimizers: two pure functions in a stateful shell.

`init(params)` gives the state and `update(params, grads, state)` the next parameters and state; a
subclass only says what happens to one parameter. `step` applies `update` to the leaves. Weight
decay, groups, clipping, accumulation and averages of the weights are the template's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, ValuesView
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from einkorn.container import Container, as_mapping, frozen
from einkorn.convert import as_tensor, is_weak
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import float64
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError, StateError
from einkorn.leaf import Leaf
from einkorn.loading import LoadResult, load_leaves, write_all
from einkorn.optim.average import EMA
from einkorn.optim.clipping import clip_by_global_norm, clipped_by_norm, clipped_by_value
from einkorn.optim.groups import group_of, made_groups
from einkorn.optim.hyper import Hyper
from einkorn.optim.nests import (
    as_container,
    checked_params,
    chosen,
    in_dtype_of,
    rebuilt,
    zeros_like,
)
from einkorn.optim.saved import load_settings, saved_leaves, saved_settings
from einkorn.recording import Value, no_grad, scalar
from einkorn.tensor import Tensor
from einkorn.tunable import Mode, Tunable
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
# What other libraries call settings, and what to write here.
ELSEWHERE = {
    "learning_rate": "lr",
    "betas": "beta1 and beta2",
    "epsilon": "eps",
    "decay": "weight_decay",
    "max_grad_norm": "clip_global_norm",
    "clipnorm": "clip_norm",
    "clipvalue": "clip_value",
    "momentum": "ek.optim.Momentum(params, lr, momentum=...)",
    "nesterov": "ek.optim.Momentum(params, lr, nesterov=True)",
    "amsgrad": "ek.optim.AMSGrad",
}
MSG_CHANGED = (
    "{name}: {path!r} is not the parameter that the optimizer was made for; make a new optimizer "
    "after the parameters of a model were added or exchanged (use leaf.value = ... to set values)"
)
MSG_ACCUMULATE = "{name}: accumulate is a whole number of at least 1, got {found!r}"
MSG_EMA = "{name}: ema is the decay of the average, a number, or an ek.optim.EMA, got {found!r}"
MSG_PARAMS = (
    "{name} moves parameters, and got none: {name}(model, ...) takes a Module, a Container, a leaf "
    "or a list of leaves; ek.Model also takes a function, for parameters that do not exist yet: "
    "optimizer=lambda module: ek.optim.{name}(module, ...)"
)
MSG_DECOUPLED = "{name} applies its weight decay in its own way; it has no mode decoupled"


class Options(TypedDict, total=False):
    """What every optimizer takes besides its own settings; `Optimizer` says what they do."""

    decoupled: bool
    groups: Mapping[str, Mapping[str, Any]] | None
    clip_value: float | None
    clip_norm: float | None
    clip_global_norm: float | None
    accumulate: int
    ema: float | EMA | None


def takes_params(init: Any) -> bool:
    """Whether a constructor asks for parameters first; those of dialects have their own order."""
    code = getattr(init, "__code__", None)
    return code is not None and code.co_varnames[1 : code.co_argcount][:1] == ("params",)


class _OptimizerType(type):
    """Notes the end of `__init__`: from then on an unknown public attribute is a typo."""

    if not TYPE_CHECKING:  # for a checker a call is that of the class's own __init__

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if not args and "params" not in kwargs and takes_params(cls.__init__):
                raise EinkornError(MSG_PARAMS.format(name=cls.__name__))
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
        weight_decay: how much of a parameter is added to its gradient.
        decoupled: whether the decay is p * (1 - lr * weight_decay) instead, beside the gradient
            (Loshchilov & Hutter, 2019).
        groups: settings for the parameters whose path fits a pattern, as in
            `{"*/b": {"weight_decay": 0.0}}`. The first pattern that fits decides.
        clip_value: brings every element of the gradients into [-clip_value, clip_value].
        clip_norm: scales each gradient whose norm is larger.
        clip_global_norm: scales all gradients when their common norm is larger.
        accumulate: so many calls of `step` move the parameters once, by the mean of the gradients.
        ema: keeps a moving average of the parameters with this decay, in `optimizer.ema`.

    Attributes:
        slots: the names of the state kept for each parameter.
        groups: by pattern, where the settings of a group can be changed.
        accumulate: as it was given.
        ema: the average, or None.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    of_the_whole: ClassVar[tuple[str, ...]] = ("clip_global_norm", "accumulate", "groups", "ema")
    decays_itself: ClassVar[bool] = False
    lr = Hyper(schedule=True)
    weight_decay = Hyper()
    decoupled = Mode()
    clip_value = Hyper(positive=True, optional=True)
    clip_norm = Hyper(positive=True, optional=True)
    clip_global_norm = Hyper(positive=True, optional=True)

    def __init__(
        self,
        params: Any,
        lr: Any,
        weight_decay: float = 0.0,
        *,
        decoupled: bool = False,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        clip_global_norm: float | None = None,
        accumulate: int = 1,
        ema: float | EMA | None = None,
        **unknown: Any,
    ) -> None:
        name = type(self).__name__
        if unknown:
            raise EinkornError(self._unknown_setting(next(iter(unknown))))
        self.lr, self.weight_decay, self.decoupled = lr, weight_decay, decoupled
        if decoupled and self.decays_itself:
            raise EinkornError(MSG_DECOUPLED.format(name=name))
        self.clip_value, self.clip_norm = clip_value, clip_norm
        self.clip_global_norm = clip_global_norm
        if type(accumulate) is not int or accumulate < 1:
            raise EinkornError(MSG_ACCUMULATE.format(name=name, found=accumulate))
        self._accumulate = accumulate
        params = list(params) if isinstance(params, (Iterator, ValuesView)) else params
        self._source = params
        self._params = checked_params(name, params)
        self._groups = made_groups(self, groups or {}, self._params.key_chains())
        state = self.init(self._params)
        self._state = state.map(lambda x: Leaf(x))
        for path, leaf in self._state.flat_items():
            leaf.name = f"{name.lower()}.{path.replace('/', '.')}"
        frozen(self._state, "state of the optimizer")
        self._ema = self._average(ema)

    def _average(self, ema: Any) -> EMA | None:
        if ema is None or isinstance(ema, EMA):
            return ema
        if isinstance(ema, bool) or not isinstance(ema, (int, float)):
            raise EinkornError(MSG_EMA.format(name=type(self).__name__, found=ema))
        return EMA(self._source, ema)

    @property
    def groups(self) -> Mapping[str, Optimizer]:
        """By pattern: the groups, whose settings can be read and set."""
        return MappingProxyType(self._groups)

    @property
    def accumulate(self) -> int:
        """How many calls of `step` move the parameters once."""
        return self._accumulate

    @property
    def ema(self) -> EMA | None:
        """The moving average of the parameters, or None."""
        return self._ema

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

    def rate_for(self, param: Tensor, shared: dict[str, Any]) -> Any:
        """The learning rate as it meets a parameter."""
        return in_dtype_of(param, shared["lr"])

    # -- the pure functions --------------------------------------------------------------------

    def init(self, params: Any) -> Container:
        """The state before the first step: the step count, and zeros for each slot."""
        flat = as_container(params)
        state = Container(count=scalar(float64, 0.0))
        more = ("accumulated",) if self._accumulate > 1 else ()
        for slot in (*self.slots, *more):
            dict.__setitem__(state, slot, flat.map(zeros_like))
        if more:
            state["calls"] = scalar(float64, 0.0)
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
        with no_grad():
            if self._accumulate == 1:
                return self._moved(params, grads, state)
            calls = ew.add(state["calls"], 1)
            total = {path: ew.add(state["accumulated"][path], grad) for path, grad in grads.items()}
            is_last = ew.greater_equal(calls, float(self._accumulate))
            means = {path: ew.divide(x, float(self._accumulate)) for path, x in total.items()}
            new_params, new_state = self._moved(params, means, state)
            new_params = chosen(is_last, new_params, params)
            new_state = chosen(is_last, new_state, state)
            new_state["calls"] = ew.where(is_last, 0.0, calls)
            for path, x in total.items():
                new_state[f"accumulated/{path}"] = ew.where(is_last, 0.0, x)
        return new_params, new_state

    def _moved(
        self, params: Mapping[str, Any], grads: Mapping[str, Tensor], state: Container
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One real step: the gradients clipped, then what subclasses define."""
        count = ew.add(state["count"], 1)
        new_params: dict[str, Tensor] = {}
        new_state = {"count": count}
        groups = {path: group_of(self, self._groups, path) for path in grads}
        shared = {group: group.coefficients(count) for group in dict.fromkeys(groups.values())}
        kept = {group: group._kept(shared[group], count) for group in shared}
        for path, grad in self._clipped(grads, groups).items():
            group = groups[path]
            slots = {slot: state[slot][path] for slot in self.slots}
            value, grad = group._decayed(as_tensor(params[path], "step"), grad, kept[group])
            new_params[path], slots = group.apply_single(value, grad, slots, shared[group])
            new_state.update({f"{slot}/{path}": slots[slot] for slot in self.slots})
        return new_params, new_state

    def _clipped(
        self, grads: Mapping[str, Tensor], groups: Mapping[str, Optimizer]
    ) -> dict[str, Tensor]:
        """The gradients clipped by value, then by their norms, then by the norm of all."""
        clipped = dict(grads)
        for path, group in groups.items():
            if group.clip_value is not None:
                clipped[path] = clipped_by_value(clipped[path], group.clip_value)
            if group.clip_norm is not None:
                clipped[path] = clipped_by_norm(clipped[path], group.clip_norm)
        if self.clip_global_norm is None:
            return clipped
        found = clip_by_global_norm(list(clipped.values()), self.clip_global_norm)
        return dict(zip(clipped, found, strict=True))

    def _kept(self, shared: dict[str, Any], count: Tensor) -> Any:
        """What a parameter keeps of itself beside the gradient, for decoupled weight decay."""
        if self.decays_itself or not self.decoupled:
            return None
        lr = shared["lr"] if "lr" in shared else self.rate(count)
        return 1.0 - lr * self.weight_decay

    def _decayed(self, param: Tensor, grad: Tensor, kept: Any) -> tuple[Tensor, Tensor]:
        """A parameter and its gradient with the weight decay in one of them."""
        if kept is not None:
            return ew.multiply(param, in_dtype_of(param, kept)), grad
        if self.decays_itself:
            return param, grad
        return param, ew.add(grad, ew.multiply(param, self.weight_decay))

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
        if self._ema is not None:
            self._ema.pairs()  # refuses before anything is written
        new_params, new_state = self._advance(params, matched, self._state)
        if when is not None:
            new_params = chosen(when, new_params, params)
            new_state = chosen(when, new_state, self._state)
        moved = None
        if self._accumulate > 1 or when is not None:
            moved = ew.not_equal(new_state["count"], self._state["count"])
        write_all(
            (
                *((params[path], value, path) for path, value in new_params.items()),
                *((self._state[path], value, path) for path, value in new_state.items()),
            )
        )
        if self._ema is not None:
            self._ema.update(when=moved)

    def gradients(self, grads: Any = None) -> Container:
        """The gradients that `step(grads)` would use, by path, checked."""
        return Container(self._matched_now(self._current_params(), grads).items())

    def _matched_now(self, params: Mapping[str, Leaf], grads: Any) -> dict[str, Tensor]:
        trainable = [path for path, leaf in params.items() if leaf.trainable]
        if grads is not None:
            return self._matched(params, as_container(grads), trainable)
        own = {path: params[path].grad for path in trainable}
        if self._accumulate == 1 or all(own[path] is None for path in trainable):
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
        """Copies of all that the next steps depend on, by path, such as "m.hidden.w".

        Besides the slots and the step count these are the float settings ("settings.lr"), those of
        the groups, the state of a learning rate that has one, and the average of `ema`.
        """
        state = {key: np.array(leaf.numpy()) for key, leaf in saved_leaves(self).items()}
        return {**state, **{key: np.array(x.value) for key, x in saved_settings(self).items()}}

    def load_state_dict(self, values: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy in what `state_dict` gave: all of it or, when something does not fit, nothing.

        Settings that are not among the values stay as they are.
        """
        what = f"{type(self).__name__}.load_state_dict"
        return load_settings(what, self, values, strict)

    @classmethod
    def _settings(cls) -> list[str]:
        """The names of the hyper-parameters and modes."""
        owners = reversed(cls.__mro__)
        found = (name for cls in owners for name, x in vars(cls).items() if isinstance(x, Tunable))
        return list(dict.fromkeys(found))

    def _unknown_setting(self, name: str) -> str:
        """The text of an error about a setting that does not exist."""
        settings = self._settings()
        close = difflib.get_close_matches(name, settings, n=2, cutoff=0.5)
        close = [ELSEWHERE[name]] if name in ELSEWHERE else close
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        owner, known = type(self).__name__, ", ".join(settings)
        return MSG_SETTING.format(owner=owner, name=name, known=known, hint=hint)

    def __setattr__(self, name: str, value: Any) -> None:
        known = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        if not known and "_ek_complete" in self.__dict__:
            raise EinkornError(self._unknown_setting(name))
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        own = ((name, self.__dict__.get(name)) for name in self._settings())
        values = (f"{name}={x!r}" for name, x in own if x is not None and x is not False)
        return f"{type(self).__name__}({', '.join(values)})"

    def __getattr__(self, name: str) -> Any:
        """What a group has no setting of its own for."""
        whole = None if name.startswith("_") else self.__dict__.get("_whole")
        if whole is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(whole, name)
