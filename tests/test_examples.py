"""The examples do what they say, in their quick form: what they print, and the pictures they save.

`digits.py` is tested with the README, whose example it is.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from test_readme import run

pytest.importorskip("sklearn", reason="the examples need scikit-learn's data")
image = pytest.importorskip("matplotlib.image", reason="the examples save pictures")

FOLDER = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def quick(name: str, folder: Path, *arguments: str) -> str:
    """What the quick form of an example prints; its picture is one, and is all that it writes."""
    command = (sys.executable, FOLDER / f"{name}.py", "--quick", "--out", folder / "new" / "folder")
    printed = run(*command, *arguments, cwd=folder)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert written == [folder / "new" / "folder" / f"{name}.png"]
    pixels = image.imread(written[0])
    assert min(pixels.shape[:2]) >= 300
    assert np.ptp(pixels[..., :3]) > 0.9, "a picture of one colour"
    assert all(len(line) <= 120 for line in printed.splitlines())
    return printed


def number(pattern: str, printed: str) -> float:
    """The last number that the pattern finds."""
    return float(re.findall(pattern, printed)[-1])


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_short_and_import_einkorn_as_ek(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < (260 if name == "digits" else 150)
    assert "import einkorn as ek\n" in text
    assert f"python examples/{name}.py" in (ast.get_docstring(ast.parse(text)) or "")


def test_the_readme_lists_the_examples() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)\.py` \|", text, re.MULTILINE)) == NAMES


def test_lenet(tmp_path: Path) -> None:
    printed = quick("lenet", tmp_path, "--summary")
    assert "Conv2D" in printed
    assert number(r"held-out accuracy ([\d.]+)%", printed) >= 95


def test_characters(tmp_path: Path) -> None:
    printed = quick("characters", tmp_path)
    learned, held_out = map(
        int, (x.replace(",", "") for x in re.findall(r"[\d,]{7,}", printed)[:2])
    )
    assert learned > 3_000_000
    assert 0.05 < held_out / learned < 0.2
    losses = [float(x) for x in re.findall(r"held-out ([\d.]+)  ", printed)]
    assert len(losses) == 10
    assert losses[-1] < losses[0] - 0.3
    assert losses[-1] < 3.1  # characters by their frequency alone: 3.56
    assert len(printed.split("Written:\n")[1].split("\nsaved")[0]) >= 500


def test_lstm(tmp_path: Path) -> None:
    printed = quick("lstm", tmp_path)
    rows = re.findall(r"^(\w+) +([\d.]+)% +([\d.]+)% +([\d.]+)%$", printed, re.MULTILINE)
    assert len(rows) == 8
    assert rows[-1][:2] == ("all", "100.0")
    assert sum(float(share) for _, share, _, _ in rows[:-1]) == pytest.approx(100, abs=0.5)
    _, _, by_character, lstm = rows[-1]
    assert float(lstm) > float(by_character) + 10


def test_vae(tmp_path: Path) -> None:
    printed = quick("vae", tmp_path)
    losses = re.findall(
        r"val_loss ([\d.]+)  val_loss_pixels ([\d.]+)  val_loss_divergence ([\d.]+)", printed
    )
    for total, pixels, divergence in losses:
        assert float(total) == pytest.approx(float(pixels) + float(divergence), abs=0.02)
    assert len(losses) == 10
    assert float(losses[-1][0]) < float(losses[0][0]) - 2
    assert number(r"this autoencoder +([\d.]+)%", printed) >= 50


def test_tabular(tmp_path: Path) -> None:
    printed = quick("tabular", tmp_path)
    score = r" +([\d.]+) ± [\d.]+"
    rows = re.findall(rf"^([a-z ]+?) {score}{score}{score}  ", printed, re.MULTILINE)
    least = {"breast cancer": 0.94, "wine": 0.92, "diabetes": 0.35}
    assert [name for name, *_ in rows] == list(least)
    for name, linear, boosting, ours in rows:
        assert float(linear) > least[name]
        assert float(ours) > least[name]
        assert float(boosting) > least[name] - 0.05


def test_gan(tmp_path: Path) -> None:
    printed = quick("gan", tmp_path)
    told_apart = [float(x) for x in re.findall(r"told apart ([\d.]+)%", printed)]
    assert len(told_apart) == 11
    assert told_apart[0] == 100
    assert 50 <= told_apart[-1] < 98
    counts = [int(x) for x in printed.split("from 0 to 9:")[1].split("\n")[0].split()]
    assert sum(counts) == 599
    assert sum(count > 10 for count in counts) >= 8, "the generator makes few of the digits"


def test_tour_elegy(tmp_path: Path) -> None:
    printed = quick("tour_elegy", tmp_path)
    made = re.findall(r"^  (\w+)/(\w+)$", printed, re.MULTILINE)
    layers = ("linear", "linear_1", "linear_2", "out")
    assert made == [("centre", "mean"), *((layer, x) for layer in layers for x in "wb")]
    assert "Added by modules: large_loss active\n" in printed
    assert re.search(r"Refused: .* Linear\(8\) at .*, and now makes Dropout\(0\.5\)", printed)
    first, last = re.findall(r"loss ([\d.]+) at first, ([\d.]+) at last", printed)[0]
    assert float(last) < float(first) / 4
    assert number(r"held-out accuracy ([\d.]+)%", printed) >= 90
