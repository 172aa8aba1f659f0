"""A convolutional network in the manner of LeNet-5 on handwritten digits, with `ek.Model.fit`.

python examples/lenet.py              train, and save the filters and the digits that were misread
python examples/lenet.py --quick      a few epochs only
python examples/lenet.py --summary    show the layers, their shapes and their cost first

The images are moved by up to a pixel while training. That is a layer like any other, so it is a
part of the compiled step, random numbers included.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import einkorn as ek

Array = np.ndarray[Any, Any]
nn = ek.nn


class RandomShift(nn.Module):
    """Moves each image (N, H, W, C) by up to one pixel in each direction, while training."""

    def forward(self, x: Any) -> Any:
        if not self.training:
            return x
        count, height, width, _ = x.shape
        padded = ek.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        top, left = ek.random.randint(0, 3, (2, count, 1, 1))
        rows = top + ek.arange(height).reshape((1, height, 1))
        columns = left + ek.arange(width).reshape((1, 1, width))
        return padded[ek.arange(count).reshape((count, 1, 1)), rows, columns]


def build() -> Any:
    """8x8 pixels -> 4x4 -> 2x2 -> 10 digits; the sizes of inputs are those of the first batch."""
    return nn.Sequential(
        RandomShift(),
        nn.Conv2D(32, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2D(2),
        nn.Conv2D(64, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2D(2),
        nn.Flatten(),
        nn.Linear(128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(10),
    )


def load(seed: int) -> tuple[Array, Array, Array, Array]:
    """The 1797 images that come with scikit-learn, (N, 8, 8, 1); a third is held out."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[..., np.newaxis]
    x, held_out_x, y, held_out_y = train_test_split(
        images, data.target, test_size=1 / 3, stratify=data.target, random_state=seed
    )
    return x, y, held_out_x, held_out_y


def plot(net: Any, history: dict[str, list[float]], x: Array, y: Array, path: Path) -> None:
    """Save the errors by epoch, the filters of the first layer, and digits that were misread."""
    guesses = net.eval()(x).argmax(axis=1).numpy()
    wrong = np.flatnonzero(guesses != y)
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2)
    axes = left.subplots()
    for name, label in (("accuracy", "training (moved, dropout)"), ("val_accuracy", "held out")):
        axes.semilogy(range(1, len(history[name]) + 1), 1 - np.array(history[name]), label=label)
    axes.set(xlabel="epoch", ylabel="share of digits misread")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend()
    filters, misread = right.subfigures(2, 1, height_ratios=(4, 3))
    filters.suptitle("filters of the first layer")
    for place, weights in zip(filters.subplots(4, 8).flat, net[1].w.numpy()):
        place.imshow(weights[..., 0], cmap="RdBu", vmin=-0.6, vmax=0.6)
        place.axis("off")
    misread.suptitle(f"{len(wrong)} of {len(y)} held-out digits misread")
    for position, k in enumerate(wrong[:6], start=1):
        place = misread.add_subplot(1, min(6, len(wrong)), position)
        place.imshow(x[k, ..., 0], cmap="gray_r")
        place.set_title(f"{y[k]} as {guesses[k]}", fontsize=9)
        place.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--epochs", type=int, default=50, help="times through the training images")
    add("--batch", type=int, default=32, help="images in one step")
    add("--seed", type=int, default=0, help="of the split, the network, shifts and dropout")
    add("--threads", type=int, default=2, help="for one step")
    add("--quick", action="store_true", help="10 epochs")
    add("--summary", action="store_true", help="show the layers first")
    add("--out", metavar="DIR", type=Path, default=Path(), help="save the picture there")
    return parser.parse_args()


def main() -> None:
    """Train, tell the held-out accuracy and save the picture."""
    args = arguments()
    epochs = 10 if args.quick else args.epochs
    x, y, held_out_x, held_out_y = load(args.seed)
    ek.random.seed(args.seed)
    net = build()
    net.build(x[:1])
    if args.summary:
        print(net.summary(x[: args.batch]))
    schedule = ek.optim.schedules.Cosine(3e-3, epochs * -(-len(x) // args.batch))
    model = ek.Model(
        net,
        loss=nn.CrossEntropyLoss(label_smoothing=0.1),
        metrics=[ek.metrics.Accuracy()],
        optimizer=ek.optim.AdamW(net, lr=schedule, weight_decay=0.01),
    )
    start = time.perf_counter()
    with ek.settings(threads=args.threads):
        history = model.fit(
            x,
            y,
            batch_size=args.batch,
            epochs=epochs,
            validation_data=(held_out_x, held_out_y),
            validation_batch_size=len(held_out_x),
        ).history
    seconds = time.perf_counter() - start
    print(f"held-out accuracy {history['val_accuracy'][-1]:.2%} after {seconds:.1f} s")
    plot(net, history, held_out_x, held_out_y, args.out / "lenet.png")


if __name__ == "__main__":
    main()
