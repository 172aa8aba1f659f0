"""Two networks and two optimizers in one compiled step: a generator of digits and its critic.

python examples/gan.py               train, and draw new digits beside their nearest real ones
python examples/gan.py --quick       fewer steps
python examples/gan.py --penalty 0   without the penalty that keeps the critic smooth

The penalty is on the slope of the critic at real images (Mescheder et al., 2018), so training takes
the derivative of a derivative. Both updates, and a moving average of the generator, are one native
call.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

import einkorn as ek

Array = np.ndarray[Any, Any]
nn = ek.nn

NOISE = 32


def build() -> tuple[Any, Any]:
    """Noise (N, 32) -> images (N, 64), and images -> logits (N, 1) of being real."""
    generator = nn.Sequential(
        nn.Linear(NOISE, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(),
        nn.Linear(256, 64), nn.Sigmoid(),
    )  # fmt: skip
    critic = nn.Sequential(
        nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 1)
    )
    return generator, critic


def training_step(generator: Any, critic: Any, lr: float, penalty: float) -> tuple[Any, Any]:
    """A compiled step that updates the critic, then the generator; and the latter's average."""
    critic_opt = ek.optim.Adam(critic, lr=lr, beta1=0.0, beta2=0.99)
    generator_opt = ek.optim.Adam(generator, lr=lr, beta1=0.0, beta2=0.99, ema=0.998)

    @ek.compile
    def step(real: Any) -> tuple[Any, Any]:
        noise = ek.random.normal((real.shape[0], NOISE))
        fake = generator(noise)

        def critic_loss() -> Any:
            slopes = ek.grad(lambda x: critic(x).sum())(real)
            wrong = nn.softplus(-critic(real)) + nn.softplus(critic(fake))
            return wrong.mean() + penalty / 2 * (slopes**2).sum(axis=1).mean()

        def generator_loss() -> Any:
            return nn.softplus(-critic(generator(noise))).mean()

        loss, grads = ek.value_and_grad(critic_loss, critic)()
        critic_opt.step(grads)
        loss_of_generator, grads = ek.value_and_grad(generator_loss, generator)()
        generator_opt.step(grads)
        return loss, loss_of_generator

    return step, generator_opt.ema


def told_apart(real: Array, made: Array) -> float:
    """How often the nearest other image is of the same kind: a half when nobody can tell."""
    images = np.concatenate([real, made])
    is_real = np.arange(len(images)) < len(real)
    nearest = NearestNeighbors(n_neighbors=2).fit(images).kneighbors(images)[1][:, 1]
    return float((is_real[nearest] == is_real).mean())


def plot(made: Array, real: Array, history: dict[int, float], path: Path) -> None:
    """Save new digits above the nearest real ones, and how well they could be told apart."""
    rows, columns = 5, 15
    made = made[: rows * columns]
    nearest = real[NearestNeighbors(n_neighbors=1).fit(real).kneighbors(made)[1][:, 0]]
    figure = Figure(figsize=(12, 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    pairs = np.stack([made, nearest], axis=1).reshape(rows, columns, 2, 8, 8)
    pairs = np.pad(pairs, ((0, 0), (0, 0), (0, 0), (1, 0), (1, 1))).reshape(rows, columns, 18, 10)
    tiles = np.pad(pairs, ((0, 0), (0, 0), (1, 2), (0, 0))).swapaxes(1, 2)
    left.imshow(tiles.reshape(rows * 21, columns * 10), cmap="gray_r", aspect="auto")
    left.set_title("new digits, and below each the nearest of those learnt from")
    left.axis("off")
    right.plot(*zip(*history.items()), "o-")
    right.axhline(0.5, color="0.6", linestyle="--", label="nobody can tell")
    right.legend()
    right.set(xlabel="step", ylabel="told apart from held-out digits", ylim=(0.45, 1.02))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--steps", type=int, default=8000)
    add("--batch", type=int, default=64, help="images in one step")
    add("--lr", type=float, default=1e-3, help="learning rate of both")
    add("--penalty", type=float, default=0.3, help="weight of the critic's squared slope")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=2, help="for one step")
    add("--quick", action="store_true", help="1000 steps")
    add("--out", metavar="DIR", type=Path, default=Path(), help="save the picture there")
    return parser.parse_args()


def main() -> None:
    """Train, measure how well new digits can be told from real ones, and save the picture."""
    args = arguments()
    steps = 1000 if args.quick else args.steps
    rng = np.random.default_rng(args.seed)
    images, digits = load_digits(return_X_y=True)
    order = rng.permutation(len(images))
    images, digits = (images[order] / 16).astype(np.float32), digits[order]
    real, held_out = images[599:], images[:599]
    ek.random.seed(args.seed)
    generator, critic = build()
    step, average = training_step(generator, critic, args.lr, args.penalty)
    noise = rng.normal(size=(len(held_out), NOISE)).astype(np.float32)
    history: dict[int, float] = {}
    made = held_out
    start = time.perf_counter()
    with ek.settings(threads=args.threads):
        for k in range(1, steps + 1):
            losses = step(real[rng.integers(0, len(real), args.batch)])
            if k == 1 or k % (steps // 10) == 0:
                with average.applied():
                    made = generator(noise).numpy()
                history[k] = told_apart(held_out, made)
                text = "critic {:.3f}  generator {:.3f}".format(*map(float, losses))
                seconds = time.perf_counter() - start
                print(f"{k:6}  {text}  told apart {history[k]:.1%}  {seconds:.0f} s")
    found = KNeighborsClassifier().fit(images, digits).predict(made)
    counts = np.bincount(found, minlength=10)
    print("New digits from 0 to 9:", *counts)
    plot(made, real, history, args.out / "gan.png")


if __name__ == "__main__":
    main()
