"""Uncaught exceptions show the user's frames, wherever Python shows them; einkorn's are folded."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn.nn import recurrent
from einkorn.tracebacks import fold

X = np.ones((2, 5), np.float32)

NET = """
import threading
import numpy as np
import einkorn as ek

class Net(ek.nn.Module):
    def __init__(self):
        self.first = ek.nn.Linear(3, 4)

    def forward(self, x):
        return self.first(x)

net = Net()

@ek.compile
def step(x):
    return net(x)

def host(x):
    raise RuntimeError("mine")

@ek.compile
def calls(x):
    return ek.callback(host, ek.ShapeDtype((), "float32"), x)

def main():
    step(np.ones((2, 5), "float32"))

def through():
    try:
        calls(np.ones(2, "float32"))
    except RuntimeError as error:
        raise ValueError("behind") from error
"""


def shown(tmp_path: Path, body: str, *arguments: str, setting: str | None = None) -> str:
    """What a program with this end prints to stderr and stdout."""
    script = tmp_path / "program.py"
    script.write_text(NET + body, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EINKORN_")}
    if setting is not None:
        environment["EINKORN_TRACEBACK"] = setting
    command = [sys.executable, *arguments, str(script)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path,
        check=False,
    )  # fmt: skip
    return done.stderr + done.stdout


def frames(text: str) -> list[str]:
    return re.findall(r'File ".*/(\w+\.py)", line \d+', text)


def test_uncaught_exceptions_show_the_users_frames(tmp_path: Path) -> None:
    text = shown(tmp_path, "main()\n")
    assert frames(text) == ["program.py"] * 4
    assert "net/first: Linear(3, 4) takes 3 features" in text
    assert "raised for program.py:11 in forward, in the module net/first" in text
    complete = shown(tmp_path, "main()\n", setting="full")
    assert "module.py" in frames(complete)
    assert [x for x in frames(complete) if x == "program.py"] == ["program.py"] * 4


@pytest.mark.parametrize(
    ("call", "refused"),
    [
        ("ek.nn.binary_cross_entropy(x, x, logits=True)", "binary_cross_entropy() got"),
        ("ek.nn.Linear(3, size=4)", "Linear.__init__() got"),
        ("net(x, 1)", "Net.forward() takes 2"),
        ("step()", "step() missing 1"),
        ("ek.cond(x.sum() > 1, lambda: x, lambda: x, x)", "<lambda>() takes 0"),
    ],
)
def test_arguments_that_do_not_fit_are_the_users_fault(
    tmp_path: Path, call: str, refused: str
) -> None:
    text = shown(tmp_path, f"x = np.ones((2, 3), 'float32')\n{call}\n")
    assert refused in text
    assert frames(text) == ["program.py"]


def test_arguments_of_a_private_function_are_einkorns_fault() -> None:
    """Only its complete frames say where the wrong call is."""
    with pytest.raises(TypeError, match=r"_states\(\) got") as caught:
        eval("f(1, many=2)", {"f": recurrent._states, "__name__": "einkorn.nn.recurrent"})
    assert fold(caught.value) is caught.value.__traceback__


def test_threads_causes_and_callbacks(tmp_path: Path) -> None:
    text = shown(tmp_path, "t = threading.Thread(target=through)\nt.start()\nt.join()\n")
    assert frames(text) == ["program.py"] * 2 + ["threading.py"] * 2 + ["program.py"]
    assert "in host" in text  # the callback's own frame
    assert "direct cause" in text


def test_debuggers_see_every_frame(tmp_path: Path) -> None:
    body = (
        "import sys, traceback\n"
        "before = sys.excepthook\n"
        "def hook(kind, error, tb):\n"
        "    before(kind, error, tb)\n"
        "    print('kept', len(traceback.extract_tb(error.__traceback__)))\n"
        "sys.excepthook = hook\n"
        "main()\n"
    )
    text = shown(tmp_path, body)
    assert frames(text) == ["program.py"] * 4
    kept = re.search(r"kept (\d+)", text)
    assert kept is not None
    assert int(kept[1]) > 6


def test_pytest_shows_the_users_frames(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(
        NET + "def test_one():\n    main()\n\ndef test_two():\n    through()\n", encoding="utf-8"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EINKORN_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert "2 failed" in done.stdout
    assert set(re.findall(r"^([\w/.]+\.py):\d+:", done.stdout, re.MULTILINE)) == {"test_one.py"}
    assert "in the module net/first" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("IPython") is None, reason="IPython is not installed")
def test_ipython_shows_the_users_frames(tmp_path: Path) -> None:
    body = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "from einkorn.tracebacks import install\n"
        "install()\n"
        "shell.run_cell('import einkorn as ek\\nek.zeros(2) + ek.zeros(3)')\n"
    )
    text = shown(tmp_path, body)
    assert "do not broadcast" in text
    assert "recording.py" not in text


class Mine(Exception):
    pass


def test_what_is_folded() -> None:
    def user(x: Any) -> Any:
        raise Mine

    with ek.settings(traceback="folded"):
        with pytest.raises(Mine) as info:
            ek.compile(user)(X)
        assert modules(info.value) == [__name__, __name__]
        with pytest.raises(ek.EinkornError) as refused, ek.settings(threads=0):
            pass
        assert modules(refused.value) == [__name__]
        ours = ek.zeros(2)
        ours._array = None  # a mistake inside of einkorn is shown whole
        with pytest.raises(AttributeError) as fault:
            ek.sin(ours)
        assert len(modules(fault.value)) > 1
        assert "einkorn" in modules(fault.value)[-1]
    with ek.settings(traceback="full"), pytest.raises(Mine) as info:
        ek.compile(user)(X)
    assert len(modules(info.value)) > 2


def modules(error: BaseException) -> list[str]:
    """The modules of the frames that are shown."""
    found: list[str] = []
    entry = fold(error)
    while entry is not None:
        found.append(entry.tb_frame.f_globals["__name__"])
        entry = entry.tb_next
    return found


def test_conditions_of_a_trace_show_no_frame_of_their_own(tmp_path: Path) -> None:
    body = """
class Meta(type):
    broken = False

    def __getattribute__(cls, name):
        if name == "rate" and Meta.broken:
            raise RuntimeError("mine")
        return type.__getattribute__(cls, name)


class Settings(metaclass=Meta):
    rate = 1.0


step = ek.compile(lambda x: x * Settings.rate)
step(np.ones(3))
Meta.broken = True
step(np.ones(3))
"""
    text = shown(tmp_path, body)
    assert "RuntimeError: mine" in text
    assert "<string>" not in text
    assert "<conditions" not in text
    assert frames(text) == ["program.py"] * 2


def test_the_setting_is_checked() -> None:
    with pytest.raises(ek.EinkornError, match="'folded' or 'full'"), ek.settings(traceback="none"):
        pass


def test_errors_keep_their_notes() -> None:
    with pytest.raises(ek.ShapeError) as info:
        ek.zeros(2) + ek.zeros(3)
    (note,) = info.value.__notes__
    assert re.fullmatch(r"raised for test_tracebacks\.py:\d+ in test_errors_keep_their_notes", note)
    copied = pickle.loads(pickle.dumps(info.value))
    assert type(copied) is ek.ShapeError
    assert (str(copied), copied.__notes__) == (str(info.value), [note])


def test_callbacks_keep_their_frames_and_no_memory_of_the_step() -> None:
    def host(x: Any) -> Any:
        raise Mine

    @ek.compile
    def step(x: Any) -> Any:
        return ek.callback(host, ek.ShapeDtype((), "float32"), x)

    with pytest.raises(Mine) as info:
        step(X)
    entry: Any = info.value.__traceback__
    names: list[str] = []
    while entry is not None:
        names.append(entry.tb_frame.f_code.co_name)
        last, entry = entry.tb_frame, entry.tb_next
    assert names[-1] == "host"
    around = last.f_back
    while around is not None and around.f_globals["__name__"].startswith("einkorn"):
        assert not any(isinstance(x, np.ndarray) for x in around.f_locals.values())
        around = around.f_back
