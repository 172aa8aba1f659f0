"""`Logs`: loss and metrics of a step, which become Python numbers when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.manipulation import stack
from einkorn.ir.dtypes import float64
from einkorn.tensor import Tensor


class Packing:
    """How the values of a step are returned: scalars in one vector, the others beside it."""

    def __init__(self) -> None:
        self._scalars: tuple[str, ...] = ()
        self._order: tuple[str, ...] = ()

    def pack(self, values: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """One float64 vector, and what is no scalar."""
        tensors = {name: as_tensor(x, name) for name, x in values.items()}
        scalars = {name: x for name, x in tensors.items() if not x.shape}
        self._scalars, self._order = tuple(scalars), tuple(tensors)
        vector = stack([ew.astype(ew.stop_gradient(x), float64) for x in scalars.values()])
        return vector, {name: x for name, x in tensors.items() if x.shape}

    def logs(self, packed: tuple[Tensor, dict[str, Tensor]]) -> Logs:
        """The values of a step by name."""
        return Logs(self._order, self._scalars, *packed)


class Logs(MutableMapping[str, Any]):
    """Values by name: Python floats, and arrays for what is no scalar."""

    __slots__ = ("_known", "_order", "_others", "_scalars", "_vector")

    def __init__(
        self,
        order: tuple[str, ...],
        scalars: tuple[str, ...],
        vector: Tensor,
        others: Mapping[str, Tensor],
    ) -> None:
        self._order, self._scalars = order, scalars
        self._vector, self._others = vector, others
        self._known: dict[str, Any] | None = None

    def _values(self) -> dict[str, Any]:
        if self._known is None:
            numbers = dict(zip(self._scalars, self._vector.numpy().tolist()))
            arrays = {name: x.numpy().copy() for name, x in self._others.items()}
            self._known = {k: numbers[k] if k in numbers else arrays[k] for k in self._order}
        return self._known

    def __getitem__(self, name: str) -> Any:
        return self._values()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._values()[name] = value

    def __delitem__(self, name: str) -> None:
        del self._values()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __repr__(self) -> str:
        return repr(self._values())
