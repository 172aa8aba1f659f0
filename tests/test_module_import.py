"""Files of weights, and weights of other libraries: what fits is taken, or nothing changes."""

from __future__ import annotations

import json
import os
import pickle
import stat
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import nn
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError, StateError

Array = np.ndarray[Any, Any]


class Net(nn.Module):
    """A little of everything that other libraries have, and a head held under two names."""

    def __init__(self, dtype: str = "float32") -> None:
        self.conv = nn.Conv2D(3, 8, 3, padding=1, dtype=dtype)
        self.norm = nn.BatchNorm(8, dtype=dtype)
        self.scale = nn.LayerNorm(8, dtype=dtype)
        self.head = nn.Linear(8, 4, dtype=dtype)
        self.tied = self.head

    def forward(self, x: Any) -> Any:
        return self.tied(self.scale(ek.mean(nn.relu(self.norm(self.conv(x))), (1, 2))))


RENAME = {
    r"^features\.0": "conv",
    r"^features\.1": "norm",
    r"weight$": "w",
    r"bias$": "b",
}
RULES: dict[str, Any] = {
    "rename": RENAME,
    "transpose": {"conv/w": (0, 2, 3, 1)},
    "ignore": "*.num_batches_tracked",
}


def source() -> dict[str, Array]:
    """A `state_dict` as PyTorch writes it."""
    rng = np.random.default_rng(0)
    shapes = {
        "features.0.weight": (8, 3, 3, 3),
        "features.0.bias": (8,),
        "features.1.weight": (8,),
        "features.1.bias": (8,),
        "features.1.running_mean": (8,),
        "features.1.running_var": (8,),
        "scale.weight": (8,),
        "scale.bias": (8,),
        "head.weight": (4, 8),
        "head.bias": (4,),
    }
    arrays = {k: rng.uniform(0.1, 1.0, s).astype(np.float32) for k, s in shapes.items()}
    return {**arrays, "features.1.num_batches_tracked": np.array(7)}


def net(seed: int = 0, dtype: str = "float32") -> Net:
    ek.random.seed(seed)
    return Net(dtype)


@contextmanager
def unchanged(model: nn.Module) -> Generator[None]:
    before = model.state_dict()
    yield
    for key, value in model.state_dict().items():
        assert_same_bits(value, before[key], key)


# -- weights of other libraries --------------------------------------------------------------------


def test_names_and_axes_are_brought_into_ones_own_form() -> None:
    model, given = net(), source()
    report = model.import_weights(given, **RULES)
    assert report.loaded["conv/w"] == "features.0.weight"
    assert sorted(report.loaded) == sorted(k.replace(".", "/") for k in model.state_dict())
    assert report.transposed == ["conv/w"]
    assert report.ignored == ["features.1.num_batches_tracked"]
    assert report.cast == report.missing == report.unexpected == []
    assert_same_bits(model.conv.w, given["features.0.weight"].transpose(0, 2, 3, 1))
    assert_same_bits(model.norm.running_var, given["features.1.running_var"])
    assert_same_bits(model.tied.w, given["head.weight"])


def test_a_network_of_pytorch_computes_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    torch.manual_seed(0)
    other = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.LayerNorm(8 * 25),
        torch.nn.Linear(8 * 25, 4),
    )
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 5)).astype(np.float32)
    other(torch.tensor(x))  # moves the running statistics
    model = nn.Sequential(
        nn.Conv2D(3, 8, 3, padding=1, data_format="NCHW"),
        nn.BatchNorm(8, data_format="NCHW"),
        nn.ReLU(),
        nn.Flatten(),
        nn.LayerNorm(8 * 25),
        nn.Linear(8 * 25, 4),
    )
    rules: dict[str, Any] = {
        "rename": [(r"^(\d+)\.", r"submodules/v\1/"), ("weight$", "w"), ("bias$", "b")],
        "transpose": {"submodules/v0/w": (0, 2, 3, 1)},
        "ignore": ["*.num_batches_tracked"],
    }
    want = other.eval()(torch.tensor(x)).detach().numpy()
    model.import_weights(other.state_dict(), **rules)
    np.testing.assert_allclose(np.asarray(model.eval()(x)), want, rtol=1e-4, atol=1e-5)
    half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v
            for k, v in other.state_dict().items()}  # fmt: skip
    model.to("bfloat16").import_weights(half, **rules)
    assert model[5].w.numpy().view(np.uint16).tolist() == (
        half["5.weight"].view(torch.uint16).numpy().tolist()
    )


def test_a_file_is_a_source(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file(source(), path)
    model, other = net(0), net(1)
    report = model.import_weights(path, **RULES)
    assert report == other.import_weights(source(), **RULES)
    for key, value in other.state_dict().items():
        assert_same_bits(model.state_dict()[key], value)
    model.import_weights(str(path), **RULES)


def test_the_report_reads_as_text() -> None:
    given = source()
    given["head.weight"] = given["head.weight"].astype(np.float64)
    given["other.weight"] = np.zeros(3, np.float32)
    del given["scale.bias"]
    text = str(net().import_weights(given, **RULES, strict=False))
    assert text.splitlines() == [
        "9 loaded, 1 of them transposed",
        "  conv/w <- features.0.weight",
        "  conv/b <- features.0.bias",
        "  norm/w <- features.1.weight",
        "  norm/b <- features.1.bias",
        "  norm/running_mean <- features.1.running_mean",
        "  norm/running_var <- features.1.running_var",
        "  scale/w <- scale.weight",
        "  head/w <- head.weight",
        "  head/b <- head.bias",
        "1 cast: head/w",
        "1 missing: scale/b",
        "1 unexpected: other.weight",
        "1 ignored: features.1.num_batches_tracked",
    ]


def test_missing_and_unexpected_names_are_refused_unless_told_otherwise() -> None:
    model, given = net(), source()
    given["heads.weight"] = given.pop("head.weight")
    message = (
        r"Net\.import_weights: unknown key 'heads.weight' \(renamed 'heads.w', perhaps 'head.w'\); "
        r"missing key 'head.w'; pass strict=False"
    )
    with unchanged(model), pytest.raises(StateError, match=message):
        model.import_weights(given, **RULES)
    report = model.import_weights(given, **RULES, strict=False)
    assert (report.missing, report.unexpected) == (["head/w"], ["heads.weight"])
    assert_same_bits(model.conv.b, given["features.0.bias"])


def test_shared_parameters_come_under_any_of_their_names() -> None:
    model, given = net(), source()
    given["tied.weight"] = given.pop("head.weight")
    report = model.import_weights(given, **RULES)
    assert report.loaded["tied/w"] == "tied.weight"
    assert_same_bits(model.head.w, given["tied.weight"])
    given["head.weight"] = given["tied.weight"].copy()
    model.import_weights(given, **RULES)
    given["head.weight"][0, 0] += 1
    with unchanged(model), pytest.raises(StateError, match=r"'tied.w' and 'head.w' are names of"):
        model.import_weights(given, **RULES)
    state = model.state_dict()
    state["tied.w"] = state["head.w"] + 1
    with unchanged(model), pytest.raises(StateError, match=r"one shared leaf here, but differ"):
        model.load_state_dict(state)


def test_floats_are_cast_and_what_does_not_fit_is_refused() -> None:
    model, given = net(dtype="float16"), source()
    report = model.import_weights(given, **RULES)
    assert report.cast == [path for path in report.loaded if "running" not in path]
    assert_same_bits(model.head.w, given["head.weight"].astype(np.float16))
    given["head.weight"][1, 1] = 1e6
    with unchanged(model), pytest.raises(DTypeError, match=r"'head.weight' .* float16 cannot hold"):
        model.import_weights(given, **RULES)
    given["head.weight"][1, 1] = np.inf
    model.import_weights(given, **RULES)
    for kind in (np.int64, np.complex64):
        given["head.weight"] = np.ones((4, 8), kind)
        with unchanged(model), pytest.raises(DTypeError, match=r"'head\.w': .* holds f16\[4,8\]"):
            model.import_weights(given, **RULES)


CHANGES: list[tuple[Callable[[Any], Any], Any, str]] = [
    (lambda g: {**g, "head.bias": np.zeros(5, "f")}, ShapeError,
     r"'head/b' holds f32\[4\], but 'head.bias' has shape \(5,\); give the shape"),
    (lambda g: {**g, "head.weight": g["head.weight"].T}, ShapeError,
     r"the other way round: transpose=\['head/w'\]"),
    (lambda g: {**g, "features.0.weight": np.zeros((3, 8, 3, 3), "f")}, ShapeError,
     r"shape \(3, 3, 3, 8\); its axes are the other way round"),
    (lambda g: {**g, "head.bias": "text"}, DTypeError, r"head.bias: values of dtype"),
    (lambda g: {**g, "head.bias": object()}, DTypeError, r"head.bias: values of dtype object"),
    (lambda g: {**g, 3: g["head.bias"]}, EinkornError, r"names of the source are text, got 3"),
    (lambda g: list(g.items()), EinkornError, r"needs a dict of arrays or the path .* got list"),
    (lambda g: {**g, "head/b": g["head.bias"]}, StateError,
     r"'head.bias' and 'head/b' of the source both become 'head/b'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), CHANGES)
def test_a_source_that_does_not_fit_changes_nothing(change: Any, error: Any, message: str) -> None:
    model = net()
    with unchanged(model), pytest.raises(error, match=message):
        model.import_weights(change(source()), **RULES)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"transpose": {"conv/w": (0, 1)}}, ShapeError, r"cannot be ordered \(0, 1\)"),
        ({"transpose": {"conv/w": 3}}, ShapeError, r"cannot be ordered 3"),
        ({"transpose": {"convs/w": (0, 2, 3, 1)}}, EinkornError,
         r"'convs/w' of transpose= fits no path .*; did you mean conv/w"),
        ({"transpose": ["zz*"]}, EinkornError, r"'zz\*' of transpose= .* such as conv/w, conv/b"),
        ({"transpose": 3}, EinkornError, r"transpose= takes patterns of names, .* got 3"),
        ({"ignore": [3]}, EinkornError, r"ignore= takes patterns of names, .* got \[3\]"),
        ({"rename": 3}, EinkornError, r"rename= is a dict or a list of pairs"),
        ({"rename": [("(", "x")]}, EinkornError, r"rename= is a dict or a list of pairs"),
        ({"rename": ["ab", "c"]}, EinkornError, r"rename= is a dict or a list of pairs"),
        ({"rename": [("w", r"\3")]}, EinkornError, r"cannot be applied to 'features.0.weight'"),
        ({"rename": lambda name: None}, EinkornError, r"makes None of 'features.0.weight'"),
    ],
)  # fmt: skip
def test_rules_that_make_no_sense(options: Any, error: Any, message: str) -> None:
    model = net()
    with unchanged(model), pytest.raises(error, match=message):
        model.import_weights(source(), **{**RULES, **options})


def test_rules_are_applied_in_order_and_may_be_a_function() -> None:
    model = net()
    pairs = [("weight", "x"), ("x$", "w"), ("bias", "b"), ("features.0", "conv")]
    model.import_weights(source(), **{**RULES, "rename": [*pairs, ("features.1", "norm")]})
    want = model.state_dict()

    def renamed(name: str) -> str:
        first, _, last = name.rpartition(".")
        places = {"features.0": "conv", "features.1": "norm"}
        return f"{places.get(first, first)}/{ {'weight': 'w', 'bias': 'b'}.get(last, last) }"

    other = net(1)
    other.import_weights(source(), **{**RULES, "rename": renamed})
    for key, value in other.state_dict().items():
        assert_same_bits(value, want[key])


# -- files -----------------------------------------------------------------------------------------


def header(text: Any, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(raw)) + raw + data


class Boom:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "no header": b"\x01\x02",
    "text": b"no such format, but long enough to hold a length",
    "pickle": pickle.dumps({"w": Boom()}),
    "a header of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header longer than the file": struct.pack("<Q", 10**8) + b"{}",
    "no json": header(b"{not json"),
    "no object": header([1, 2]),
    "deep json": header(b"[" * 100_000),
    "an unknown dtype": header(entry("F99"), b"\0" * 8),
    "offsets behind the end": header(entry(offsets=(0, 800)), b"\0" * 8),
    "offsets backwards": header(entry(offsets=(8, 0)), b"\0" * 8),
    "a shape of another size": header(entry(shape=(3,)), b"\0" * 8),
    "a huge shape": header(entry(shape=(2**62, 2**62)), b"\0" * 8),
    "a negative shape": header(entry(shape=(-2,)), b"\0" * 8),
    "bytes left over": header(entry(), b"\0" * 12),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_no_safetensors_file_is_refused(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, path = net(), tmp_path / "m.safetensors"
    path.write_bytes(data)
    for read in (model.load, model.import_weights):
        with unchanged(model), pytest.raises(StateError, match="not a safetensors file that can"):
            read(path)
    with pytest.raises(StateError, match="not a safetensors file"):
        ek.Container.load(path)
    assert [x.name for x in tmp_path.iterdir()] == [path.name]  # nothing was executed


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    model, path = net(), tmp_path / "m.safetensors"
    model.save(path)
    data = path.read_bytes()
    for end in [*range(0, 16), *range(16, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:end])
        with unchanged(model), pytest.raises(StateError, match="not a safetensors file"):
            model.load(path)


def test_a_file_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    model, path = net(), tmp_path / "m.safetensors"
    state = model.state_dict()
    changes: list[tuple[Any, Any, str]] = [
        ({"head.b": np.zeros(5, np.float32)}, ShapeError, r"'head\.b'.*f32\[4\], got f32\[5\]"),
        ({"head.b": np.zeros(4, np.float64)}, DTypeError, r"'head\.b'.*f32\[4\], got f64\[4\]"),
        ({"head.c": np.zeros(4, np.float32)}, StateError, r"unknown key 'head.c'"),
    ]
    for change, error, message in changes:
        moved = {key: value + 1 for key, value in state.items()}
        ek.Container(**{**moved, **change}).save(path)
        with unchanged(model), pytest.raises(error, match=message):
            model.load(path)
    assert model.load(path, strict=False) == ([], ["head.c"])
    assert_same_bits(model.head.b, state["head.b"] + 1)


def test_saving_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = net(), tmp_path / "m.safetensors"
    model.save(path)
    before = path.read_bytes()
    model.head.b.value = [1.0, 2.0, 3.0, 4.0]

    def fails(*_: Any) -> None:
        raise OSError("no space left")

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fails)
            with pytest.raises(OSError, match="no space left"):
                model.save(path)
        assert path.read_bytes() == before
        assert [x.name for x in tmp_path.iterdir()] == [path.name]
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "nowhere" / "m.safetensors")
    monkeypatch.chdir(tmp_path)
    model.save("m.safetensors")  # a name without a folder
    assert path.read_bytes() != before


def test_a_saved_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    model, path, plain = net(), tmp_path / "m.safetensors", tmp_path / "plain"
    plain.write_bytes(b"")
    model.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    path.chmod(0o640)
    model.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    link = tmp_path / "latest"
    link.symlink_to(path)
    model.head.b.value = [1.0, 2.0, 3.0, 4.0]
    model.save(link)
    assert link.is_symlink()
    other = net(1)
    other.load(path)
    assert_same_bits(other.head.b, model.head.b)


def test_a_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    values = np.float32([np.nan, -0.0, 1e-45, np.inf]).tolist()
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        model, other = net(0, dtype), net(1, dtype)
        model.head.b.value = np.asarray(ek.asarray(values, dtype=dtype))
        model.save(path)
        assert other.load(path) == ([], [])
        for key, value in model.state_dict().items():
            assert_same_bits(other.state_dict()[key], value)
        assert list(other.state_dict()) == list(model.state_dict())
