"""The text of every stage of a small training step, compared with tests/golden.

`python tests/test_golden.py --bless` writes the files anew; reviewers read their diff. The machine
is a fixed one, so the text does not depend on the CPU that the tests run on.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn.ir.graph import Graph
from einkorn.ir.machine import Machine
from einkorn.passes.pipeline import run_pipeline

GOLDEN = Path(__file__).parent / "golden"
STAGES = (
    "trace", "expand-autodiff", "decompose", "simplify", "fold", "dce", "fuse", "lower", "batch",
    "schedule", "plan-memory",
)  # fmt: skip
MACHINE = Machine(lanes=8, registers=16)


def training_step() -> Graph:
    """Two layers, cross-entropy over gathered labels, momentum and a step counter."""
    w1 = ek.Parameter(np.zeros((6, 8), np.float32), name="w1")
    b1 = ek.Parameter(np.zeros(8, np.float32), name="b1")
    w2 = ek.Parameter(np.zeros((8, 3), np.float32), name="w2")
    params = (w1, b1, w2)
    slots = [ek.tensor(p.numpy(), trainable=False, name=f"{p.name}.momentum") for p in params]
    count = ek.tensor(0, name="count")

    def loss_of(x: Any, y: Any) -> Any:
        hidden = ek.maximum(x @ w1 + b1, 0.0)
        logs = ek.nn.log_softmax(hidden @ w2)
        return -ek.take_along_axis(logs, y[:, None], axis=1).mean()

    @ek.compile
    def train_step(x: Any, y: Any, lr: Any) -> Any:
        loss, grads = ek.value_and_grad(loss_of, list(params))(x, y)
        for param, slot, grad in zip(params, slots, grads):
            slot.value = slot * 0.9 + grad
            param.value = param - slot * lr
        count.value = count + 1
        return loss

    return train_step.trace(np.zeros((20, 6), np.float32), np.zeros(20, np.int32), 0.1)


def texts() -> dict[str, str]:
    """The text of each stage, without the line numbers of this file."""
    found: dict[str, str] = {}

    def observe(name: str, result: Any) -> None:
        text = re.sub(r"test_golden\.py:\d+", "test_golden.py", str(result))
        found[name] = re.sub(r"\bleaf\d+\b", "leaf", text) + "\n"

    run_pipeline(training_step(), MACHINE, observe)
    return found


@pytest.fixture(scope="module")
def stages() -> dict[str, str]:
    return texts()


def test_the_stages_are_those_of_the_files(stages: dict[str, str]) -> None:
    assert tuple(stages) == STAGES
    files = {path.name for path in GOLDEN.glob("*.txt")}
    assert files == {f"{k}-{name}.txt" for k, name in enumerate(STAGES)}


@pytest.mark.parametrize("name", STAGES)
def test_stage_text(stages: dict[str, str], name: str) -> None:
    path = GOLDEN / f"{STAGES.index(name)}-{name}.txt"
    hint = "run python tests/test_golden.py --bless when the new text is what you want"
    assert stages[name] == path.read_text(encoding="utf-8"), hint


def test_the_text_does_not_depend_on_what_ran_before(stages: dict[str, str]) -> None:
    ek.tensor([1.0])
    assert texts() == stages


def bless() -> None:
    """Write every file anew."""
    GOLDEN.mkdir(exist_ok=True)
    for path in GOLDEN.glob("*.txt"):
        path.unlink()
    for k, (name, text) in enumerate(texts().items()):
        (GOLDEN / f"{k}-{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--bless"]:
        raise SystemExit("usage: python tests/test_golden.py --bless")
    bless()
