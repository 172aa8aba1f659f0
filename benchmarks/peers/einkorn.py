"""einkorn for a harness elsewhere that loads `<name>.py` from the folders in PEER_PATH.

Such a harness has a module `workloads` with `get(name)`. It puts this folder on `sys.path`, where
this file hides the package of the same name; so the folder leaves the path, and the repository,
where the models are, joins its end.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != HERE]
sys.path.append(str(HERE.parents[1]))

SUPPORTS = {"W1", "W2", "W6", "W7", "W8", "W10", "W11"}
MODELS = {
    "W1": "tanh_mlp",
    "W2": "relu_mlp_loss",
    "W6": "chain",
    "W7": "norm_softmax",
    "W8": "none",
    "W10": "relu_mlp",
    "W11": "relu_mlp_loss",
}
HYPER = {"b1": "beta1", "b2": "beta2", "eps": "eps"}


def preload(threads: int) -> None:
    """Import einkorn with that many threads."""
    os.environ["EINKORN_THREADS"] = str(threads)
    importlib.import_module("benchmarks.peers.by_einkorn")


def info() -> dict[str, str]:
    """What to record."""
    return {"einkorn": sys.modules["einkorn"].__version__}  # type: ignore[attr-defined]


def translated(theirs: Any, rate_of: Callable[[Any, str], float]) -> Any:
    """A workload of the harness as one of ours; parameters and arrays keep their order."""
    ours = importlib.import_module("benchmarks.workloads")
    options = theirs.opt
    hyper = {HYPER[key]: options[key] for key in HYPER if key in options}
    rates = tuple(rate_of(options, key) for key in theirs.params) if options["kind"] else ()
    return ours.Workload(
        theirs.name,
        theirs.title,
        MODELS[theirs.name],
        theirs.kind,
        theirs.params,
        [tuple(values[i] for values in theirs.data.values()) for i in range(theirs.nb)],
        ours.Optimizer(options["kind"] or "none", rates, **hyper),
    )


def make(name: str, threads: int) -> tuple[Any, Any, Any]:
    """(step, loss, sync) of a workload."""
    workloads = importlib.import_module("workloads")
    by_einkorn = importlib.import_module("benchmarks.peers.by_einkorn")
    workload = translated(workloads.get(name), workloads.lr_of)
    running = by_einkorn.build(workload, "compiled", threads)
    return running.step, running.loss, running.sync
