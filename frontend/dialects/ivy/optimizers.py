"""Ivy's optimizers: `step(v, grads)` returns the new variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einkorn.container import as_mapping, check_structure
from einkorn.convert import check_device
from einkorn.dialects.ivy.containers import Container
from einkorn.dialects.ivy.functions import adam_update, gradient_descent_update
from einkorn.ir.errors import EinkornError


class Optimizer:
    """The base: subclasses define `_step(v, grads)`.

    Args:
        lr: a number, or a function of nothing that gives one.
        dev: "cpu" or None; `device` is the same.
    """

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
        if not callable(lr) and not isinstance(lr, (int, float)):
            raise EinkornError(f"lr is a number or a function, got {lr!r}")
        self._lr: Any = lr if callable(lr) else float(lr)
        self._inplace, self._stop_gradients = inplace, stop_gradients
        self._init_on_first_step = init_on_first_step
        self._count = 0

    def _rate(self) -> float:
        return self._lr if isinstance(self._lr, float) else self._lr()

    def _step(self, v: Any, grads: Any) -> Any:
        """The new variables."""
        raise NotImplementedError

    def step(self, v: Any, grads: Any, ignore_missing: bool = False) -> Any:
        """The variables after one step; nothing is written.

        Args:
            ignore_missing: leave variables without a gradient as they are.
        """
        values = as_mapping(v, "step")
        part = values.at_key_chains(grads.key_chains()) if ignore_missing else values
        check_structure(part, grads, f"{type(self).__name__}.step")
        self._count += 1
        new = self._step(part, grads)
        return values.set_at_key_chains(new) if ignore_missing else new


class SGD(Optimizer):
    """v - lr * grads."""

    def __init__(self, lr: Any = 1e-4, **settings: Any) -> None:
        super().__init__(lr, **settings)

    def _step(self, v: Any, grads: Any) -> Any:
        return gradient_descent_update(v, grads, self._rate())

    @property
    def state(self) -> Container:
        """Nothing but the step count."""
        return Container(count=self._count)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._count = int(state["count"])


class Adam(Optimizer):
    """Adam as Ivy has it: the first gradients are the first moments.

    `ek.optim.Adam` starts from zero moments, as published.
    """

    def __init__(
        self,
        lr: Any = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-7,
        **settings: Any,
    ) -> None:
        super().__init__(lr, **settings)
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        self._mw: Any = None
        self._vw: Any = None

    def _step(self, v: Any, grads: Any) -> Any:
        if self._mw is None:
            self._mw, self._vw = grads, grads**2
        new, self._mw, self._vw = adam_update(
            v,
            grads,
            self._rate(),
            self._mw,
            self._vw,
            self._count,
            self._beta1,
            self._beta2,
            self._epsilon,
        )
        return new

    @property
    def state(self) -> Container:
        """The moments and the step count."""
        return Container(mw=self._mw, vw=self._vw, count=self._count)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._mw, self._vw, self._count = state["mw"], state["vw"], int(state["count"])
