"""The peers: who takes part, and what a peer's module offers.

A module `by_*.py` has `MODELS`, functions by the names that workloads use, `VERSION`, and

    build(workload: Workload, mode: str, threads: int) -> Running

Importing it imports the framework, so only the process of that peer does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass


def _nothing() -> None:
    """All work is done when a step returns."""


@dataclass(frozen=True)
class Running:
    """A workload that a peer has set up.

    Attributes:
        step: takes the next step.
        loss: the loss of the last step before its update; of a call the mean of abs(result); of an
            update the mean of abs(parameters) after it.
        sync: returns when the steps so far are complete, the parameters included.
    """

    step: Callable[[], None]
    loss: Callable[[], float]
    sync: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Peer:
    """Where a peer is found, and the mode that tells it from others of the same module.

    Attributes:
        tasks: the tasks in which this mode differs from the others.
    """

    module: str
    package: str
    mode: str = ""
    tasks: tuple[str, ...] = ("train", "update", "call", "infer")

    @property
    def installed(self) -> bool:
        """Whether its package can be imported; nothing is imported to find out."""
        return importlib.util.find_spec(self.package) is not None


PEERS = {
    "einkorn": Peer("by_einkorn", "einkorn", "compiled"),
    "einkorn-eager": Peer("by_einkorn", "einkorn", "eager"),
    "numpy": Peer("by_numpy", "numpy"),
    "jax": Peer("by_jax", "jax"),
    "torch": Peer("by_torch", "torch", "eager"),
    "torch-compile": Peer("by_torch", "torch", "step"),
    "torch-compile-loss": Peer("by_torch", "torch", "loss", ("train",)),
}
