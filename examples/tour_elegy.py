"""A tour of the dialect of Elegy: modules made where they are called, hooks, and its Model.

python examples/tour_elegy.py            the whole tour, on handwritten digits
python examples/tour_elegy.py --quick    with less training
"""

import argparse
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import einkorn as ek
from einkorn.dialects import elegy
from einkorn.dialects.elegy import jax
from einkorn.dialects.elegy.jax import numpy as jnp


class Centre(elegy.Module):
    """Takes away the mean of each feature: of the batch in training, else a running one."""

    def call(self, x: Any) -> Any:
        kept = self.add_parameter("mean", x.shape[1:], initializer=jnp.zeros, trainable=False)
        if not elegy.training():
            return x - kept
        mean = jnp.mean(x, axis=0)
        self.update_parameter("mean", 0.9 * kept + 0.1 * mean)
        return x - mean


class Network(elegy.Module):
    """Rows of 64 pixels -> logits of 10 digits; nothing is made or measured in advance."""

    def call(self, x: Any) -> Any:
        x = Centre()(x)
        x = jax.nn.relu(elegy.nn.Linear(64)(x))
        elegy.add_metric("active", jnp.mean(x > 0))
        for _ in range(2):
            inner = jax.nn.relu(elegy.nn.Linear(64)(x))
            x = x + elegy.nn.Dropout(0.3)(inner)
        elegy.add_loss("large", 1e-3 * jnp.mean(jnp.square(x)))
        return elegy.nn.Linear(10, name="out")(x)


class Changing(elegy.Module):
    """Breaks the rule: which module comes first depends on the input."""

    def call(self, x: Any) -> Any:
        return elegy.nn.Linear(8)(x) if len(x) > 1 else elegy.nn.Dropout(0.5)(x)


def modules(x: Any) -> None:
    """What a first call makes, and what is refused afterwards."""
    net = Network()
    net.init(x)
    print("--- Modules: made in `call` were", *net.get_parameters().key_chains(), sep="\n  ")
    print("Modules are attributes, such as linear_1:", net.linear_1)
    with elegy.hooks_context(summaries=True):
        net(x)
        print("Added by modules:", *elegy.get_losses(), *elegy.get_metrics())
        print("Returned by modules:", *(name for _, name, _ in elegy.get_summaries()))
    changing = Changing()
    changing(x)
    try:
        changing(x[:1])
    except elegy.ModuleOrderError as error:
        print(fill(f"Refused: {error}", 100))


def descend(x: Any, y: Any, steps: int) -> list[float]:
    """A loop by hand; its first call makes the parameters and compiles."""
    net = Network()

    def loss_fn(x: Any, y: Any) -> Any:
        with elegy.hooks_context():
            right = jnp.take_along_axis(jax.nn.log_softmax(net(x)), y[:, None], axis=1)
            return sum(elegy.get_losses().values()) - jnp.mean(right)

    def update(x: Any, y: Any) -> Any:
        loss, gradients = elegy.value_and_grad(loss_fn, modules=net)(x, y)
        old = net.get_parameters(trainable=True)
        net.set_parameters(jax.tree_multimap(lambda p, g: p - 0.1 * g, old, gradients))
        return loss

    update_jit = elegy.jit(update, modules=net)
    chosen = np.random.default_rng(0).integers(0, len(x), (steps, 64))
    return [float(update_jit(x[k], y[k])) for k in chosen]


def fit(x: Any, y: Any, held_out: Any, epochs: int) -> tuple[Any, Any]:
    """The same with a Model, which knows of the losses and metrics inside of modules."""
    cross_entropy = elegy.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = elegy.Model(
        Network(),
        loss=[cross_entropy, elegy.regularizers.GlobalL2(1e-3)],
        metrics=elegy.metrics.Accuracy(),
        optimizer=lambda net: ek.optim.Adam(net, lr=2e-3),
    )
    model.summary(x[:64])
    history = model.fit(x, y, epochs=epochs, validation_data=held_out, verbose=0).history
    for name, values in history.items():
        print(f"{name:35} {values[0]:.4f} -> {values[-1]:.4f}")
    return model, history


def plot(losses: list[float], history: Any, weights: Any, path: Path) -> None:
    """Save the losses of both trainings, and what the first layer looks at."""
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.semilogy(losses)
    left.set(title="gradient descent by hand", xlabel="step", ylabel="loss")
    middle.plot(np.transpose([history["loss"], history["val_loss"]]))
    middle.set(title="the Model with Adam", xlabel="epoch", ylim=(0, None))
    middle.legend(["training", "held out"])
    images = np.pad(weights.reshape(8, 8, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
    right.matshow(images.swapaxes(1, 2).reshape(80, 80), cmap="RdBu", vmin=-0.3, vmax=0.3)
    right.set(title="weights of the first layer", xticks=[], yticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def main() -> None:
    """The tour."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the split, the networks and masks")
    parser.add_argument("--quick", action="store_true", help="less training")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path(), help="for the picture")
    args = parser.parse_args()
    ek.random.seed(args.seed)
    images, digits = load_digits(return_X_y=True)
    split = train_test_split(images / 16, digits, test_size=1 / 3, random_state=args.seed)
    x, held_out_x, y, held_out_y = split
    modules(x[:64])
    print("--- A training loop by hand")
    losses = descend(x, y, 200 if args.quick else 2000)
    print(f"loss {losses[0]:.2f} at first, {np.mean(losses[-50:]):.3f} at last")
    print("--- The Model")
    model, history = fit(x, y, (held_out_x, held_out_y), 10 if args.quick else 40)
    print(f"held-out accuracy {model.evaluate(held_out_x, held_out_y, verbose=0)['accuracy']:.2%}")
    plot(losses, history, model.module.linear.w.numpy(), args.out / "tour_elegy.png")


if __name__ == "__main__":
    main()
