"""A tour of the dialect `pygrad`: tensors with gradients, layers and optimizers on three wines.

python examples/tour_pygrad.py            train with each optimizer, save curves and a map of wines
python examples/tour_pygrad.py --quick    a few steps only

Everything here is named as in pygrad; only the imports are einkorn's, and `@ek.compile` above the
step, which turns forward, backward and update into one native call.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

import einkorn as ek
from einkorn.dialects.pygrad.basics import Linear
from einkorn.dialects.pygrad.losses import CCELoss
from einkorn.dialects.pygrad.module import Module
from einkorn.dialects.pygrad.optims import SGD, Adam, RMSProp, SGD_Momentum
from einkorn.dialects.pygrad.tensor import Tensor

Array = np.ndarray[Any, Any]

OPTIMIZERS = {
    "SGD": lambda weights: SGD(weights, lr=0.3),
    "SGD_Momentum": lambda weights: SGD_Momentum(weights, lr=0.3),
    "RMSProp": lambda weights: RMSProp(weights, lr=3e-3),
    "Adam": lambda weights: Adam(weights, lr=1e-2),
}


class Taster(Module):
    """13 measurements of a wine -> 16 -> scores for three growers."""

    def __init__(self, **inputs: Any) -> None:
        self.hidden = Linear(13, 16, label="hidden")
        self.scores = Linear(16, 3, label="scores")
        super().__init__(**inputs)

    def forward(self, x: Any) -> Any:
        return self.scores(self.hidden(x).tanh())


def show_graph() -> None:
    """How gradients come about: pygrad's own first example."""
    x = Tensor(1.0, label="x")
    y = x**2 + x + 1
    y.backward()
    print("y = x**2 + x + 1 is computed from", [float(t.value) for t in y.topo])
    print("its weights are", [t.label for t in y.weights], "with the gradient", float(x.grad))


def as_input(values: Array) -> Any:
    """Rows as a tensor [B, 1, n] that is no weight."""
    return Tensor(values[:, None, :], leaf=True)


def train(made: Any, x: Array, y: Array, steps: int, seed: int) -> tuple[Any, list[float], float]:
    """A new model after some steps on all wines, its losses, and the steps in a second."""
    ek.random.seed(seed)
    model, loss_of = Taster(x=as_input(x[:1])), CCELoss()
    optim = made(model.weights)

    @ek.compile
    def step(x: Any, y: Any) -> Any:
        loss = loss_of(model(x=as_input(x)), as_input(y))
        loss.backward()
        optim.step(loss)
        return loss.value

    losses = [step(x, y)]
    start = time.perf_counter()
    losses += [step(x, y) for _ in range(steps - 1)]
    rate = (steps - 1) / (time.perf_counter() - start)
    return model, [float(loss) for loss in losses], rate


def guess(model: Any, x: Array) -> Array:
    """The grower with the highest score."""
    return model(x=as_input(x)).value[:, 0].argmax(axis=-1)


def pulls(model: Any, x: Array, y: Array) -> Array:
    """How much each wine alone would change the weights: the length of its own gradient."""
    model.model_reset()
    CCELoss()(model(x=as_input(x)), as_input(y)).backward()
    grads = [w.grad.reshape(len(x), -1) for w in model.copy.weights]
    return len(x) * np.linalg.norm(np.concatenate(grads, axis=1), axis=1)


def plot(curves: dict[str, list[float]], x: Array, y: Array, size: Array, path: Path) -> None:
    """Save the losses, and the wines on a plane: the larger, the more they still pull."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, losses in curves.items():
        left.loglog(range(1, len(losses) + 1), losses, label=name)
    left.set(xlabel="step", ylabel="loss", title="four optimizers, one network")
    left.legend()
    plane = x @ np.linalg.svd(x, full_matrices=False)[2][:2].T
    points = right.scatter(*plane.T, c=y, cmap="Set1", vmax=8, s=8 + 400 * size / size.max())
    points.set_alpha(0.6)
    right.set(title="wines; areas: gradient of each by itself", xticks=[], yticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def main() -> None:
    """Show a graph, train with each optimizer, ask for gradients of examples, save the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="steps, each on all wines")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the networks")
    parser.add_argument("--quick", action="store_true", help="300 steps")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path(), help="for the picture")
    args = parser.parse_args()
    show_graph()
    values, growers = load_wine(return_X_y=True)
    parts = train_test_split(values, growers, test_size=1 / 3, random_state=args.seed)
    x, held_out, y, wanted = parts
    x, held_out = ((part - x.mean(axis=0)) / x.std(axis=0) for part in (x, held_out))
    curves: dict[str, list[float]] = {}
    for name, made in OPTIMIZERS.items():
        steps = 300 if args.quick else args.steps
        model, curves[name], rate = train(made, x, np.eye(3)[y], steps, args.seed)
        right = (guess(model, held_out) == wanted).mean()
        print(f"{name:12} loss {curves[name][-1]:.5f}  held out {right:.1%}  {rate:6.0f} steps/s")
    size = pulls(model, x, np.eye(3)[y])
    print(f"weights of {model.hidden}: {[w.shape for w in model.hidden.parameters()]}")
    print(f"gradients of single wines: from {size.min():.6f} to {size.max():.4f} long")
    plot(curves, x, y, size, args.out / "tour_pygrad.png")


if __name__ == "__main__":
    main()
