"""README.md tells the truth: its example prints what it shows, its commands are what CI runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from einkorn import nn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LINALG = (ROOT / "docs" / "linalg.md").read_text(encoding="utf-8")
CONTROL_FLOW = (ROOT / "docs" / "control_flow.md").read_text(encoding="utf-8")


def block(text: str, mark: str, language: str) -> str:
    """The fenced block right after the comment `mark`."""
    fences = re.findall(
        rf"^<!-- {re.escape(mark)} -->\n```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    assert len(fences) == 1, f"one block marked {mark!r}, found {len(fences)}"
    return fences[0]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; its errors are shown when it fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EINKORN_")}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


TRACES = (ROOT / "docs" / "traces.md").read_text(encoding="utf-8")
OPTIMIZERS = (ROOT / "docs" / "optimizers.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
BUCKETS = (ROOT / "docs" / "buckets.md").read_text(encoding="utf-8")
IVY = (ROOT / "docs" / "dialect_ivy.md").read_text(encoding="utf-8")
PYGRAD = (ROOT / "docs" / "dialect_pygrad.md").read_text(encoding="utf-8")
ELEGY = (ROOT / "docs" / "dialect_elegy.md").read_text(encoding="utf-8")
MODULES = (ROOT / "docs" / "modules.md").read_text(encoding="utf-8")
SHOWN = {
    "modules": MODULES,
    "training": TRAINING,
    "README": README,
    "architecture": ARCHITECTURE,
    "traces": TRACES,
    "linalg": LINALG,
    "optimizers": OPTIMIZERS,
    "pygrad": PYGRAD,
    "ivy": IVY,
    "buckets": BUCKETS,
    "elegy": ELEGY,
}


@pytest.mark.parametrize("document", SHOWN.values(), ids=SHOWN)
def test_an_example_prints_what_the_document_shows(document: str, tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text(block(document, "example", "python"), encoding="utf-8")
    assert run(sys.executable, script, cwd=tmp_path) == block(document, "output", "text")


def test_a_rule_of_ones_own_does_what_the_document_shows(tmp_path: Path) -> None:
    script = tmp_path / "rule.py"
    script.write_text(block(OPTIMIZERS, "example: own rule", "python"), encoding="utf-8")
    printed = run(sys.executable, script, cwd=tmp_path)
    assert printed == block(OPTIMIZERS, "output: own rule", "text")


def test_the_example_about_other_libraries_holds(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "array_api.md").read_text(encoding="utf-8")
    script = tmp_path / "exchange.py"
    script.write_text(block(document, "example", "python"), encoding="utf-8")
    run(sys.executable, script, cwd=tmp_path)


def test_the_example_of_control_flow_runs(tmp_path: Path) -> None:
    script = tmp_path / "loop.py"
    script.write_text(block(CONTROL_FLOW, "example", "python"), encoding="utf-8")
    assert run(sys.executable, script, cwd=tmp_path).startswith("Tensor(2685.")


def test_the_example_of_mixed_precision_trains(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "mixed_precision.md").read_text(encoding="utf-8")
    script = tmp_path / "half.py"
    script.write_text(block(document, "example", "python"), encoding="utf-8")
    assert run(sys.executable, script, cwd=tmp_path).startswith("True LossScaler(scale=")


def test_the_example_of_callbacks_runs(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(block(TRACES, "example: callback", "python"), encoding="utf-8")
    printed = run(sys.executable, script, cwd=tmp_path)
    assert printed == "rank Tensor(3, dtype=int64)\nrank Tensor(1, dtype=int64)\n"


@pytest.mark.parametrize("name", ["attributes", "donate"])
def test_the_examples_of_attributes_and_donation_hold(name: str, tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text(block(TRACES, f"example: {name}", "python"), encoding="utf-8")
    printed = run(sys.executable, script, cwd=tmp_path)
    assert printed == block(TRACES, f"output: {name}", "text")


def test_the_example_of_random_numbers_runs(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "random.md").read_text(encoding="utf-8")
    script = tmp_path / "draws.py"
    script.write_text(block(document, "example", "python"), encoding="utf-8")
    counts, slope = run(sys.executable, script, cwd=tmp_path).splitlines()
    assert len(counts.split(",")) == 3
    assert 0.9 < float(slope[len("Tensor(") :].split(",")[0]) < 1.1


def test_the_example_of_neural_functions_learns(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "neural.md").read_text(encoding="utf-8")
    script = tmp_path / "step.py"
    script.write_text(block(document, "example", "python"), encoding="utf-8")
    first, last = map(float, run(sys.executable, script, cwd=tmp_path).split())
    assert last < first - 0.5


def test_the_example_of_layers_learns_and_the_table_names_them_all(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    script = tmp_path / "step.py"
    script.write_text(block(document, "example", "python"), encoding="utf-8")
    losses, shape = run(sys.executable, script, cwd=tmp_path).splitlines()
    first, last = map(float, losses.split())
    assert last < first - 0.5
    assert shape == "(2, 5, 32)"
    classes = [x for x in (getattr(nn, name) for name in nn.__all__) if isinstance(x, type)]
    names = {x.__name__ for x in classes if issubclass(x, nn.Module) and x is not nn.Module}
    short = {re.sub(r"[123]D", "", name) for name in names}
    written = set(re.findall(r"\w+", document.replace("1D/2D/3D", "")))
    assert short <= written


def test_the_example_is_short() -> None:
    lines = block(README, "example", "python").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 30


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    extract = script[script.index("command_of()") : script.index("run_command()")]
    for name in ("run", "test"):
        assert f"\nrun_command {name}\n" in script
        found = run("bash", "-euc", f"{extract}\ncommand_of {name}")
        assert found == block(README, f"command: {name}", "sh")


def test_links_lead_to_files() -> None:
    for document, folder in ((README, ROOT), (ARCHITECTURE, ROOT / "docs")):
        for link in re.findall(r"\]\(([^)#:]+)\)", document):
            assert (folder / link).exists(), link


def test_folders_of_the_readme_exist() -> None:
    folders = re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE)
    assert sorted(folders) == ["codegen", "frontend", "ir", "passes", "runtime"]
    assert all((ROOT / folder).is_dir() for folder in folders)


def digits(*arguments: str | Path) -> str:
    """What the main example prints."""
    pytest.importorskip("sklearn", reason="the example needs scikit-learn's digits")
    return run(sys.executable, ROOT / "examples" / "digits.py", *arguments)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_the_digits_example_trains(mode: str) -> None:
    printed = digits("--mode", mode, "--steps", "20")
    assert re.search(rf"{mode} +20/20  loss \d\.\d+  held-out [\d.]+%  +\d+ steps/s", printed)
    assert all(len(line) <= 100 for line in printed.splitlines())


def test_the_digits_example_compares_bits() -> None:
    printed = digits("--compare", "--steps", "60", "--threads", "2")
    assert "Same bits: all " in printed
    assert re.search(r"Compiled is \d+\.\d times as fast as eager", printed)


def test_the_digits_example_dumps_and_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
    digits("--steps", "2", "--dump", tmp_path / "stages", "--plot", tmp_path / "pictures")
    stages = {path.name for path in (tmp_path / "stages").iterdir()}
    assert {"001-train_step-00-trace.txt", "001-train_step-10-plan-memory.txt"} <= stages
    assert all((tmp_path / "pictures" / name).stat().st_size > 1000 for name in PICTURES)


PICTURES = ("loss.png", "misread.png")


def test_the_digits_example_learns() -> None:
    printed = digits()
    held_out = re.findall(r"held-out ([\d.]+)%", printed)[-1]
    assert float(held_out) >= 97.5
