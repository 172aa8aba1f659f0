"""Elegy's moving averages, of a value and of a nest of values."""

from __future__ import annotations

import re
from typing import Any

from einkorn.container import Container, as_mapping
from einkorn.convert import as_tensor
from einkorn.dialects.elegy.modules import Module
from einkorn.functions import elementwise as ew
from einkorn.initializers import Constant
from einkorn.ir.errors import EinkornError
from einkorn.nn.settings import check_number, check_size
from einkorn.tensor import Tensor

MSG_WARMUP = "{name}: with warmup_length the average starts at a value; give zero_debias=False"


class _Decay(Module):
    def __init__(
        self,
        decay: float,
        zero_debias: bool = True,
        warmup_length: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        what = type(self).__name__
        self.decay = check_number(what, "decay", decay, 0.0)
        self.warmup_length = check_size(what, "warmup_length", warmup_length, 0)
        self.zero_debias = zero_debias
        if not self.decay < 1:
            raise EinkornError(f"{what}: decay is a number in [0, 1), got {decay!r}")
        if zero_debias and warmup_length:
            raise EinkornError(MSG_WARMUP.format(name=what))


class ExponentialMovingAverage(_Decay):
    """average = decay * average + (1 - decay) * x in each call.

    Args:
        decay: in [0, 1).
        zero_debias: divide by 1 - decay**calls, so that the first result is x.
        warmup_length: for so many calls the average is x itself.
    """

    def call(self, value: Any, update_stats: bool = True) -> Tensor:
        """The average with this value.

        Args:
            update_stats: whether it is kept.
        """
        x = as_tensor(value, "ExponentialMovingAverage")
        state: dict[str, Any] = {"trainable": False}
        start = Constant(float(-self.warmup_length))
        counter = self.add_parameter("counter", (), "float32", start, **state)
        hidden = self.add_parameter("hidden", x.shape, x.dtype, **state)
        self.add_parameter("average", x.shape, x.dtype, **state)
        count = ew.add(counter, 1.0)
        decay = ew.where(ew.less_equal(count, 0.0), 0.0, self.decay)
        kept = ew.multiply(hidden, ew.cast(decay, x.dtype))
        found = average = ew.add(kept, ew.multiply(x, ew.cast(ew.subtract(1.0, decay), x.dtype)))
        if self.zero_debias:
            share = ew.subtract(1.0, ew.pow(self.decay, count))
            average = ew.divide(found, ew.cast(share, x.dtype))
        if update_stats:
            for name, new in (("counter", count), ("hidden", found), ("average", average)):
                self.update_parameter(name, ew.stop_gradient(new))
        return average


class EMAParamsTree(_Decay):
    """An `ExponentialMovingAverage` for each value of a nest of dicts, such as parameters.

    Args:
        ignore_regex: values whose path matches stay as they are.
    """

    def __init__(
        self,
        decay: float,
        zero_debias: bool = True,
        warmup_length: int = 0,
        ignore_regex: str = "",
        name: str | None = None,
    ) -> None:
        super().__init__(decay, zero_debias, warmup_length, name)
        self.ignore_regex = ignore_regex

    def call(self, tree: Any, update_stats: bool = True) -> Container:
        """The averages with these values, in the same structure."""
        values = as_mapping(tree, "EMAParamsTree")
        found = Container()
        for path, value in values.flat_items():
            if not self.ignore_regex or not re.match(self.ignore_regex, path):
                own = path.replace("/", "__")
                average = ExponentialMovingAverage(
                    self.decay, self.zero_debias, self.warmup_length, own
                )
                value = average(value, update_stats)
            found[path] = value
        return found
