"""Ivy's optimizers: `step(v, grads)` returns the new variables.

What changes from step to step is kept in leaves, so that a compiled step goes on where the last one
ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, Self

import numpy as np

from einkorn.compile import compile
from einkorn.container import as_mapping, check_structure, frozen
from einkorn.convert import as_tensor, check_device
from einkorn.dialects.ivy import updates
from einkorn.dialects.ivy.containers import Container
from einkorn.functions import elementwise as ew
from einkorn.ir.errors import EinkornError
from einkorn.leaf import Leaf
from einkorn.loading import write_all
from einkorn.nn.building import outside
from einkorn.optim.hyper import Hyper
from einkorn.optim.schedules import Schedule
from einkorn.recording import Value, as_number, current_trace, no_grad
from einkorn.watched import Watched, note_birth

MSG_STATE = "{what}: a state has {wanted}, got {found}"


class Optimizer(Watched):
    """The base: subclasses define `_step(v, grads)`, which gives the new variables.

    Args:
        lr: a number, a scalar tensor, a function of nothing that gives one, or a schedule of
            `ek.optim`, which is called with the number of steps taken.
        inplace: write the new values to the variables, too; then `v` is the module's own.
        stop_gradients: let no gradient flow from the new variables to the old ones.
        init_on_first_step: of no effect, as every state is made in the first step.
        trace_on_next_step: compile the step.
        dev: "cpu" or None; `device` is the same.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    lr = Hyper(schedule=True)

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        optimizer = super().__new__(cls)
        note_birth(optimizer)
        return optimizer

    def __init__(
        self,
        lr: Any,
        inplace: Any = None,
        stop_gradients: bool = True,
        init_on_first_step: bool = False,
        trace_on_next_step: bool = False,
        dev: Any = None,
        *,
        device: Any = None,
    ) -> None:
        check_device(type(self).__name__, dev or device)
        self.lr = lr
        self._inplace, self._stop_gradients = inplace, stop_gradients
        self._steps = Leaf(0, "int64", name=f"{type(self).__name__.lower()}.count")
        self._kept: Container | None = None
        self._traced = compile(self._stepped) if trace_on_next_step else None

    @property
    def _lr(self) -> Any:
        return self.lr

    @property
    def _count(self) -> Any:
        """How many steps were begun: an int, in a trace what stands for one."""
        if current_trace.get() is None:
            return int(self._steps)
        return as_number(self._steps.detach())

    def _rate(self) -> Any:
        lr = self.lr
        if isinstance(lr, Schedule):
            return lr(self._count - 1)
        return lr() if callable(lr) and not isinstance(lr, Value) else lr

    def _step(self, v: Any, grads: Any) -> Any:
        """The new variables; those of a subclass."""
        raise EinkornError(f"{type(self).__name__} has no _step method")

    def step(self, v: Any, grads: Any, ignore_missing: bool = False) -> Any:
        """The variables after one step.

        Args:
            v: a Container or dict of variables.
            grads: their gradients, under the same keys.
            ignore_missing: leave variables without a gradient as they are.
        """
        if self._traced is not None and current_trace.get() is None:
            return self._traced(v, grads, ignore_missing)
        return self._stepped(v, grads, ignore_missing)

    def _stepped(self, v: Any, grads: Any, ignore_missing: bool) -> Any:
        what = f"{type(self).__name__}.step"
        values, grads = as_mapping(v, what), as_mapping(grads, what)
        part = values.at_key_chains(grads.key_chains()) if ignore_missing else values
        check_structure(part, grads, what)
        if self._inplace:
            updates.check_variables(what, part)
        if self.slots:
            self._keep(values)
        before = self._steps.detach()
        self._steps.value = ew.add(before, 1)
        try:
            with no_grad() if self._stop_gradients else nullcontext():
                new = self._step(part, grads)
            new = updates.written(what, part, new, self._inplace)
        except BaseException:
            self._steps.value = before
            raise
        return values.set_at_key_chains(new) if ignore_missing else new

    # -- state ---------------------------------------------------------------------------------

    def _keep(self, v: Mapping[str, Any]) -> None:
        """Make leaves for what is kept of each variable, once; those made in a trace stay."""
        if self.__dict__["_kept"] is None:
            with outside():
                self.__dict__["_kept"] = self._made(v)
        for slot in self.slots:
            what = f"{type(self).__name__}: what is kept and the variables"
            check_structure(self.__dict__["_kept"][slot], v, what)

    def _made(self, v: Mapping[str, Any]) -> Container:
        """New leaves of zeros."""
        name = type(self).__name__.lower()
        kept = Container({slot: Container(v).map(_zeros) for slot in self.slots})
        for path, leaf in kept.flat_items():
            leaf.name = f"{name}.{path.replace('/', '.')}"
        return frozen(kept, "state of the optimizer")  # type: ignore[return-value] # of its class

    def _slot(self, slot: str, keys: Any) -> Any:
        """What is kept of the variables that `keys` has."""
        return self.__dict__["_kept"][slot].at_key_chains(keys.key_chains())

    def _store(self, **values: Any) -> None:
        """Write what is kept of some variables."""
        kept = self.__dict__["_kept"]
        pairs = ((kept[slot], *item) for slot, new in values.items() for item in new.flat_items())
        write_all((leaves[path], x, path) for leaves, path, x in pairs)

    @property
    def state(self) -> Container:
        """What is kept of the variables, None before the first step, and the step count."""
        kept = self.__dict__["_kept"]
        values = {x: None if kept is None else kept[x].map(Leaf.detach) for x in self.slots}
        return Container({**values, "count": self._count})

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` gave: all of it or, when something does not fit, none."""
        what = f"{type(self).__name__}.set_state"
        given = as_mapping(state, what)
        wanted, found = (*self.slots, "count"), ", ".join(given)
        if set(given) != set(wanted):
            raise EinkornError(MSG_STATE.format(what=what, wanted=", ".join(wanted), found=found))
        kept, pairs = self.__dict__["_kept"], [(self._steps, given["count"], "count")]
        for slot in self.slots:
            if given[slot] is None:
                continue
            kept = self._made(given[slot]) if kept is None else kept
            new = check_structure(kept[slot], given[slot], f"{what}: {slot}")
            pairs += [(leaf, new[path], path) for path, leaf in kept[slot].flat_items()]
        write_all(pairs)
        self.__dict__["_kept"] = kept


def _zeros(x: Any) -> Leaf:
    like = as_tensor(x, "step")
    return Leaf(np.zeros(like.shape, like.dtype.numpy))


class SGD(Optimizer):
    """v - lr * grads."""

    def __init__(
        self,
        lr: Any = 1e-4,
        inplace: Any = None,
        stop_gradients: bool = True,
        trace_on_next_step: bool = False,
        dev: Any = None,
        *,
        device: Any = None,
    ) -> None:
        super().__init__(lr, inplace, stop_gradients, True, trace_on_next_step, dev, device=device)

    def _step(self, v: Any, grads: Any) -> Any:
        rate, stop = self._rate(), self._stop_gradients
        return updates.gradient_descent_update(v, grads, rate, stop_gradients=stop)


class LARS(Optimizer):
    """Steps in proportion to the norm of each variable: `lars_update`."""

    decay_lambda = Hyper()

    def __init__(
        self,
        lr: Any = 1e-4,
        decay_lambda: float = 0.0,
        inplace: Any = None,
        stop_gradients: bool = True,
        trace_on_next_step: bool = False,
        dev: Any = None,
        *,
        device: Any = None,
    ) -> None:
        super().__init__(lr, inplace, stop_gradients, True, trace_on_next_step, dev, device=device)
        self.decay_lambda = decay_lambda

    def _step(self, v: Any, grads: Any) -> Any:
        decay, stop = self.decay_lambda, self._stop_gradients
        return updates.lars_update(v, grads, self._rate(), decay, stop_gradients=stop)


class Adam(Optimizer):
    """Adam as Ivy has it: the first gradients are the first moments.

    `ek.optim.Adam` starts from zero moments, as published.
    """

    slots: ClassVar[tuple[str, ...]] = ("mw", "vw")
    beta1 = Hyper(below=1.0)
    beta2 = Hyper(below=1.0)
    epsilon = Hyper()

    def __init__(
        self,
        lr: Any = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-7,
        inplace: Any = None,
        stop_gradients: bool = True,
        trace_on_next_step: bool = False,
        dev: Any = None,
        *,
        device: Any = None,
    ) -> None:
        super().__init__(lr, inplace, stop_gradients, True, trace_on_next_step, dev, device=device)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def _step(self, v: Any, grads: Any) -> Any:
        is_first = self._steps == 1
        mw = self._slot("mw", v).map(lambda m, g: ew.where(is_first, g, m), grads)
        vw = self._slot("vw", v).map(lambda s, g: ew.where(is_first, g * g, s), grads)
        return self._moved(updates.adam_update, v, grads, mw, vw)

    def _moved(self, update: Any, v: Any, grads: Any, mw: Any, vw: Any, *more: Any) -> Any:
        """The new variables by an update that gives the new moments, too, which are stored."""
        known = (self._rate(), mw, vw, self._count, self.beta1, self.beta2, self.epsilon)
        new, mw, vw = update(v, grads, *known, *more, stop_gradients=self._stop_gradients)
        self._store(mw=mw, vw=vw)
        return new


class AdamW(Adam):
    """Adam, and v - lr * weight_decay * v before it (Loshchilov & Hutter, 2019)."""

    weight_decay = Hyper()

    def __init__(
        self,
        lr: Any = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float = 0.0,
        inplace: Any = None,
        stop_gradients: bool = True,
        trace_on_next_step: bool = False,
        dev: Any = None,
        *,
        device: Any = None,
    ) -> None:
        options = (inplace, stop_gradients, trace_on_next_step, dev)
        super().__init__(lr, beta1, beta2, epsilon, *options, device=device)
        self.weight_decay = weight_decay

    def _step(self, v: Any, grads: Any) -> Any:
        decay, stop = v * self.weight_decay, self._stop_gradients
        return super()._step(updates.optimizer_update(v, decay, self._rate(), None, stop), grads)


class LAMB(Adam):
    """Steps of Adam in proportion to the norm of each variable: `lamb_update`."""

    max_trust_ratio = Hyper(positive=True)
    decay_lambda = Hyper()

    def __init__(
        self,
        lr: Any = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-7,
        max_trust_ratio: float = 10.0,
        decay_lambda: float = 0.0,
        inplace: Any = None,
        stop_gradients: bool = True,
        trace_on_next_step: bool = False,
        dev: Any = None,
        *,
        device: Any = None,
    ) -> None:
        options = (inplace, stop_gradients, trace_on_next_step, dev)
        super().__init__(lr, beta1, beta2, epsilon, *options, device=device)
        self.max_trust_ratio, self.decay_lambda = max_trust_ratio, decay_lambda

    def _step(self, v: Any, grads: Any) -> Any:
        mw, vw = self._slot("mw", v), self._slot("vw", v)
        more = (self.max_trust_ratio, self.decay_lambda)
        return self._moved(updates.lamb_update, v, grads, mw, vw, *more)
