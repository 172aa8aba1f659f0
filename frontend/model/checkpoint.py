"""Files of a `Model`: arrays and JSON in one safetensors file; nothing in it is ever executed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from einkorn.ir.errors import EinkornError, StateError
from einkorn.leaf import Leaf
from einkorn.loading import load_leaves, read_file, read_text, write_file
from einkorn.optim.saved import Setting, apply_settings, checked_settings, saved_leaves
from einkorn.random.generator import default_generator
from einkorn.tunable import is_number

Array = np.ndarray[Any, Any]
FORMAT = 2
_TEXT = "einkorn.model"
_OPTIMIZER = "optimizer."

MSG_FORMAT = (
    "{path} holds no model: it was not written by Model.save. Files of Module.save are read by "
    "model.module.load(path)"
)
MSG_OTHER = (
    "make module, metrics and optimizer as those that were saved; include_optimizer=False leaves "
    "the optimizer out"
)
MSG_STATE = (
    "Model.save: the state of a callback goes into a file as JSON, which it is not: {error}; "
    "get_state() gives numbers, text, lists and dicts of these, and dicts of arrays"
)


@dataclass
class Progress:
    """How far training has come.

    Attributes:
        epoch: how many epochs are complete.
        batch: how many batches of the next one are.
        order: what the order of that one was made from.
        logs: those of the last of these batches; None before the first one.
    """

    epoch: int = 0
    batch: int = 0
    order: tuple[int, int] | None = None
    logs: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)


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
        own = saved_leaves(model.optimizer).items()
        found.update({f"{_OPTIMIZER}{key}": leaf for key, leaf in own})
    return found


def save(model: Any, path: Any, include_optimizer: bool) -> None:
    """Write a model; an old file stays until the new one is complete."""
    leaves = leaves_of(model, include_optimizer)
    arrays = {name: np.array(leaf.numpy()) for name, leaf in leaves.items()}
    if include_optimizer and model.optimizer is not None:
        own = model.optimizer.state_dict().items()
        arrays.update({f"{_OPTIMIZER}{key}": array for key, array in own})
    states = [_jsonable(state, f"callbacks.{k}", arrays) for k, state in _states(model)]
    now: Progress = model.progress
    text = {
        "format": FORMAT,
        "progress": {"epoch": now.epoch, "batch": now.batch, "order": now.order},
        "logs": None if now.logs is None else _jsonable(_by_kind(now.logs), "logs", arrays),
        "callbacks": [[type(x).__name__, state] for x, state in zip(_callbacks(model), states)],
    }
    write_file(path, arrays, {_TEXT: _json(text)})


def _json(text: dict[str, Any]) -> str:
    try:
        return json.dumps(text)
    except (TypeError, ValueError) as error:
        raise EinkornError(MSG_STATE.format(error=error)) from None


def _by_kind(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Logs with the numbers and the arrays apart."""
    numbers = {name: float(x) for name, x in logs.items() if is_number(x)}
    return {"numbers": numbers, "arrays": {k: x for k, x in logs.items() if k not in numbers}}


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
    info = _read_info(path)
    arrays = read_file(path)
    try:
        progress = _progress(info, arrays)
        states = [(str(name), _restored(state, arrays)) for name, state in info["callbacks"]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise StateError(MSG_FORMAT.format(path=path)) from None
    means = set(model._means)
    try:
        _load_arrays(model, arrays, include_optimizer)
    except EinkornError:
        for name in set(model._means) - means:
            del model._means[name]
        raise
    model.progress = progress
    return states


def _load_arrays(model: Any, arrays: Mapping[str, Array], include_optimizer: bool) -> None:
    for name in arrays:
        if name.startswith("metrics.mean/"):
            model._metric_named(name.removeprefix("metrics.").rpartition(".")[0])
    leaves = leaves_of(model, include_optimizer)
    skipped = ("callbacks.", "logs.", _OPTIMIZER)
    values = {name: x for name, x in arrays.items() if not name.startswith(skipped)}
    missing = [name for name in leaves if name.startswith("metrics.") and name not in values]
    values.update({name: np.array(leaves[name].numpy()) for name in missing})
    settings: list[Setting] = []
    if include_optimizer:
        own = {
            name.removeprefix(_OPTIMIZER): x
            for name, x in arrays.items()
            if name.startswith(_OPTIMIZER)
        }
        settings, rest = checked_settings(
            "Model.load", model.optimizer, own, strict=True, remedy=MSG_OTHER
        )
        values.update({f"{_OPTIMIZER}{name}": x for name, x in rest.items()})
    load_leaves("Model.load", leaves, values, strict=True, remedy=MSG_OTHER)
    apply_settings(settings)


def _read_info(path: Any) -> dict[str, Any]:
    """The JSON of a file."""
    text = read_text(path).get(_TEXT)
    try:
        info = json.loads(text or "")
        version = info["format"]
    except (ValueError, KeyError, TypeError):
        raise StateError(MSG_FORMAT.format(path=path)) from None
    if version != FORMAT:
        raise StateError(f"{path} was written by another version: its format is {version}")
    return info


def _progress(info: Mapping[str, Any], arrays: Mapping[str, Array]) -> Progress:
    own, logs = info["progress"], info["logs"]
    order = own["order"] and (int(own["order"][0]), int(own["order"][1]))
    progress = Progress(int(own["epoch"]), int(own["batch"]), order)
    if logs is not None:
        parts = _restored(logs, arrays)
        progress.logs = {**parts["numbers"], **parts["arrays"]}
    return progress


def _restored(state: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    return {
        name: {k: arrays[x] for k, x in value["arrays"].items()}
        if isinstance(value, dict) and set(value) == {"arrays"}
        else value
        for name, value in state.items()
    }
