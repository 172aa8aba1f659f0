"""Frozen parameters: patterns, gradients, optimizers, compiled steps; and the ways to build."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import nn
from einkorn.ir.errors import DTypeError, EinkornError, StateError, TraceError

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
Y = np.zeros((8, 2), np.float32)


class Net(nn.Module):
    """An encoder and a head that is held under two names."""

    def __init__(self) -> None:
        self.encoder = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm(5))
        self.head = nn.Linear(5, 2)
        self.tied = [self.head]

    def forward(self, x: Any) -> Any:
        return self.tied[0](self.encoder(x))


def net(seed: int = 0) -> Net:
    ek.random.seed(seed)
    return Net()


def frozen(model: nn.Module) -> list[str]:
    return [path for path, leaf in model.named_parameters() if not leaf.trainable]


ENCODER = [f"encoder/submodules/v{k}/{name}" for k in (0, 1) for name in ("w", "b")]

# -- patterns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("*", [*ENCODER, "head/w", "head/b"]),
        ("encoder/*", ENCODER),
        ("*/b", [ENCODER[1], ENCODER[3], "head/b"]),
        ("head/[w]", ["head/w"]),
        ("tied/*", ["head/w", "head/b"]),
        ("tied/v0/b", ["head/b"]),
    ],
)
def test_patterns(pattern: str, paths: list[str]) -> None:
    model = net()
    assert model.freeze(pattern) is model
    assert frozen(model) == paths
    assert model.unfreeze(pattern) is model
    assert not frozen(model)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("encodr/*", r"Net: no parameter matches 'encodr/\*'; did you mean .*'encoder/.*\*'.*\?"),
        ("head", r"no parameter matches 'head'; did you mean .*'head/\*'"),
        ("hed/w", r"did you mean .*'head/w'"),
        ("qqq", r"there are encoder/submodules/v0/w, .* tied/v0/w and 1 more"),
    ],
)
def test_a_pattern_without_a_match_names_close_ones(pattern: str, message: str) -> None:
    model = net()
    model.scale = ek.Parameter(1.0)
    model.head.freeze("w")
    for change in (model.freeze, model.unfreeze):
        with pytest.raises(EinkornError, match=message):
            change(pattern)
    assert frozen(model) == ["head/w"]
    with pytest.raises(EinkornError, match="no parameter matches 'w'; it has none"):
        nn.Tanh().freeze("w")
    nn.Tanh().freeze()


def test_integers_are_never_trained() -> None:
    model = net()
    model.table = ek.Parameter([1, 2], trainable=False)
    model.freeze().unfreeze()
    assert frozen(model) == ["table"]
    with pytest.raises(DTypeError, match="only floating-point leaves can be trained"):
        model.unfreeze("table")


# -- gradients, optimizers, compiled steps ---------------------------------------------------------


def test_a_frozen_parameter_stays_one(tmp_path: Path) -> None:
    model = net().freeze("encoder/*")
    assert model.v.key_chains() == net().v.key_chains()
    assert len(model.parameters()) == 6
    assert model.get_parameters(trainable=True).key_chains() == ["head/w", "head/b"]
    assert model.get_parameters(trainable=False).key_chains() == ENCODER
    model.save(tmp_path / "m.safetensors")
    other = net(1)
    other.load(tmp_path / "m.safetensors")
    assert not frozen(other)  # a file has values only
    twin = copy.deepcopy(model)
    assert frozen(twin) == ENCODER
    assert_same_bits(twin(X), model(X))


def test_gradients_are_those_of_the_others() -> None:
    model = net()
    model.eval()

    def loss() -> Any:
        return nn.mse_loss(model(X), Y)

    whole = ek.grad(loss, model)()
    model.freeze("encoder/*")
    for run in (lambda f: f, ek.compile):
        part = run(ek.grad(loss, model))()
        assert part.key_chains() == ["head/w", "head/b"]
        for path, value in part.flat_items():
            assert_same_bits(value, whole[path])
    loss().backward()
    assert model.head.w.grad is not None
    assert model.encoder[0].w.grad is None
    by_input = ek.grad(lambda x: nn.mse_loss(model(x), Y))(X)
    assert np.asarray(by_input).any()  # through frozen layers


OPTIMIZERS: list[Callable[[Any], Any]] = [
    lambda m: ek.optim.SGD(m, lr=0.1, weight_decay=0.1),
    lambda m: ek.optim.AdamW(m, lr=0.1, weight_decay=0.1),
    lambda m: ek.optim.Momentum(m, lr=0.1),
    lambda m: ek.optim.LAMB(m, lr=0.1),
]


def _trained(make: Callable[[Any], Any], compiled: bool, by_backward: bool) -> list[Any]:
    """The state after each of six steps; the encoder is frozen in the third and fourth."""
    model = net()
    optimizer = make(model)

    def step(x: Any, y: Any) -> Any:
        if by_backward:
            loss = nn.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss
        loss, grads = ek.value_and_grad(lambda: nn.mse_loss(model(x), y), model)()
        optimizer.step(grads)
        return loss

    run = ek.compile(step) if compiled else step
    found: list[Any] = []
    for k in range(6):
        if k == 2:
            model.freeze("encoder/*")
        elif k == 4:
            model.unfreeze()
        run(X, Y)
        found.append((model.state_dict(), optimizer.state_dict()))
    return found


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("by_backward", [False, True])
def test_steps_notice_what_is_frozen(make: Callable[[Any], Any], by_backward: bool) -> None:
    eager, native = (_trained(make, compiled, by_backward) for compiled in (False, True))
    for (state, slots), (other, others) in zip(eager, native, strict=True):
        for left, right in ((state, other), (slots, others)):
            assert list(left) == list(right)
            for key, value in left.items():
                assert_same_bits(right[key], value, key)
    for k in (1, 2, 3, 4, 5):
        for path in ENCODER:
            key = path.replace("/", ".")
            same = np.array_equal(native[k][0][key], native[k - 1][0][key])
            assert same is (k in (2, 3))
        assert not np.array_equal(native[k][0]["head.w"], native[k - 1][0]["head.w"])
        statistics = "encoder.submodules.v1.running_mean"  # belong to the mode, not to freezing
        assert not np.array_equal(native[k][0][statistics], native[k - 1][0][statistics])
    slots = [name for name in native[1][1] if name.endswith("encoder.submodules.v0.w")]
    for name in slots:
        assert_same_bits(native[3][1][name], native[1][1][name], name)


def test_a_step_goes_back_and_forth_between_its_traces() -> None:
    model = net()
    step = ek.compile(ek.grad(lambda x: nn.mse_loss(model(x), Y), model))
    seen = [len(step(X).key_chains())]
    for change in (model.freeze, model.unfreeze, model.freeze):
        change("encoder/*")
        seen.append(len(step(X).key_chains()))
        step(X)
    assert seen == [6, 2, 6, 2]
    assert traces(step) <= 2
    model.freeze("encoder/*")  # nothing new
    made = traces(step)
    step(X)
    assert traces(step) == made


def test_a_compiled_function_does_not_freeze() -> None:
    model = net()
    with pytest.raises(TraceError, match=r"encoder.*\.trainable was set while .*ek.stop_gradient"):
        ek.compile(lambda: model.freeze("encoder/*"))()
    assert not frozen(model)
    ek.compile(lambda: model.unfreeze())()  # they are trained already


# -- when parameters are made ----------------------------------------------------------------------


class Sizes(nn.Module):
    """Sizes of inputs are given or left to the first input."""

    def __init__(self, given: bool) -> None:
        sizes = (4, 5) if given else (None, None)
        self.layers = [nn.Linear(sizes[0], 5), nn.BatchNorm(sizes[1]), nn.Linear(sizes[1], 2)]

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


def _first_step(make: Callable[[], Sizes], compiled: bool) -> Any:
    ek.random.seed(5)
    model = make()
    step = ek.value_and_grad(lambda x: nn.mse_loss(model(x), Y), model)
    loss, grads = (ek.compile(step) if compiled else step)(X)
    return [loss, *grads.to_flat_list(), *model.state_dict().values()], model.v.key_chains()


def test_the_three_ways_to_build_give_the_same() -> None:
    def built() -> Sizes:
        model = Sizes(False)
        assert model.build(X) is None
        assert model.v.layers.v2.w.shape == (2, 5)
        return model

    ways: list[Callable[[], Sizes]] = [lambda: Sizes(True), built, lambda: Sizes(False)]
    wanted, keys = _first_step(ways[0], False)
    for make in ways:
        for compiled in (False, True):
            found, names = _first_step(make, compiled)
            assert names == keys
            for one, other in zip(found, wanted, strict=True):
                assert_same_bits(one, other)


def test_what_is_not_built_yet_is_not_frozen() -> None:
    model = Sizes(False)
    with pytest.raises(StateError, match=r"layers/v0 \(Linear\(\?, 5\)\) has none yet.*build"):
        model.freeze("layers/*")
    model.build(X)
    assert frozen(model.freeze("layers/v0/*")) == ["layers/v0/w", "layers/v0/b"]
