"""The dialect `elegy`: its contexts, and modules that are reset."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import numpy as np
import pytest
from compile_checks import assert_same_nest, traces

import einkorn as ek
from einkorn.dialects import elegy
from einkorn.dialects.elegy.jax import numpy as jnp
from einkorn.ir.errors import EinkornError

X = np.linspace(-1, 1, 12).reshape(4, 3)


class Block(elegy.Module):
    def call(self, x: Any) -> Any:
        calls = self.add_parameter("calls", initializer=3.0, trainable=False)
        self.update_parameter("calls", calls + 1.0)
        y = elegy.nn.Dropout(0.5)(elegy.nn.Linear(2)(x))
        elegy.add_loss("activity", jnp.mean(jnp.square(y)))
        elegy.add_metric("mean", jnp.mean(y))
        elegy.add_summary("image", {"y": y})
        return y


class Net(elegy.Module):
    def __init__(self) -> None:
        self.scale = self.add_parameter("scale", [3], initializer=ek.initializers.RandomNormal)

    def call(self, x: Any) -> Any:
        return Block()(x * self.scale)


@pytest.mark.parametrize("compiled", [True, False])
def test_what_hooks_add_is_given_inside_of_a_context(compiled: bool) -> None:
    net = Net()
    run = elegy.jit(net) if compiled else net
    with elegy.training_context(False):
        y = run(X).numpy()
        for summaries in (False, True):
            with elegy.hooks_context(summaries=summaries), elegy.name_context("outer"):
                run(X)
                losses, metrics = elegy.get_losses(), elegy.get_metrics()
                found = elegy.get_summaries()
            assert losses is not None
            assert metrics is not None
            assert list(metrics) == ["outer/net/block/mean"]
            np.testing.assert_array_equal(metrics["outer/net/block/mean"], jnp.mean(y))
            np.testing.assert_allclose(losses["outer/net/block/activity_loss"], (y**2).mean(), 1e-6)
            if summaries:
                assert found is not None
                names = {name: value for _, name, value in found}
                np.testing.assert_array_equal(names["outer/net/block"], y)
                np.testing.assert_array_equal(names["outer/net/block/image"]["y"], y)
            else:
                assert found is None
    assert elegy.get_losses() is elegy.get_metrics() is elegy.get_summaries() is None
    with pytest.raises(EinkornError, match="a name is text"), elegy.name_context(""):
        pass


def test_modes_hold_in_blocks_and_from_here_on() -> None:
    net = Net()
    net.init(X)
    step = elegy.jit(lambda x: net(x))

    def inside() -> None:
        elegy.set_training(False)
        assert not elegy.is_training()
        assert_same_nest(step(X), net(X))
        with elegy.training_context(True):
            assert elegy.training()
            static = elegy.get_static_context()
        assert static == elegy.StaticContext(True, False, True)
        elegy.set_static_context(static)
        assert elegy.is_training()
        elegy.set_context(elegy.StaticContext(False, True, False), elegy.get_dynamic_context())
        assert elegy.get_static_context() == (False, True, False)

    copy_context().run(inside)
    assert elegy.get_static_context() == (True, False, True)
    assert not np.array_equal(step(X), step(X))  # masks of dropout
    assert traces(step) == 2


def test_first_calls_may_leave_state_as_it_is() -> None:
    net = Net()
    step = elegy.jit(lambda x: net(x).sum())
    with elegy.init_context(can_update=False):
        assert elegy.is_initializing()
        assert not elegy.can_update()
        step(X)
        net(X)
    assert net.block.calls.item() == 3.0
    assert not elegy.is_initializing()
    step(X)
    net(X)
    assert net.block.calls.item() == 5.0
    with elegy.init_context():
        step(X)
        assert elegy.can_update()
    assert net.block.calls.item() == 6.0
    assert traces(step) == 3


def test_generators_of_contexts() -> None:
    def draw() -> Any:
        return ek.random.uniform((3,), key=elegy.next_rng_key())

    rng = elegy.RNG(7)
    with elegy.rng_context(rng):
        assert elegy.get_rng() is elegy.get_dynamic_context().rng is rng
        first, second = draw(), draw()
    ek.random.seed(7)
    assert_same_nest([draw(), draw()], [first, second])
    key = rng()
    ek.random.seed(7)
    elegy.next_rng_key()
    elegy.next_rng_key()
    assert_same_nest(ek.random.uniform((3,), key=key), draw())

    def work(seed: int) -> Any:
        elegy.set_rng(elegy.RNG(seed))
        return [draw().numpy().tobytes() for _ in range(5)]

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda seed: copy_context().run(work, seed), (7, 8)))
    assert both == [copy_context().run(work, 7), copy_context().run(work, 8)]
    assert elegy.get_rng() is not rng


def test_a_module_is_reset() -> None:
    ek.random.seed(0)
    net = Net()
    assert net(X).shape == (4, 2)
    scale, weight = net.scale.numpy().copy(), net.block.linear.w.numpy().copy()
    for twin in (net, pickle.loads(pickle.dumps(net))):
        ek.random.seed(0)
        twin.reset()
        assert not twin.initialized
        assert not twin.submodules
        np.testing.assert_array_equal(twin.scale.numpy(), scale)
        assert twin(X).shape == (4, 2)
        assert twin.initialized
        assert twin.block.calls.item() == 4.0
        np.testing.assert_array_equal(twin.block.linear.w.numpy(), weight)
    layer = elegy.nn.Linear(2)
    layer(X)
    layer.reset()
    assert layer(np.ones((1, 5))).shape == (1, 2)
