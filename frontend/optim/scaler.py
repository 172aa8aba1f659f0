"""`LossScaler`: gradients of float16 without underflow (Micikevicius et al., 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.statistical import all as all_of
from einkorn.ir.dtypes import bool_, float32
from einkorn.ir.errors import DTypeError, EinkornError
from einkorn.leaf import Leaf
from einkorn.loading import LoadResult, load_leaves, write_all
from einkorn.optim.base import Optimizer
from einkorn.optim.hyper import Hyper
from einkorn.optim.nests import as_container, rebuilt
from einkorn.recording import no_grad
from einkorn.tensor import Tensor
from einkorn.tunable import is_number
from einkorn.watched import Watched, note_birth

LARGEST, SMALLEST = 2.0**100, 2.0**-60  # the scale stays between them


class LossScaler(Watched):
    """Multiplies a loss so that small gradients survive in float16, and finds the factor itself.

        loss, grads = ek.value_and_grad(lambda: scaler.scale(loss_fn(x, y)), model)()
        scaler.step(optimizer, grads)

    A step whose gradients are not finite changes no parameter and no state of the optimizer, and
    makes the scale smaller; after `growth_interval` others in a row it grows. All of it is state
    and arithmetic, so a compiled step decides when it runs and is not traced again.

    Args:
        scale: the first one.
        growth_factor: what it is multiplied by after enough good steps.
        backoff_factor: what it is multiplied by after a bad one.
        growth_interval: how many good steps are enough.
    """

    growth_factor = Hyper(low=1.0)
    backoff_factor = Hyper(below=1.0)
    growth_interval = Hyper(low=1.0)

    def __init__(
        self,
        scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        note_birth(self)
        if not is_number(scale) or not SMALLEST <= scale <= LARGEST:
            raise EinkornError(
                f"LossScaler: scale is a number from {SMALLEST:g} to {LARGEST:g}, got {scale!r}"
            )
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.growth_interval = growth_interval
        self.current = Leaf(float(scale), "float32", name="loss_scaler.scale")
        self.good_steps = Leaf(0.0, "float32", name="loss_scaler.good_steps")

    def scale(self, loss: Any) -> Tensor:
        """The loss times the scale, in float32 or wider."""
        tensor = as_tensor(loss, "LossScaler.scale")
        if not tensor.dtype.is_float:
            raise DTypeError(f"LossScaler.scale: a loss is a float, got {tensor._type}")
        wide = tensor if tensor.dtype.itemsize >= 4 else ew.cast(tensor, float32)
        return ew.multiply(wide, ew.cast(ew.stop_gradient(self.current), wide.dtype))

    def unscale(self, grads: Any) -> tuple[Any, Tensor]:
        """The gradients divided by the scale, in their structure, and whether all are finite."""
        with no_grad():
            factor = ew.reciprocal(ew.stop_gradient(self.current))
            ends = [as_tensor(x, "LossScaler.unscale") for x in as_container(grads).to_flat_list()]
            if not ends:
                raise EinkornError(
                    "LossScaler.unscale: there are no gradients; pass what value_and_grad gives"
                )
            found = [_times(x, factor) for x in ends]
            finite = all_of(ew.isfinite(found[0]))
            for x in found[1:]:
                finite = ew.bitwise_and(finite, all_of(ew.isfinite(x)))
        return rebuilt(grads, iter(found)), finite

    def update(self, finite: Any) -> None:
        """Adapt the scale to whether the gradients of this step were finite."""
        good = as_tensor(finite, "LossScaler.update")
        if good.dtype is not bool_ or good.shape:
            raise DTypeError(f"LossScaler.update: needs one bool, got {good._type}")
        with no_grad():
            count = ew.add(self.good_steps, 1.0)
            grows = ew.greater_equal(count, self.growth_interval)
            larger = ew.minimum(ew.multiply(self.current, self.growth_factor), LARGEST)
            smaller = ew.maximum(ew.multiply(self.current, self.backoff_factor), SMALLEST)
            scale = ew.where(good, ew.where(grows, larger, self.current), smaller)
            again = ew.bitwise_or(grows, ew.bitwise_invert(good))
            steps = ew.where(again, 0.0, count)
            write_all(((self.current, scale, "scale"), (self.good_steps, steps, "good_steps")))

    def step(self, optimizer: Optimizer, grads: Any = None) -> Tensor:
        """One step of the optimizer where the gradients are finite, and the next scale.

        Args:
            optimizer: what moves the parameters.
            grads: of the scaled loss, in the structure of the parameters; None takes the `.grad`
                of the parameters.

        Returns:
            Whether the gradients were finite.
        """
        unscaled, finite = self.unscale(optimizer.gradients(grads))
        optimizer.step(unscaled, when=finite)
        self.update(finite)
        return finite

    # -- state ---------------------------------------------------------------------------------

    def _leaves(self) -> dict[str, Leaf]:
        return {"scale": self.current, "good_steps": self.good_steps}

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the scale and of the number of good steps since it changed."""
        return {name: np.array(leaf.numpy()) for name, leaf in self._leaves().items()}

    def load_state_dict(self, values: Any, strict: bool = True) -> LoadResult:
        """Copy in what `state_dict` gave: all of it or, when something does not fit, nothing."""
        return load_leaves("LossScaler.load_state_dict", self._leaves(), values, strict)

    def __repr__(self) -> str:
        return f"LossScaler(scale={self.current.item():g})"


def _times(grad: Tensor, factor: Tensor) -> Tensor:
    """The product in float32 or wider, rounded once to the dtype of the gradient."""
    wide = grad if grad.dtype.itemsize >= 4 else ew.cast(grad, float32)
    return ew.cast(ew.multiply(wide, ew.cast(factor, wide.dtype)), grad.dtype)
