"""einkorn for a harness elsewhere that loads `<name>.py` from the folders in PEER_PATH.

Such a harness has a module `workloads` with `get(name)`. It puts this folder on `sys.path`, where
this file hides the package of the same name; so the folder leaves the path, and the repository,
where the models are, joins its end.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != HERE]
sys.path.append(str(HERE.parents[1]))

MODELS = {
    "W1": "tanh_mlp",
    "W2": "relu_mlp_loss",
    "W3": "lenet",
    "W4": "residual_network",
    "W5": "transformer",
    "W6": "chain",
    "W7": "norm_softmax",
    "W8": "none",
    "W9": "lstm",
    "W10": "relu_mlp",
    "W11": "relu_mlp_loss",
}
SUPPORTS = set(MODELS)
HYPER = {"b1": "beta1", "b2": "beta2", "eps": "eps", "mu": "momentum", "wd": "weight_decay"}
KINDS = {"sgdm": "momentum", None: "none"}


def preload(threads: int) -> None:
    """Import einkorn with that many threads."""
    os.environ["EINKORN_THREADS"] = str(threads)
    importlib.import_module("benchmarks.peers.by_einkorn")


def info() -> dict[str, str]:
    """What to record."""
    return {"einkorn": sys.modules["einkorn"].__version__}  # type: ignore[attr-defined]


def _channels_last(values: Any) -> Any:
    """Filters and images, which have their channels in the second place."""
    return np.ascontiguousarray(np.moveaxis(values, 1, -1)) if np.ndim(values) == 4 else values


def _batch(arrays: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(_channels_last(values) for values in arrays)


def _rows_by_pixel(weight: Any, channels: int) -> Any:
    """A weight whose rows go through the channels first, for features that do so last."""
    side = round((len(weight) / channels) ** 0.5)
    by_channel = weight.reshape(channels, side, side, -1)
    return np.ascontiguousarray(by_channel.transpose(1, 2, 0, 3)).reshape(weight.shape)


def translated(theirs: Any, rate_of: Callable[[Any, str], float]) -> Any:
    """A workload of the harness as one of ours; parameters and arrays keep their order."""
    ours = importlib.import_module("benchmarks.definition")
    options = theirs.opt
    model, kind = MODELS[theirs.name], options["kind"]
    params = {key: _channels_last(values) for key, values in theirs.params.items()}
    if model == "lenet":
        params["w0"] = _rows_by_pixel(params["w0"], channels=len(params["c1"]))
    state: list[Any] = []
    if model == "residual_network":
        state = [
            start
            for key, scale in params.items()
            if key.endswith("_g")
            for start in (np.zeros_like(scale), np.ones_like(scale))
        ]
    hyper = {HYPER[key]: options[key] for key in HYPER if key in options}
    rates = tuple(rate_of(options, key) for key in theirs.params) if kind else ()
    return ours.Workload(
        theirs.name,
        theirs.title,
        model,
        theirs.kind,
        params,
        [_batch(values[i] for values in theirs.data.values()) for i in range(theirs.nb)],
        ours.Optimizer(KINDS.get(kind, kind), rates, **hyper),
        state=state,
    )


def make(name: str, threads: int) -> tuple[Any, Any, Any]:
    """(step, loss, sync) of a workload."""
    workloads = importlib.import_module("workloads")
    by_einkorn = importlib.import_module("benchmarks.peers.by_einkorn")
    workload = translated(workloads.get(name), workloads.lr_of)
    running = by_einkorn.build(workload, "compiled", threads)
    return running.step, running.loss, running.sync
