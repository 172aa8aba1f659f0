"""The tours of the dialects, in their quick form: what they print, and the pictures they save."""

from __future__ import annotations

import re
from pathlib import Path

from test_examples import number, quick


def test_the_tour_of_ivy(tmp_path: Path) -> None:
    printed = quick("tour_ivy", tmp_path)
    assert "    temperature: ivy.array([1.])\n}" in printed
    assert "1 level down: features\n" in printed
    rows = re.findall(r"^(\w+) +(\d+) steps: ([\d.]+)% held out; its state: (.*)$", printed, re.M)
    assert [name for name, *_ in rows] == ["SGD", "LARS", "Adam", "AdamW", "LAMB"]
    assert {steps for _, steps, *_ in rows} == {"192"}
    assert all(float(right) >= 90 for *_, right, _ in rows)
    assert [kept for *_, kept in rows] == ["count"] * 2 + ["count, mw, vw"] * 3
    assert "features/layers/narrow -> features -> scores\n" in printed


def test_the_tour_of_pygrad(tmp_path: Path) -> None:
    printed = quick("tour_pygrad", tmp_path)
    assert "is computed from [1.0, 1.0, 2.0, 3.0]\n" in printed
    assert "its weights are ['x'] with the gradient 3.0\n" in printed
    rows = re.findall(r"^(\w+) +loss ([\d.]+)  held out ([\d.]+)%  +\d+ steps/s$", printed, re.M)
    assert [name for name, *_ in rows] == ["SGD", "SGD_Momentum", "RMSProp", "Adam"]
    assert all(float(loss) < 0.05 for _, loss, _ in rows)
    assert all(float(right) >= 90 for *_, right in rows)
    least, most = number(r"from ([\d.]+) to", printed), number(r"to ([\d.]+) long", printed)
    assert 0 < least < most
