"""A tour of the dialect `ivy`: Ivy's modules, containers and optimizers on handwritten digits.

python examples/tour_ivy.py             train with each optimizer, save curves and features
python examples/tour_ivy.py --quick     a few epochs only

Everything here is named as in Ivy; only the import is einkorn's, and `@ek.compile` above the step.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import einkorn as ek
from einkorn.dialects import ivy

Array = np.ndarray[Any, Any]
Pair = tuple[Array, Array]

OPTIMIZERS = {
    "SGD": lambda: ivy.SGD(0.3),
    "LARS": lambda: ivy.LARS(0.01),
    "Adam": lambda: ivy.Adam(2e-3),
    "AdamW": lambda: ivy.AdamW(2e-3, weight_decay=0.3),
    "LAMB": lambda: ivy.LAMB(0.005, decay_lambda=0.01),
}


class Features(ivy.Module):
    """64 pixels -> 64 -> 24 features; layers in a dict are found like those in attributes."""

    def __init__(self) -> None:
        self.layers = {"wide": ivy.Linear(64, 64), "narrow": ivy.Linear(64, 24)}
        self.dropout = ivy.Dropout(0.1)
        ivy.Module.__init__(self)

    def _forward(self, x: Any) -> Any:
        return ivy.relu(self.layers["narrow"](self.dropout(ivy.relu(self.layers["wide"](x)))))


class Reader(ivy.Module):
    """Features, and scores for the ten digits; the temperature is a variable of its own."""

    def __init__(self) -> None:
        self.features = Features()
        self.scores = ivy.Linear(24, 10, weight_initializer=ivy.KaimingNormal())
        ivy.Module.__init__(self)

    def _create_variables(self, device: Any, dtype: Any) -> dict[str, Any]:
        return {"temperature": ivy.Ones().create_variables((1,), device, dtype=dtype)}

    def _forward(self, x: Any) -> Any:
        return ivy.softmax(self.scores(self.features(x)) / self.v.temperature)


def batches(x: Array, y: Array, size: int, epochs: int, seed: int) -> Iterator[Pair]:
    """Full batches in a new order in each epoch."""
    draw = np.random.default_rng(seed)
    for _ in range(epochs):
        order = draw.permutation(len(x))
        for start in range(0, len(x) - size + 1, size):
            yield x[order[start : start + size]], y[order[start : start + size]]


def train(optimizer: Any, data: Iterator[Pair], seed: int) -> tuple[Any, list[float]]:
    """A new model after a step for each batch, and the losses."""
    ek.random.seed(seed)
    model = Reader()

    @ek.compile
    def step(x: Any, y: Any) -> Any:
        def loss_fn(v: Any) -> Any:
            losses = ivy.sparse_cross_entropy(y, model(x, v=v), reduction="sum")
            return ivy.reduce_mean(losses)[0]

        loss, grads = ivy.execute_with_gradients(loss_fn, model.v)
        model.v = optimizer.step(model.v, grads)
        return loss

    losses = [step(x, y) for x, y in data]
    return model.eval(), [float(loss) for loss in losses]


def plot(curves: dict[str, list[float]], features: Array, y: Array, path: Path) -> None:
    """Save the losses of each optimizer, and the features of held-out digits on a plane."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, losses in curves.items():
        smooth = np.convolve(losses, np.ones(20) / 20, "valid")
        left.semilogy(smooth, label=name)
    left.set(xlabel="step", ylabel="loss (mean of 20)", title="five optimizers, one network")
    left.legend()
    centred = features - features.mean(axis=0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    points = right.scatter(*plane.T, c=y, cmap="tab10", s=12)
    right.set(title="what `features` returns, two principal components", xticks=[], yticks=[])
    figure.colorbar(points, ticks=range(10))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def main() -> None:
    """Show the variables, train with each optimizer, look inside, and save the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40, help="times through the images")
    parser.add_argument("--seed", type=int, default=0, help="of the split, batches and networks")
    parser.add_argument("--quick", action="store_true", help="8 epochs")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path(), help="for the picture")
    args = parser.parse_args()
    images, digits = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    parts = train_test_split(images, digits, test_size=1 / 3, random_state=args.seed)
    x, held_out, y, wanted = parts

    model = Reader()
    print("The variables, found in attributes and dicts:")
    print(model.v)
    print("The modules, and what is under the root:")
    print(model.sub_mods(show_v=False))
    print(f"{model.features.mod_depth()} level down: {model.features.get_mod_key()}")

    curves: dict[str, list[float]] = {}
    for name, made in OPTIMIZERS.items():
        optimizer, data = made(), batches(x, y, 48, 8 if args.quick else args.epochs, args.seed)
        model, curves[name] = train(optimizer, data, args.seed)
        right = (model(held_out).argmax(axis=-1).numpy() == wanted).mean()
        kept = ", ".join(optimizer.state)
        print(f"{name:6} {optimizer.state.count} steps: {right:.1%} held out; its state: {kept}")

    model(held_out, track_submod_rets=True)
    print("Modules returned in the order", " -> ".join(model.submod_call_order))
    args.out.mkdir(parents=True, exist_ok=True)
    plot(curves, model.submod_rets["features"].numpy(), wanted, args.out / "tour_ivy.png")


if __name__ == "__main__":
    main()
