"""`EMA`: the exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from einkorn.container import frozen
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import float64
from einkorn.ir.errors import EinkornError, StateError
from einkorn.leaf import Leaf
from einkorn.loading import LoadResult, load_leaves, write_all
from einkorn.optim.hyper import Hyper
from einkorn.optim.nests import as_container, checked_params, chosen, in_dtype_of
from einkorn.recording import no_grad
from einkorn.snapshot import snapshot
from einkorn.watched import Watched, note_birth

MSG_CHANGED = (
    "EMA: {path!r} is not the parameter that the average was made for; make a new one after the "
    "parameters of a model were added or exchanged"
)


class EMA(Watched):
    """average = d * average + (1 - d) * p after each step (Polyak & Juditsky, 1992).

        ema = ek.optim.EMA(model, 0.999)    # or Adam(model, ema=0.999), which updates it itself
        ema.update()                        # after each step, also inside a compiled one
        with ema.applied():                 # the model computes with the average
            evaluate(model)

    Args:
        params: a Module, a Container, a leaf, or a list of those.
        decay: d.
        warm_up: whether d is at most (1 + t) / (10 + t) at update t, so that the first values are
            soon forgotten.

    Attributes:
        average: the leaves of the average, in the structure of the parameters.
    """

    decay = Hyper(below=1.0)

    def __init__(self, params: Any, decay: float = 0.999, warm_up: bool = False) -> None:
        note_birth(self)
        if not isinstance(warm_up, bool):
            raise EinkornError(f"EMA: warm_up is True or False, got {warm_up!r}")
        self.decay, self._warm_up, self._source = decay, warm_up, params
        self._params = checked_params("EMA", params)
        self.average = self._params.map(lambda x: Leaf(x.numpy()))
        for path, leaf in self.average.flat_items():
            leaf.name = f"ema.{path.replace('/', '.')}"
        frozen(self.average, "average of the weights")
        self._count = Leaf(0.0, float64, name="ema.count")

    def pairs(self) -> dict[str, tuple[Leaf, Leaf]]:
        """By path: a parameter and its average; StateError when those of a model are others."""
        for path, leaf in as_container(self._source).flat_items():
            if self._params.get(path) is not leaf:
                raise StateError(MSG_CHANGED.format(path=path))
        averages = dict(self.average.flat_items())
        return {path: (leaf, averages[path]) for path, leaf in self._params.flat_items()}

    def update(self, *, when: Any = None) -> None:
        """Take the parameters as they are now into the average.

        Args:
            when: a bool that a compiled step may bring; where it is False nothing changes.
        """
        pairs = self.pairs()
        with no_grad():
            count = ew.add(self._count, 1)
            decay: Any = self.decay
            if self._warm_up:
                decay = ew.minimum(ew.divide(ew.add(count, 1), ew.add(count, 10)), decay)
            rest = 1.0 - decay
            new = {"count": count}
            for path, (param, average) in pairs.items():
                old = ew.multiply(average, in_dtype_of(param, decay))
                new[path] = ew.add(old, ew.multiply(param, in_dtype_of(param, rest)))
        leaves = {"count": self._count, **{path: average for path, (_, average) in pairs.items()}}
        new = new if when is None else chosen(when, new, leaves)
        write_all((leaves[path], value, path) for path, value in new.items())

    @contextmanager
    def applied(self) -> Generator[None]:
        """Within the block the parameters have the values of the average."""
        pairs = self.pairs()
        kept = {path: snapshot(param) for path, (param, _) in pairs.items()}
        self.copy_to_params()
        try:
            yield
        finally:
            write_all((param, kept[path], path) for path, (param, _) in pairs.items())

    def copy_to_params(self) -> None:
        """Give the parameters the values of the average."""
        write_all((param, average, path) for path, (param, average) in self.pairs().items())

    # -- state ---------------------------------------------------------------------------------

    def leaves(self) -> dict[str, Leaf]:
        """By key: the number of updates and the average."""
        averages = self.average.flat_items()
        return {
            "count": self._count,
            **{f"average.{path.replace('/', '.')}": leaf for path, leaf in averages},
        }

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the number of updates and of the average."""
        return {key: np.array(leaf.numpy()) for key, leaf in self.leaves().items()}

    def load_state_dict(self, values: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy in what `state_dict` gave: all of it or, when something does not fit, nothing."""
        return load_leaves("EMA.load_state_dict", self.leaves(), values, strict)

    def __repr__(self) -> str:
        return f"EMA(decay={self.decay:g}, warm_up={self._warm_up})"
