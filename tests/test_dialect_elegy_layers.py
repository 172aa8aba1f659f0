"""The dialect `elegy`: layers, initializers, networks, callbacks and data by Elegy's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_checks import assert_same_nest, traces

import einkorn as ek
from einkorn.dialects import elegy
from einkorn.dialects.elegy import jax
from einkorn.dialects.elegy.jax import numpy as jnp
from einkorn.dialects.elegy.nets import resnet
from einkorn.ir.errors import EinkornError, ShapeError

nn = elegy.nn
RNG = np.random.default_rng(0)
IMAGES, TOKENS = RNG.normal(size=(2, 6, 6, 3)), RNG.normal(size=(2, 5, 4))
MASK = np.tril(np.ones((5, 5)))
W_B = ["w", "b"]
LAYERS: dict[str, Any] = {
    "Linear": (lambda: nn.Linear(7), (IMAGES,), (2, 6, 6, 7), W_B),
    "Linear without": (lambda: nn.Linear(7, False), (IMAGES,), (2, 6, 6, 7), ["w"]),
    "Conv1D": (lambda: nn.Conv1D(7, 3), (TOKENS,), (2, 5, 7), W_B),
    "Conv2D": (lambda: nn.Conv2D(6, [3, 3], 2, groups=3), (IMAGES,), (2, 3, 3, 6), W_B),
    "Conv2D valid": (
        lambda: nn.Conv2D(6, 3, rate=2, padding="VALID", data_format="channels_first"),
        (IMAGES.transpose(0, 3, 1, 2),), (2, 6, 2, 2), W_B,
    ),
    "Conv3D": (lambda: nn.Conv3D(2, 2), (IMAGES[..., None],), (2, 6, 6, 3, 2), W_B),
    "Conv1DTranspose": (lambda: nn.Conv1DTranspose(7, 3, 2), (TOKENS,), (2, 10, 7), W_B),
    "Conv2DTranspose": (lambda: nn.Conv2DTranspose(2, 3, 2), (IMAGES,), (2, 12, 12, 2), W_B),
    "Conv3DTranspose": (
        lambda: nn.Conv3DTranspose(2, 3, 1), (IMAGES[..., None],), (2, 6, 6, 3, 2), W_B
    ),
    "BatchNormalization": (
        lambda: nn.BatchNormalization(create_offset=False), (IMAGES,), (2, 6, 6, 3),
        ["w", "running_mean", "running_var"],
    ),
    "InstanceNormalization": (
        lambda: nn.InstanceNormalization(create_scale=False), (IMAGES,), (2, 6, 6, 3), ["b"]
    ),
    "LayerNormalization": (lambda: nn.LayerNormalization(), (IMAGES,), (2, 6, 6, 3), W_B),
    "Dropout": (lambda: nn.Dropout(0.5), (IMAGES,), (2, 6, 6, 3), []),
    "Embedding": (lambda: nn.Embedding(9, 3), (np.arange(8),), (8, 3), ["w"]),
    "Flatten": (lambda: nn.Flatten(), (IMAGES,), (2, 108), []),
    "Reshape": (lambda: nn.Reshape((-1, 3)), (IMAGES,), (2, 36, 3), []),
    "MaxPool": (lambda: nn.MaxPool((1, 3, 3, 1), (2, 2, 1), "SAME"), (IMAGES,), (2, 3, 3, 3), []),
    "AvgPool": (lambda: nn.AvgPool(2), (IMAGES,), (2, 3, 3, 3), []),
    "EMA": (
        lambda: nn.ExponentialMovingAverage(0.9), (TOKENS,), (2, 5, 4),
        ["counter", "hidden", "average"],
    ),
    "MultiHeadAttention": (
        lambda: nn.MultiHeadAttention(3, 2, dropout=0.1), (TOKENS, None, None, MASK), (2, 5, 4),
        ["wq", "wk", "wv", "wo", "bo"],
    ),
    "attention to others": (
        lambda: nn.MultiHeadAttention(3, 2, use_projection_bias=False),
        (TOKENS, RNG.normal(size=(2, 3, 6)), RNG.normal(size=(2, 3, 7))), (2, 5, 7),
        ["wq", "wk", "wv", "wo"],
    ),
    "Transformer": (
        lambda: nn.Transformer(2, 2, 1, 1, 8, 0.1), (TOKENS, TOKENS, None, MASK), (2, 5, 4), None
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "args", "shape", "names"), LAYERS.values(), ids=LAYERS)
def test_layers_have_sizes_of_their_first_inputs(
    make: Any, args: Any, shape: Any, names: Any
) -> None:
    results = []
    for compiled in (False, True):
        ek.random.seed(3)
        layer = make()
        run = elegy.jit(layer) if compiled else layer
        results.append([run(*args), run(*args), layer.get_parameters().copy()])
        assert results[-1][0].shape == shape
        assert str(results[-1][0].dtype) == "float32"
        assert names is None or layer.get_parameters().key_chains() == names
        assert layer.initialized
        if compiled:
            assert traces(run) == 1
    assert_same_nest(results[1], results[0])


def test_names_of_layers_in_a_module() -> None:
    class Net(elegy.Module):
        def call(self, x: Any) -> Any:
            x = nn.BatchNormalization()(nn.Conv2D(2, 3)(x))
            return nn.Linear(1, name="last")(nn.Flatten()(nn.MaxPool(2)(x)))

    net = Net()
    net(IMAGES)
    expected = ["conv2d", "batch_normalization", "max_pool", "flatten", "last"]
    assert sorted(net.submodules) == sorted(expected)


def test_normalization_decays_and_takes_first_values() -> None:
    layer = nn.BatchNormalization(decay_rate=0.75, scale_init=jnp.zeros, offset_init=jnp.ones)
    np.testing.assert_array_equal(layer(IMAGES).numpy(), np.ones((2, 6, 6, 3)))
    mean = IMAGES.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.25 * mean, rtol=1e-5)
    with elegy.training_context(False):
        layer.update_parameter("w", 2.0 * np.ones(3))
        y = layer(IMAGES).numpy()
    scale = np.sqrt(layer.running_var.numpy() + 1e-5)
    np.testing.assert_allclose(y, 2 * (IMAGES - 0.25 * mean) / scale + 1, rtol=1e-3, atol=1e-5)
    with pytest.raises(EinkornError, match="axis is -1"):
        nn.LayerNormalization(axis=1)


def test_pools_are_those_of_windows() -> None:
    x = np.arange(36.0).reshape(1, 6, 6, 1)
    windows = x.reshape(1, 3, 2, 3, 2, 1)
    np.testing.assert_array_equal(nn.MaxPool(2)(x).numpy(), windows.max(axis=(2, 4)))
    np.testing.assert_array_equal(nn.AvgPool((2, 2, 1))(x).numpy(), windows.mean(axis=(2, 4)))
    ones = nn.AvgPool(3, 1, "SAME")(np.ones((1, 4, 4, 1)))  # padding does not count
    np.testing.assert_array_equal(ones.numpy(), np.ones((1, 4, 4, 1)))
    first = nn.MaxPool(2, channel_axis=1)(x.transpose(0, 3, 1, 2))
    assert first.shape == (1, 1, 3, 3)
    with pytest.raises(ShapeError, match="window_shape is one size for all spatial axes"):
        nn.MaxPool((2, 2, 2, 1))(x)


def test_averages_decay_from_the_first_or_from_a_warm_value() -> None:
    values = RNG.normal(size=(5, 3)).astype("float32")
    debiased, warm = (
        nn.ExponentialMovingAverage(0.9),
        nn.ExponentialMovingAverage(0.9, zero_debias=False, warmup_length=2),
    )
    hidden, own = np.zeros(3), np.zeros(3)
    for count, x in enumerate(values, 1):
        hidden = 0.9 * hidden + 0.1 * x
        own = x if count <= 2 else 0.9 * own + 0.1 * x
        np.testing.assert_allclose(debiased(x).numpy(), hidden / (1 - 0.9**count), rtol=1e-4)
        np.testing.assert_allclose(warm(x).numpy(), own, rtol=1e-5)
    before = debiased.average.numpy().copy()
    assert not np.array_equal(debiased(values[0], update_stats=False).numpy(), before)
    np.testing.assert_array_equal(debiased.average.numpy(), before)
    with pytest.raises(EinkornError, match="give zero_debias=False"):
        nn.ExponentialMovingAverage(0.9, warmup_length=1)
    with pytest.raises(EinkornError, match=r"decay is a number in \[0, 1\), got 1"):
        nn.EMAParamsTree(1)


def test_averages_of_parameters() -> None:
    net = nn.Sequential(lambda: [nn.Linear(3), nn.Linear(1)])
    net(TOKENS)
    averages = nn.EMAParamsTree(0.5, ignore_regex=".*/b")
    step = elegy.jit(lambda tree: averages(tree))
    first = step(net.get_parameters())
    net.set_parameters(ek.tree_map(lambda x: x + 3.0, net.get_parameters()))
    second = step(net.get_parameters())
    assert second.key_chains() == net.get_parameters().key_chains()
    np.testing.assert_allclose((second.linear.w - first.linear.w).numpy(), 2.0, rtol=1e-5)
    np.testing.assert_array_equal(second.linear.b.numpy(), 3.0)
    assert "linear__w" in averages.submodules
    assert "linear__b" not in averages.submodules


def test_attention_is_that_of_einkorn() -> None:
    ek.random.seed(6)
    layer = nn.MultiHeadAttention(3, 2)
    y = layer(TOKENS, mask=MASK.astype(int))
    own = ek.nn.MultiHeadAttention(4, 2, head_dim=3, causal=True)
    own.set_parameters({name: layer.get_parameters()[name] for name in ("wq", "wk", "wv", "wo")})
    np.testing.assert_allclose(y.numpy(), own(TOKENS.astype("f4")).numpy(), rtol=1e-5, atol=1e-6)
    whole = nn.MultiHeadAttention(3, 2)
    whole.init(TOKENS)
    whole.set_parameters(layer.get_parameters())
    heads = np.broadcast_to(MASK, (2, 2, 5, 5))
    np.testing.assert_array_equal(whole(TOKENS, mask=heads).numpy(), y.numpy())
    assert not np.array_equal(whole(TOKENS).numpy(), y.numpy())
    with pytest.raises(EinkornError, match="return_attn_coef is False"):
        nn.MultiHeadAttention(3, 2, return_attn_coef=True)


def test_encoders_and_decoders_of_layers() -> None:
    encoder = nn.transformers.TransformerEncoder(
        lambda: nn.TransformerEncoderLayer(2, 2, activation=jax.nn.gelu), 2, nn.LayerNormalization
    )
    memory = encoder(TOKENS, MASK)
    assert list(encoder.submodules) == [
        "transformer_encoder_layer", "transformer_encoder_layer_1", "layer_normalization"
    ]  # fmt: skip
    assert encoder.transformer_encoder_layer.feed_forward.inner.w.shape == (4, 4)
    np.testing.assert_allclose(memory.numpy().mean(axis=-1), 0.0, atol=1e-6)
    cut = TOKENS.copy()
    cut[:, 3:] = 0.0  # which the mask hides from those before
    np.testing.assert_array_equal(encoder(cut, MASK).numpy()[:, :3], memory.numpy()[:, :3])
    decoder = nn.TransformerDecoder(lambda: nn.TransformerDecoderLayer(2, 2, 8, 0.0, "relu"), 1)
    assert decoder(TOKENS, memory[:, :2], None, np.ones((5, 2))).shape == (2, 5, 4)
    assert not np.array_equal(
        decoder(TOKENS, memory, MASK).numpy(), decoder(TOKENS, memory).numpy()
    )
    with pytest.raises(EinkornError, match=r"the activation is jax\.nn\.relu, gelu or silu"):
        nn.TransformerEncoderLayer(2, 2, activation=jax.nn.softplus)


def test_a_table_that_is_given() -> None:
    table = RNG.normal(size=(4, 3))
    layer = nn.Embedding(embedding_matrix=table, lookup_style="ONE_HOT")
    np.testing.assert_array_equal(layer([3, 0]).numpy(), table[[3, 0]].astype("float32"))
    with pytest.raises(ShapeError, match=r"embedding_matrix is \[rows, features\]"):
        nn.Embedding(embedding_matrix=table[0])


# -- initializers ----------------------------------------------------------------------------------


def test_initializers_know_the_axes_of_parameters_and_of_layers() -> None:
    ek.random.seed(7)
    scaled = elegy.initializers.VarianceScaling(2.0, "fan_in", "normal")
    for shape, fan in (((400, 50), 400), ((3, 3, 40, 50), 360), ((300,), 300), ((), 1)):
        values = np.asarray(scaled(shape, "float32"))
        assert values.shape == shape
        if len(shape) > 1:
            np.testing.assert_allclose(values.std(), np.sqrt(2 / fan), rtol=0.05)
    layer = nn.Linear(50, w_init=scaled)
    layer(np.ones((1, 400)))
    np.testing.assert_allclose(layer.w.numpy().std(), np.sqrt(2 / 400), rtol=0.05)
    uniform = elegy.initializers.UniformScaling(0.5)
    assert np.abs(uniform((100, 7))).max() <= 0.5 * np.sqrt(3 / 100)
    q = np.asarray(elegy.initializers.Orthogonal(2.0)((3, 4, 5)))
    np.testing.assert_allclose(np.einsum("abi,abj->ij", q, q), 4 * np.eye(5), rtol=1e-4, atol=1e-5)
    layer = nn.Linear(3, w_init=elegy.initializers.Orthogonal)
    layer(np.ones((1, 8)))
    np.testing.assert_allclose((layer.w @ layer.w.T).numpy(), np.eye(3), atol=1e-5)
    with pytest.raises(ShapeError, match="at least two axes"):
        elegy.initializers.Orthogonal()((3,))


def test_arguments_of_initializers() -> None:
    ek.random.seed(8)
    normal = np.asarray(elegy.initializers.RandomNormal(0.5, 3.0)((4000,)))
    np.testing.assert_allclose([normal.mean(), normal.std()], [3.0, 0.5], rtol=0.05)
    cut = np.asarray(elegy.initializers.TruncatedNormal(0.5, 3.0)((4000,)))
    assert 2.0 <= cut.min() < cut.max() <= 4.0
    uniform = np.asarray(elegy.initializers.RandomUniform()((4000,)))
    assert 0.0 <= uniform.min() < 0.01 < 0.99 < uniform.max() < 1.0
    assert np.asarray(elegy.initializers.Constant(2)((2,))).tolist() == [2.0, 2.0]


# -- networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [resnet.ResNetBlock, resnet.BottleneckResNetBlock])
def test_a_residual_network_trains_with_the_same_bits(block: Any) -> None:
    results = []
    for compiled in (False, True):
        ek.random.seed(9)
        net = resnet.ResNet([1, 1], block, lowres=True)
        model = elegy.Model(
            net,
            loss=elegy.losses.SparseCategoricalCrossentropy(from_logits=True),
            optimizer=lambda module: ek.optim.SGD(module, lr=0.1),
            run_eagerly=not compiled,
        )
        logs = [model.train_on_batch(IMAGES, np.array([1, 999])) for _ in range(2)]
        results.append((logs, net.get_parameters().copy()))
    assert results[0][0] == results[1][0]
    assert_same_nest(results[0][1], results[1][1])


def test_sizes_of_residual_networks(tmp_path: Path) -> None:
    net = resnet.ResNet18(name="small")
    net.init(np.zeros((1, 64, 64, 3)))
    assert net.parameters_size() - net.states_size() == 11_689_512
    blocks = [name for name in net.submodules if name.startswith("res_net_block")]
    assert len(blocks) == 8
    net.save(tmp_path / "net.safetensors")
    other = resnet.ResNet18(weights=tmp_path / "net.safetensors")
    assert_same_nest(other.get_parameters().copy(), net.get_parameters().copy())
    deep = resnet.ResNet50()
    deep.init(np.zeros((1, 64, 64, 3)))
    assert deep.parameters_size() - deep.states_size() == 25_557_032
    with pytest.raises(EinkornError, match="weights is None or a file"):
        resnet.ResNet18(weights="imagenet")


# -- callbacks and data ----------------------------------------------------------------------------


def test_callbacks_and_loaders_by_elegys_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Points(elegy.data.Dataset):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> Any:
            return np.float64([index, 1.0]), np.float64([index * 0.5])

    model = elegy.Model(
        nn.Linear(1),
        loss=elegy.losses.MeanSquaredError(),
        optimizer=lambda module: ek.optim.SGD(module, lr=1e-3),
    )
    seen: list[int] = []
    callbacks = [
        elegy.callbacks.EarlyStopping("loss", 1e9, 2, 0, "min"),
        elegy.callbacks.ModelCheckpoint(tmp_path / "m{epoch}", "loss", 0, True),
        elegy.callbacks.CSVLogger(filename=tmp_path / "log.csv"),
        elegy.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch)),
        elegy.callbacks.TerminateOnNaN(),
        elegy.callbacks.ProgbarLogger("steps"),
    ]
    loader = elegy.data.DataLoader(Points(), 4, shuffle=True, n_workers=2)
    history = model.fit(loader, epochs=9, verbose=0, callbacks=callbacks)
    assert isinstance(history, elegy.callbacks.History)
    assert seen == [0, 1, 2]
    assert (tmp_path / "m1").exists()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4
    assert "epoch 3/9" in capsys.readouterr().out
    with pytest.raises(EinkornError, match="workers are threads"):
        elegy.data.DataLoader(Points(), 4, worker_type="process")
