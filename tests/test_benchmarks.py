"""The benchmarks measure what they say: losses, gradients, figures and tables; nothing is timed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import __main__ as command
from benchmarks import definition, reference, results, workloads
from benchmarks.drive import Plan, reference_losses
from benchmarks.peers import PEERS, by_einkorn, by_numpy
from benchmarks.report import duration, report, table

ROOT = Path(__file__).parents[1]
TINY = Plan(checked=6, tiny=True)
MODES = [name for name in PEERS if name.startswith("einkorn")]
NAMES = [*workloads.STEPS, "add-all 6", "capture-all 6", "add", "exp", "matmul 32x64x64"]


def losses_of(build: Any, workload: definition.Workload, mode: str = "") -> list[float]:
    running = build(workload, mode, 1)
    losses: list[float] = []
    for _ in range(TINY.checked):
        running.step()
        running.sync()
        losses.append(running.loss())
    return losses


@pytest.mark.parametrize("peer", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_first_losses_agree_with_the_reference(name: str, peer: str) -> None:
    workload = workloads.make(name, tiny=True)
    losses = losses_of(by_einkorn.build, workload, PEERS[peer].mode)
    expected = reference_losses(name, TINY)
    if expected is None:  # what einkorn alone can do
        assert name.startswith("capture")
        return
    assert results.loss_error(losses, expected) < 1e-5


BY_HAND = [
    name for name in workloads.STEPS if workloads.make(name, tiny=True).model in by_numpy.MODELS
]


@pytest.mark.parametrize("name", BY_HAND)
def test_numpy_by_hand_agrees_with_the_reference(name: str) -> None:
    losses = losses_of(by_numpy.build, workloads.make(name, tiny=True))
    expected = reference_losses(name, TINY)
    assert expected is not None
    assert results.loss_error(losses, expected) < 1e-5


TRAINED = [name for name in workloads.STEPS if workloads.make(name, tiny=True).task == "train"]


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_of_the_reference_agree_with_differences(name: str) -> None:
    workload = workloads.in_float64(workloads.make(name, tiny=True))
    model = {**by_numpy.TRAINED, **reference.TRAINED}[workload.model]
    params, batch = list(workload.params.values()), workload.batches[0]
    state = {"state": workload.state} if workload.state else {}
    gradients = model(params, *batch, **state)[1]
    generator = np.random.default_rng(5)
    for param, gradient in zip(params, gradients, strict=True):
        kept, direction = param.copy(), generator.standard_normal(param.shape)
        ends: list[float] = []
        for step in (1e-6, -1e-6):
            param[...] = kept + step * direction
            ends.append(float(model(params, *batch, **state)[0]))
        param[...] = kept
        slope = float(np.sum(gradient * direction))
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_training_moves_every_loss() -> None:
    for name in TRAINED:
        losses = reference_losses(name, TINY)
        assert losses is not None
        assert len(set(losses)) == TINY.checked, name


def test_every_workload_has_a_group_and_einkorn_has_every_model() -> None:
    for group, names in workloads.GROUPS.items():
        for name in names:
            workload = workloads.make(name, tiny=True)
            assert workload.name == name, group
            assert workload.model in by_einkorn.MODELS


def load_adapter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The adapter as another harness loads it: from its file, its folder on the path."""
    path = ROOT / "benchmarks" / "peers" / "einkorn.py"
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    spec = importlib.util.spec_from_file_location("peer_einkorn", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert str(path.parent) not in sys.path
    return module


def test_the_adapter_serves_another_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = load_adapter(monkeypatch)
    assert set(adapter.MODELS) == adapter.SUPPORTS == set(workloads.STEPS)
    ours = workloads.make("W2", tiny=True)
    theirs = SimpleNamespace(
        name="W2",
        title="theirs",
        kind="train",
        params=ours.params,
        data={key: np.stack(values) for key, values in zip("xt", zip(*ours.batches))},
        nb=len(ours.batches),
        opt={"kind": "adam", "lr": ours.optimizer.rates[0], "b1": 0.9, "b2": 0.999, "eps": 1e-8},
    )
    harness = SimpleNamespace(get={"W2": theirs}.get, lr_of=lambda options, name: options["lr"])
    monkeypatch.setitem(sys.modules, "workloads", harness)
    step, loss, sync = adapter.make("W2", 1)
    losses: list[float] = []
    for _ in range(TINY.checked):
        step()
        sync()
        losses.append(loss())
    assert losses == losses_of(by_einkorn.build, ours, "compiled")


def turn(*samples: float) -> dict[str, Any]:
    return {"samples": samples, "cpus": 1.0, "others": 0.0, "faults": 0.0, "peak_mb": 40.0}


def facts(losses: list[float], *rounds: dict[str, Any]) -> dict[str, Any]:
    """What a worker tells of one workload."""
    return {
        "version": "1",
        "all_import_s": [0.1],
        "all_cold_s": [0.4, 0.2, 0.3],
        "import_mb": 30.0,
        "losses": losses,
        "rounds": list(rounds),
    }


@pytest.fixture
def canned_run() -> dict[str, Any]:
    """A run of one workload, as JSON gives it back."""
    found = {
        "einkorn": facts([1.0, 0.5], turn(1e-3, 3e-3, 2e-3), turn(4e-3), turn(3e-3)),
        "numpy": facts([1.0, 0.5], turn(4e-3), turn(5e-3), turn(6e-3)),
        "jax": facts([1.0, 0.6], turn(1e-6), turn(1e-6), turn(1e-6)),
        "torch": {"error": "RuntimeError: no compiler"},
        "torch-compile-loss": {"unsupported": "tanh_mlp"},
    }
    limits = {"copy_gbs": 10.0, "cached_copy_gbs": 20.0, "exp_gs": 1.0}
    limits |= {"matmul512_gflops": 90.0, "matmul2048_gflops": 100.0}
    workload = workloads.make("W1", tiny=True)
    entry = results.entry("W1", workload, 2, found, [1.0, 0.5], limits)
    machine = {"processor": "P", "cpus": 2, "system": "S", "python": "3", "numpy": "2"}
    rows = [{"threads": 2, "when": "before", **limits}]
    run = {"date": "2026-01-01", "machine": machine, "limits": rows, "results": [entry]}
    return json.loads(json.dumps(run))


def test_ratios_are_formed_within_rounds(canned_run: dict[str, Any]) -> None:
    (entry,) = canned_run["results"]
    ours = entry["peers"]["einkorn"]
    assert entry["best"] == "numpy"  # JAX is faster here, and wrong
    assert ours["round_medians_s"] == [2e-3, 4e-3, 3e-3]
    assert ours["step_s"] == 3e-3
    assert ours["ratio"] == 0.5  # the median of 2/4, 4/5, 3/6
    assert ours["cold_s"] == 0.3
    assert not entry["peers"]["jax"]["loss_ok"]
    assert "torch-compile-loss" not in entry["peers"]


def test_wrong_losses_are_never_right() -> None:
    assert results.loss_error([1.0, 2.0], [1.0, 2.002]) == pytest.approx(1e-3, rel=1e-2)
    assert results.loss_error([float("nan")], [1.0]) == float("inf")


@pytest.mark.parametrize("markdown", [False, True])
def test_the_report_of_a_canned_run(canned_run: dict[str, Any], markdown: bool) -> None:
    text = report(canned_run, markdown=markdown)
    (line,) = [line for line in text.splitlines() if "3.00 ms" in line]
    cells = line.replace("|", " ").split()
    start = ["W1", "3.00", "ms", "5.00", "ms", "1.00", "µs", "!", "failed", "numpy", "0.50"]
    assert cells[: len(start)] == start
    assert "torch: RuntimeError: no compiler" in text
    assert ("### Time of a step, 2 threads" in text) == markdown


def test_tables_and_durations() -> None:
    assert table(["", "n"], [["a", "10"]], markdown=True) == "|   |  n |\n| - | -: |\n| a | 10 |"
    shown = [duration(s) for s in (2.5, 0.0123, 0.25, 3.2e-5, 4e-8, None)]
    assert shown == ["2.50 s", "12.3 ms", "250 ms", "32.0 µs", "0.04 µs", "–"]


def test_the_command_measures_and_writes(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    options = "--quick --tiny --no-limits -w W1,W10 -p numpy,einkorn -t 1 --rounds 1 --seconds 0"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options.split(), "--json", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = json.loads(path.read_text(encoding="utf-8"))
    assert [entry["workload"] for entry in run["results"]] == ["W1", "W10"]
    assert all(entry["best"] == "numpy" for entry in run["results"])
    assert report(run) == done.stdout.rstrip("\n")


def test_quick_leaves_out_what_takes_long() -> None:
    left = set(command.arguments([]).workloads) - set(command.arguments(["--quick"]).workloads)
    assert left == {"W4", "W5"}


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.arguments(["-w", "W99"])
    assert "'W99' is unknown" in capsys.readouterr().err
