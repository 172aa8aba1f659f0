"""Schedules: learning rates as functions of the number of steps taken.

    opt = ek.optim.Adam(model, lr=schedules.WarmUp(schedules.Cosine(1e-3, 10_000), 500))

A schedule is computed inside the step, in float64, from the step count of the optimizer. So it is
saved with the optimizer, and a compiled step is not traced again. Its numbers can be changed at any
time (`opt.lr.end = 1e-5`). Called with a Python number it gives the rate to look at or to plot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from einkorn.convert import as_tensor, is_weak
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import float64
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.leaf import Leaf
from einkorn.loading import LoadResult, load_leaves, write_all
from einkorn.optim.hyper import Hyper
from einkorn.recording import no_grad, scalar
from einkorn.tensor import Tensor
from einkorn.tunable import Mode, Tunable, is_number
from einkorn.watched import Watched, note_birth


class Schedule(Watched):
    """The base of schedules; a subclass defines `value`."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        schedule = super().__new__(cls)
        note_birth(schedule)
        return schedule

    def __call__(self, count: Any) -> Tensor:
        """The learning rate after `count` steps, a float64 scalar."""
        tensor = as_tensor(count, type(self).__name__)
        if tensor.shape != ():
            raise ShapeError(f"{type(self).__name__} needs one step count, got {tensor._type}")
        with no_grad():
            return _wide(self.value(ew.astype(tensor, float64)))

    def value(self, count: Tensor) -> Any:
        """The learning rate after `count` steps, a float64 scalar or a number."""
        raise NotImplementedError

    def leaves(self) -> dict[str, Leaf]:
        """What changes with time besides the step count, by name."""
        inner = self.__dict__.get("inner")
        return inner.leaves() if isinstance(inner, Schedule) else {}

    def __repr__(self) -> str:
        names = [name for cls in reversed(type(self).__mro__) for name in vars(cls)]
        shown = [name for name in names if isinstance(getattr(type(self), name, None), Tunable)]
        values = [repr(self.__dict__["inner"])] if "inner" in self.__dict__ else []
        values += [f"{name}={self.__dict__[name]!r}" for name in dict.fromkeys(shown)]
        return f"{type(self).__name__}({', '.join(values)})"


def _wide(value: Any) -> Tensor:
    """A number or a scalar tensor as float64."""
    if is_weak(value):  # a number of Python has 53 bits, and becomes float32 on its own
        return ew.multiply(scalar(float64, 1.0), value)
    return ew.astype(as_tensor(value, "a schedule"), float64)


def _inner(owner: str, lr: Any) -> Schedule:
    """A number or a schedule as a schedule."""
    if isinstance(lr, Schedule):
        return lr
    if not is_number(lr):
        raise EinkornError(f"{owner}: lr is a number or a schedule, got {lr!r}")
    return Constant(lr)


class Constant(Schedule):
    """The same learning rate in all steps."""

    lr = Hyper()

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def value(self, count: Tensor) -> Any:
        return self.lr


class Step(Schedule):
    """lr * factor ** floor(n / every)."""

    lr, factor, every = Hyper(), Hyper(), Hyper(positive=True)

    def __init__(self, lr: float, every: float, factor: float = 0.1) -> None:
        self.lr, self.every, self.factor = lr, every, factor

    def value(self, count: Tensor) -> Any:
        return ew.multiply(ew.pow(self.factor, ew.floor(ew.divide(count, self.every))), self.lr)


class Exponential(Schedule):
    """lr * factor ** (n / every)."""

    lr, factor, every = Hyper(), Hyper(), Hyper(positive=True)

    def __init__(self, lr: float, factor: float, every: float = 1.0) -> None:
        self.lr, self.factor, self.every = lr, factor, every

    def value(self, count: Tensor) -> Any:
        return ew.multiply(ew.pow(self.factor, ew.divide(count, self.every)), self.lr)


class Piecewise(Schedule):
    """values[0] for n < boundaries[0], values[1] for n < boundaries[1], ..., then the last value.

    A value may be a schedule; it is called with the steps since its part began.
    """

    def __init__(self, values: Sequence[Any], boundaries: Sequence[float]) -> None:
        if len(values) != len(boundaries) + 1:
            raise EinkornError(
                f"Piecewise: {len(values)} values need {len(values) - 1} boundaries, got "
                f"{len(boundaries)}"
            )
        edges = [float(x) if is_number(x) else math.nan for x in boundaries]
        if not all(a < b for a, b in zip([0.0, *edges], [*edges, math.inf], strict=True)):
            raise EinkornError(
                f"Piecewise: boundaries are numbers of steps that grow, got {list(boundaries)!r}"
            )
        self.values = tuple(_inner("Piecewise", x) for x in values)
        self.boundaries = tuple(edges)

    def value(self, count: Tensor) -> Any:
        lr = self.values[0](count)
        for edge, schedule in zip(self.boundaries, self.values[1:], strict=True):
            lr = ew.where(ew.less(count, edge), lr, schedule(ew.subtract(count, edge)))
        return lr

    def leaves(self) -> dict[str, Leaf]:
        return {
            f"{k}.{name}": leaf
            for k, schedule in enumerate(self.values)
            for name, leaf in schedule.leaves().items()
        }

    def __repr__(self) -> str:
        return f"Piecewise({list(self.values)!r}, {list(self.boundaries)!r})"


class Polynomial(Schedule):
    """end + (lr - end) * (1 - n / steps) ** power, and `end` after so many steps."""

    lr, end, power, steps = Hyper(), Hyper(), Hyper(), Hyper(positive=True)

    def __init__(self, lr: float, steps: float, end: float = 0.0, power: float = 1.0) -> None:
        self.lr, self.steps, self.end, self.power = lr, steps, end, power

    def value(self, count: Tensor) -> Any:
        left = ew.subtract(1.0, ew.divide(ew.minimum(count, self.steps), self.steps))
        return ew.add(ew.multiply(ew.pow(left, self.power), self.lr - self.end), self.end)


class Cosine(Schedule):
    """end + (lr - end) * (1 + cos(pi * n / steps)) / 2, and `end` after so many steps.

    Loshchilov & Hutter, 2017. With `restarts` it begins again instead.
    """

    lr, end, steps, restarts = Hyper(), Hyper(), Hyper(positive=True), Mode()

    def __init__(
        self, lr: float, steps: float, end: float = 0.0, *, restarts: bool = False
    ) -> None:
        self.lr, self.steps, self.end, self.restarts = lr, steps, end, restarts

    def value(self, count: Tensor) -> Any:
        part = ew.divide(count, self.steps)
        part = ew.subtract(part, ew.floor(part)) if self.restarts else ew.minimum(part, 1.0)
        return _cosine(self.lr, self.end, part)


def _cosine(start: Any, end: Any, part: Tensor) -> Tensor:
    """From `start` to `end` along half a wave of the cosine, `part` of the way."""
    weight = ew.multiply(ew.add(ew.cos(ew.multiply(part, math.pi)), 1.0), 0.5)
    return ew.add(ew.multiply(weight, start - end), end)


class WarmUp(Schedule):
    """A straight line from `start` to `inner(0)` in so many steps, then inner(n - steps).

    Args:
        inner: a schedule, or a number.
        steps: how many steps of warm-up.
        start: the first learning rate.
    """

    steps, start = Hyper(positive=True), Hyper()

    def __init__(self, inner: Any, steps: float, start: float = 0.0) -> None:
        self.inner = _inner("WarmUp", inner)
        self.steps, self.start = steps, start

    def value(self, count: Tensor) -> Any:
        rise = ew.subtract(self.inner(scalar(float64, 0.0)), self.start)
        line = ew.add(ew.multiply(ew.divide(count, self.steps), rise), self.start)
        later = self.inner(ew.maximum(ew.subtract(count, self.steps), 0.0))
        return ew.where(ew.less(count, self.steps), line, later)


class OneCycle(Schedule):
    """From peak / divide up to `peak` and down to peak / (divide * divide_end) by cosines.

    Smith & Topin, 2018. The peak is at step warm_up * steps - 1, the end at steps - 1.
    """

    peak, steps, warm_up = Hyper(), Hyper(positive=True), Hyper(below=1.0, positive=True)
    divide, divide_end = Hyper(positive=True), Hyper(positive=True)

    def __init__(
        self,
        peak: float,
        steps: float,
        warm_up: float = 0.3,
        divide: float = 25.0,
        divide_end: float = 1e4,
    ) -> None:
        self.peak, self.steps, self.warm_up = peak, steps, warm_up
        self.divide, self.divide_end = divide, divide_end

    def value(self, count: Tensor) -> Any:
        top, last = self.warm_up * self.steps - 1.0, self.steps - 1.0
        start = self.peak / self.divide
        up = _cosine(start, self.peak, ew.divide(count, top))
        part = ew.divide(ew.subtract(count, top), last - top)
        part = ew.minimum(ew.maximum(part, 0.0), 1.0)
        down = _cosine(self.peak, start / self.divide_end, part)
        return ew.where(ew.less(count, top), up, down)


class InverseSquareRoot(Schedule):
    """peak * min((n + 1) / warm_up, sqrt(warm_up / (n + 1))) (Vaswani et al., 2017)."""

    peak, warm_up = Hyper(), Hyper(positive=True)

    def __init__(self, peak: float, warm_up: float) -> None:
        self.peak, self.warm_up = peak, warm_up

    def value(self, count: Tensor) -> Any:
        part = ew.divide(ew.add(count, 1.0), self.warm_up)
        return ew.multiply(ew.minimum(part, ew.divide(1.0, ew.sqrt(part))), self.peak)


class Scaled(Schedule):
    """`factor` times another schedule, as for the groups of an optimizer."""

    factor = Hyper()

    def __init__(self, inner: Any, factor: float) -> None:
        self.inner, self.factor = _inner("Scaled", inner), factor

    def value(self, count: Tensor) -> Any:
        return ew.multiply(self.inner(count), self.factor)


class ReduceOnPlateau(Schedule):
    """A learning rate that becomes smaller when a measure stops getting better.

        opt.lr = plateau = schedules.ReduceOnPlateau(1e-3, patience=5)
        plateau.update(validation_loss)     # after each epoch, also inside a compiled step

    Args:
        inner: the first learning rate, or the schedule that is scaled down.
        factor: what the rate is multiplied by.
        patience: so many updates without a better measure are allowed.
        threshold: what counts as better: by this part of the best one so far, or, with
            `relative=False`, by this much.
        cooldown: so many updates after a reduction are not counted.
        low: the least learning rate.
        mode: "min" when smaller measures are better, "max" when larger ones are.
    """

    factor, patience, cooldown = Hyper(below=1.0), Hyper(), Hyper()
    threshold, low = Hyper(), Hyper()
    largest, relative = Mode(), Mode()

    def __init__(
        self,
        inner: Any,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        low: float = 0.0,
        mode: str = "min",
        relative: bool = True,
    ) -> None:
        if mode not in ("min", "max"):
            raise EinkornError(f"ReduceOnPlateau: mode is 'min' or 'max', got {mode!r}")
        self.inner = _inner("ReduceOnPlateau", inner)
        self.factor, self.patience, self.cooldown = factor, patience, cooldown
        self.threshold, self.low = threshold, low
        self.largest, self.relative = mode == "max", relative
        worst = -math.inf if self.largest else math.inf
        self._scale = Leaf(1.0, float64, name="plateau.scale")
        self._best = Leaf(worst, float64, name="plateau.best")
        self._bad = Leaf(0.0, float64, name="plateau.bad")
        self._quiet = Leaf(0.0, float64, name="plateau.quiet")

    def value(self, count: Tensor) -> Any:
        lr = self.inner(count)
        return ew.maximum(ew.multiply(lr, self._scale), ew.minimum(lr, self.low))

    def update(self, measure: Any) -> None:
        """Take a measure into account: a number, or a scalar tensor; NaN is never better."""
        found = as_tensor(measure, "ReduceOnPlateau.update")
        if found.shape != () or not (found.dtype.is_float or found.dtype.is_integer):
            raise ShapeError(f"ReduceOnPlateau.update needs one number, got {found._type}")
        with no_grad():
            new = _wide(measure)
            better = self._is_better(new)
            quiet = ew.maximum(ew.subtract(self._quiet, 1.0), 0.0)
            counts = ew.bitwise_invert(ew.bitwise_or(better, ew.greater(self._quiet, 0.0)))
            bad = ew.where(counts, ew.add(self._bad, 1.0), 0.0)
            reduces = ew.greater(bad, self.patience)
            scale = ew.where(reduces, ew.multiply(self._scale, self.factor), self._scale)
            write_all(
                (
                    (self._best, ew.where(better, new, self._best), "best"),
                    (self._scale, scale, "scale"),
                    (self._bad, ew.where(reduces, 0.0, bad), "bad"),
                    (self._quiet, ew.where(reduces, self.cooldown, quiet), "quiet"),
                )
            )

    def _is_better(self, new: Tensor) -> Tensor:
        best = self._best
        margin = ew.multiply(ew.abs(best), self.threshold) if self.relative else self.threshold
        if self.largest:
            first = ew.equal(best, -math.inf)
            return ew.bitwise_or(ew.greater(new, ew.add(best, margin)), _known(first, new))
        first = ew.equal(best, math.inf)
        return ew.bitwise_or(ew.less(new, ew.subtract(best, margin)), _known(first, new))

    def leaves(self) -> dict[str, Leaf]:
        own = {"scale": self._scale, "best": self._best, "bad": self._bad, "quiet": self._quiet}
        return {**own, **{f"inner.{name}": leaf for name, leaf in self.inner.leaves().items()}}

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the scale and of what was measured."""
        return {name: np.array(leaf.numpy()) for name, leaf in self.leaves().items()}

    def load_state_dict(self, values: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy in what `state_dict` gave: all of it or, when something does not fit, nothing."""
        return load_leaves("ReduceOnPlateau.load_state_dict", self.leaves(), values, strict)


def _known(first: Tensor, new: Tensor) -> Tensor:
    """Whether this is the first measure, and a number."""
    return ew.bitwise_and(first, ew.equal(new, new))
