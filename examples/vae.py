"""A variational autoencoder that lays handwritten digits out on a plane.

python examples/vae.py              train, and draw the plane
python examples/vae.py --quick      fewer epochs
python examples/vae.py --kl 0.3     care less about the shape of the cloud of codes

The loss takes the inputs themselves and returns its two parts, which are logged by name. Noise is
drawn inside of the compiled step.
"""

import argparse
import time
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

import einkorn as ek

Array = np.ndarray[Any, Any]
nn = ek.nn


class Autoencoder(nn.Module):
    """Images (N, 64) -> logits of the pixels, and mean and log-variance (N, 2) of their codes."""

    def __init__(self) -> None:
        self.encoder = nn.Sequential(
            nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 128), nn.SiLU(), nn.Linear(128, 4)
        )
        self.decoder = nn.Sequential(
            nn.Linear(2, 128), nn.SiLU(), nn.Linear(128, 256), nn.SiLU(), nn.Linear(256, 64)
        )

    def encode(self, x: Any) -> Any:
        return ek.split(self.encoder(x), 2, axis=-1)

    def decode(self, code: Any) -> Any:
        return ek.nn.sigmoid(self.decoder(code))

    def forward(self, x: Any) -> Any:
        mean, log_variance = self.encode(x)
        noise = ek.random.normal(mean.shape)
        return self.decoder(mean + ek.exp(log_variance / 2) * noise), mean, log_variance


def loss_of(weight: float) -> Any:
    """Minus the evidence lower bound (Kingma & Welling, 2013), in nats for each image."""

    def loss(x: Any, y_pred: Any) -> dict[str, Any]:
        logits, mean, log_variance = y_pred
        pixels = nn.binary_cross_entropy_with_logits(logits, x, reduction="none")
        divergence = (ek.exp(log_variance) + mean**2 - 1 - log_variance) / 2
        return {
            "pixels": pixels.sum(axis=1).mean(),
            "divergence": weight * divergence.sum(axis=1).mean(),
        }

    return loss


def load(seed: int) -> tuple[Array, Array, Array, Array]:
    """The images that come with scikit-learn as rows from 0 to 1; a third is held out."""
    images, digits = load_digits(return_X_y=True)
    x, held_out_x, y, held_out_y = train_test_split(
        (images / 16).astype(np.float32), digits, test_size=1 / 3, random_state=seed
    )
    return x, held_out_x, y, held_out_y


def plot(net: Autoencoder, x: Array, y: Array, path: Path, side: int = 16) -> None:
    """Save where held-out digits lie, and what the decoder makes of a grid of codes."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    left, right = figure.subplots(1, 2)
    codes = net.encode(x)[0].numpy()
    for digit in range(10):
        left.scatter(*codes[y == digit].T, s=40, marker=f"${digit}$", linewidths=0.3)
    left.set(title="codes of held-out digits", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
    steps = [NormalDist().inv_cdf((k + 0.5) / side) for k in range(side)]
    grid = np.array([(a, b) for b in reversed(steps) for a in steps], np.float32)
    tiles = net.decode(grid).numpy().reshape(side, side, 8, 8)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (1, 1), (2, 2)))
    right.imshow(tiles.swapaxes(1, 2).reshape(side * 10, side * 12), cmap="gray_r", aspect="auto")
    right.set(title="what codes stand for, at equal shares of a normal distribution")
    right.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--epochs", type=int, default=300, help="times through the training images")
    add("--batch", type=int, default=64, help="images in one step")
    add("--kl", type=float, default=1.0, help="weight of the divergence from a normal cloud")
    add("--seed", type=int, default=0, help="of the split, the network and the noise")
    add("--threads", type=int, default=1, help="for one step; these are too short for more")
    add("--quick", action="store_true", help="40 epochs")
    add("--out", metavar="DIR", type=Path, default=Path(), help="save the picture there")
    return parser.parse_args()


def main() -> None:
    """Train, tell how well the plane separates digits, and save the picture."""
    args = arguments()
    x, held_out_x, y, held_out_y = load(args.seed)
    ek.random.seed(args.seed)
    net = Autoencoder()
    model = ek.Model(net, loss=loss_of(args.kl), optimizer=ek.optim.Adam(net, lr=1e-3))
    epochs = 40 if args.quick else args.epochs
    start = time.perf_counter()
    with ek.settings(threads=args.threads):
        history = model.fit(
            x, batch_size=args.batch, epochs=epochs, validation_data=held_out_x, verbose=0
        ).history
    for k in range(epochs // 10 - 1, epochs, epochs // 10):
        numbers = (f"{name} {history[name][k]:.2f}" for name in history if name.startswith("val"))
        print(f"epoch {k + 1:3}  loss {history['loss'][k]:.2f}", *numbers, sep="  ")
    print(f"trained for {time.perf_counter() - start:.1f} s")
    planes = {
        "two principal components": PCA(2).fit(x).transform,
        "this autoencoder": lambda x: net.encode(x)[0].numpy(),
    }
    print("Held-out digits recognised by their ten nearest neighbours on the plane:")
    for name, plane in planes.items():
        neighbours = KNeighborsClassifier(10).fit(plane(x), y)
        print(f"{name:25}{neighbours.score(plane(held_out_x), held_out_y):.1%}")
    plot(net, held_out_x, held_out_y, args.out / "vae.png")


if __name__ == "__main__":
    main()
