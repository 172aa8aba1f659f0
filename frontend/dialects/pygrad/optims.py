"""Optimizers for lists of weights, with `step(loss)` and `step_single(loss, batch_size, modify)`.

They are einkorn's, and move each weight by the gradient of the given loss. The original divides
that by the size of the batch once more in SGD and SGD_Momentum; `pygrad_compat=True` does so too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from einkorn import optim
from einkorn.dialects.pygrad.tensor import Tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.creation import zeros
from einkorn.ir.errors import EinkornError, StateError
from einkorn.leaf import Leaf
from einkorn.optim.base import Slots
from einkorn.optim.nests import as_container
from einkorn.recording import no_grad
from einkorn.tensor import Tensor as Array

MSG_LOSS = (
    "{name}.step(loss): {found}; call loss.backward() first, or step() without the loss after it"
)
MSG_WEIGHTS = "{name} needs the weights of a Tensor or a model (model.weights), got {found!r}"


class _Steps(optim.Optimizer):
    """How weights reach an optimizer of einkorn; goes in front of its class."""

    def _take(self, weights: Iterable[Tensor], pygrad_compat: bool = False) -> list[Any]:
        """The leaves of the weights."""
        self.model_parameters = list(weights)
        self._compat = pygrad_compat
        for x in self.model_parameters:
            if not isinstance(x, Tensor):
                raise EinkornError(MSG_WEIGHTS.format(name=type(self).__name__, found=x))
        leaves = [x.data for x in self.model_parameters]
        self._sums = tuple(Leaf(zeros(x.shape, dtype=x.dtype)) for x in leaves)
        return leaves

    def zero_grad(self) -> None:
        """Make the gradients of the weights zeros."""
        for x in self.model_parameters:
            x.reset_grad()

    if not TYPE_CHECKING:  # for a checker it is that of the base, whose argument is named grads

        def step(self, loss: Any = None, *, when: Any = None) -> None:
            """Move the weights by their gradients; `loss` is whatever they were computed from."""
            self._check(loss)
            super().step([self._own(x) for x in self.model_parameters], when=when)

    def step_single(self, loss: Any, batch_size: int, modify: bool = False) -> None:
        """Gradients one example at a time: add them up, or with `modify` step by their mean."""
        with no_grad():
            if modify:
                means = [ew.divide(x, float(batch_size)) for x in self._sums]
                super().step(means)
            else:
                self._check(loss)
            for total, x in zip(self._sums, self.model_parameters, strict=True):
                new = ew.multiply(total, 0.0) if modify else ew.add(total, self._own(x))
                total.value = new

    def _matched_now(self, params: Any, grads: Any) -> dict[str, Array]:
        return self._matched(params, as_container(grads), list(params))

    def _own(self, x: Tensor) -> Any:
        return ew.divide(x._grad, float(x._examples)) if self._compat else x._grad

    def _check(self, loss: Any) -> None:
        for x, leaf in zip(self.model_parameters, self._source, strict=True):
            if x.data is not leaf:
                name = f"{type(self).__name__}: {x.label or 'a weight'}"
                raise StateError(f"{name} was given another shape; make a new optimizer after that")
        if loss is None:
            return
        if not isinstance(loss, Tensor) or loss.topo is None:
            found = "the loss has no gradients yet" if isinstance(loss, Tensor) else repr(loss)
            raise StateError(MSG_LOSS.format(name=type(self).__name__, found=found))

    def _zero(self, *slots: str) -> None:
        for slot in slots:
            for leaf in self.state[slot].to_flat_list():
                leaf.value = zeros(leaf.shape, dtype=leaf.dtype)

    @property
    def iter_num(self) -> int:
        """How many steps were taken."""
        return int(self.state["count"])


class SGD(_Steps, optim.SGD):
    """w - lr * g."""

    def __init__(
        self, model_parameters: Iterable[Tensor], lr: Any = 1e-5, *, pygrad_compat: bool = False
    ) -> None:
        super().__init__(self._take(model_parameters, pygrad_compat), lr)


class SGD_Momentum(_Steps, optim.Momentum):
    """w - lr * m with m = beta * m + (1 - beta) * g."""

    def __init__(
        self,
        model_parameters: Iterable[Tensor],
        beta: float = 0.9,
        lr: Any = 1e-5,
        *,
        pygrad_compat: bool = False,
    ) -> None:
        super().__init__(self._take(model_parameters, pygrad_compat), lr, beta)

    def direction(self, grad: Array, slots: Slots, shared: dict[str, Any]) -> tuple[Array, Slots]:
        beta = shared["momentum"]
        m = ew.add(ew.multiply(slots["m"], beta), ew.multiply(grad, 1.0 - beta))
        return m, {"m": m}

    @property
    def beta(self) -> float:
        return self.momentum

    @beta.setter
    def beta(self, value: float) -> None:
        self.momentum = value

    def zero_momentums(self) -> None:
        """Forget the momentums."""
        self._zero("m")


class RMSProp(_Steps, optim.RMSProp):
    """w - lr * g / (sqrt(v) + 1e-8) with v = beta * v + (1 - beta) * g**2."""

    def __init__(
        self, model_parameters: Iterable[Tensor], beta: float = 0.9, lr: Any = 1e-5
    ) -> None:
        super().__init__(self._take(model_parameters), lr, beta, 1e-8)

    @property
    def beta(self) -> float:
        return self.alpha

    @beta.setter
    def beta(self, value: float) -> None:
        self.alpha = value

    def zero_vs(self) -> None:
        """Forget the means of squares."""
        self._zero("v")


class Adam(_Steps, optim.Adam):
    """Adam as published."""

    def __init__(
        self,
        model_parameters: Iterable[Tensor],
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        lr: Any = 1e-5,
    ) -> None:
        super().__init__(self._take(model_parameters), lr, beta1, beta2, eps)

    def zero_adam(self) -> None:
        """Forget the moments."""
        self._zero("m", "v")
