"""Files of a `Model`: arrays and JSON in one safetensors file; nothing in it is ever executed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from einkorn.ir.errors import StateError
from einkorn.leaf import Leaf
from einkorn.loading import load_leaves, read_file, read_text, write_file
from einkorn.random.generator import default_generator
from einkorn.tunable import is_number

Array = np.ndarray[Any, Any]
FORMAT = 1
_TEXT = "einkorn.model"

MSG_FORMAT = (
    "{path} holds no model: it was not written by Model.save. Files of Module.save are read by "
    "model.module.load(path)"
)


@dataclass
class Progress:
    """How far training has come.

    Attributes:
        epoch: how many epochs are complete.
        batch: how many batches of the next one are.
        order: what the order of that one was made from.
    """

    epoch: int = 0
    batch: int = 0
    order: tuple[int, int] | None = None


def leaves_of(model: Any, optimizer: bool) -> dict[str, Leaf]:
    """Everything that training changes, by name."""
    found = {f"module.{key}": leaf for key, leaf in model.module._ek_named_leaves().items()}
    for name, metric in model._all_metrics().items():
        own = metric._ek_named_leaves().items()
        found.update({f"metrics.{name}.{key}": leaf for key, leaf in own})
    generator = default_generator()
    draws = {"draw": generator.draw, "draw_apart": generator.draw_apart}
    found.update({f"random.{name}": leaf for name, leaf in {"key": generator.key, **draws}.items()})
    if optimizer and model.optimizer is not None:
        state = model.optimizer.state.flat_items()
        found.update({f"optimizer.{path.replace('/', '.')}": leaf for path, leaf in state})
    return found


def save(model: Any, path: Any, include_optimizer: bool) -> None:
    """Write a model; an old file stays until the new one is complete."""
    leaves = leaves_of(model, include_optimizer)
    arrays = {name: np.array(leaf.numpy()) for name, leaf in leaves.items()}
    states = [_jsonable(state, f"callbacks.{k}", arrays) for k, state in _states(model)]
    lr: Any = getattr(model.optimizer, "lr", None) if include_optimizer else None
    text = {
        "format": FORMAT,
        "progress": asdict(model.progress),
        "lr": float(lr) if is_number(lr) else None,
        "callbacks": [[type(x).__name__, state] for x, state in zip(_callbacks(model), states)],
    }
    write_file(path, arrays, {_TEXT: json.dumps(text)})


def _callbacks(model: Any) -> list[Any]:
    return [] if model._callbacks is None else model._callbacks.callbacks


def _states(model: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((k, callback.get_state()) for k, callback in enumerate(_callbacks(model)))


def _jsonable(state: Mapping[str, Any], prefix: str, arrays: dict[str, Array]) -> dict[str, Any]:
    """A state as JSON; the arrays in it go to `arrays` and leave their names."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, Mapping) and any(isinstance(x, np.ndarray) for x in value.values()):
            names = {key: f"{prefix}.{name}.{key}" for key in value}
            arrays.update({names[key]: array for key, array in value.items()})
            found[name] = {"arrays": names}
        else:
            found[name] = value
    return found


def load(model: Any, path: Any, include_optimizer: bool) -> list[tuple[str, dict[str, Any]]]:
    """Read a model: all of it or, when something does not fit, nothing.

    Returns:
        The class and state of each callback.
    """
    text = read_text(path).get(_TEXT)
    try:
        info = json.loads(text or "")
        states = [(str(name), dict(state)) for name, state in info["callbacks"]]
        own = info["progress"]
        order = own["order"] and (int(own["order"][0]), int(own["order"][1]))
        progress = Progress(int(own["epoch"]), int(own["batch"]), order)
        known = info["format"] == FORMAT
    except (ValueError, KeyError, TypeError, IndexError):
        raise StateError(MSG_FORMAT.format(path=path)) from None
    if not known:
        raise StateError(f"{path} was written by another version: its format is {info['format']}")
    arrays = read_file(path)
    for name in arrays:
        if name.startswith("metrics.mean/"):
            model._metric_named(name.removeprefix("metrics.").rpartition(".")[0])
    leaves = leaves_of(model, include_optimizer)
    skipped = ("callbacks.",) if include_optimizer else ("callbacks.", "optimizer.")
    values = {name: x for name, x in arrays.items() if not name.startswith(skipped)}
    missing = [name for name in leaves if name.startswith("metrics.") and name not in values]
    values.update({name: np.array(leaves[name].numpy()) for name in missing})
    load_leaves("Model.load", leaves, values, strict=True)
    model.progress = progress
    if include_optimizer and is_number(info.get("lr")) and model.optimizer is not None:
        model.optimizer.lr = info["lr"]
    return [(name, _restored(state, arrays)) for name, state in states]


def _restored(state: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    return {
        name: {k: arrays[x] for k, x in value["arrays"].items()}
        if isinstance(value, dict) and set(value) == {"arrays"}
        else value
        for name, value in state.items()
    }
