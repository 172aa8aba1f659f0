"""Train a small network on scikit-learn's handwritten digits, eagerly or as one native call a step.

python examples/digits.py                 train compiled
python examples/digits.py --mode eager    the same step, op by op
python examples/digits.py --compare       both, from one seed: same bits? how much faster?
python examples/digits.py --dump stages   also write every stage of the step's compilation
python examples/digits.py --plot          also draw the loss and the digits that were misread
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import einkorn as ek

Array = np.ndarray[Any, Any]

console = Console(width=min(100, Console().width), highlight=False)


class Network(ek.nn.Module):
    """64 pixels -> 256 -> 128 -> 10 digits."""

    def __init__(self, rate: float) -> None:
        self.first = ek.nn.Linear(64, 256)
        self.second = ek.nn.Linear(256, 128)
        self.out = ek.nn.Linear(128, 10)
        self.dropout = ek.nn.Dropout(rate)

    def forward(self, x: Any) -> Any:
        x = self.dropout(ek.nn.relu(self.first(x)))
        x = self.dropout(ek.nn.relu(self.second(x)))
        return self.out(x)


@dataclass
class Data:
    """Images as rows of 64 numbers from 0 to 1, and the digits they show."""

    x: Array
    y: Array
    held_out_x: Array
    held_out_y: Array

    def batches(self, size: int, seed: int) -> Iterator[tuple[Array, Array]]:
        """Full batches for ever, in a new order in each epoch."""
        order = np.random.default_rng(seed)
        while True:
            shuffled = order.permutation(len(self.x))
            for start in range(0, len(shuffled) - size + 1, size):
                chosen = shuffled[start : start + size]
                yield self.x[chosen], self.y[chosen]


def load(seed: int) -> Data:
    """The 1797 images; a third is held out, with every digit equally well represented."""
    images, digits = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32)
    x, held_out_x, y, held_out_y = train_test_split(
        x, digits, test_size=1 / 3, stratify=digits, random_state=seed
    )
    return Data(x, y, held_out_x, held_out_y)


@dataclass
class Run:
    """A network, how to train it, and how that went."""

    mode: str
    network: Network
    optimizer: Any
    train_step: Any
    predict: Any
    first: float = 0.0
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    accuracy: float = 0.0

    @property
    def rate(self) -> float:
        """Steps per second once the first step, which compiles, is over."""
        return statistics.median(self.rates) if self.rates else float("nan")

    def state(self) -> dict[str, Array]:
        """Everything that training changed, by name."""
        found = {name: leaf.value for name, leaf in self.network.named_parameters()}
        for name, leaf in self.optimizer.state.flat_items():
            found[f"optimizer/{name}"] = leaf.value
        return found


def build(mode: str, args: argparse.Namespace) -> Run:
    """A network with its own step; all randomness follows from the seed."""
    ek.random.seed(args.seed)
    network = Network(args.dropout)
    opt = ek.optim.Adam(network, lr=args.lr)

    def loss_fn(x: Any, y: Any) -> Any:
        return ek.nn.cross_entropy(network(x), y)

    @ek.compile
    def train_step(x: Any, y: Any) -> Any:
        loss, grads = ek.value_and_grad(loss_fn, network)(x, y)
        opt.step(grads)
        return loss

    @ek.compile
    def predict(x: Any) -> Any:
        return ek.argmax(network(x), axis=1)

    return Run(mode, network, opt, train_step, predict)


def train(run: Run, data: Data, args: argparse.Namespace) -> None:
    """Take the steps, an epoch at a time, and measure the held-out accuracy after each."""
    batches = data.batches(args.batch, args.seed)
    epoch = len(data.x) // args.batch
    with running(run.mode, args), reporter(run, args.steps) as report:
        while len(run.losses) < args.steps:
            run.network.train()
            take_steps(run, batches, min(epoch, args.steps - len(run.losses)))
            run.network.eval()
            guesses = np.asarray(run.predict(data.held_out_x))
            run.accuracy = float((guesses == data.held_out_y).mean())
            report()
    console.print(
        f"{run.mode:8} first step {run.first:.2f} s"
        f"{', tracing and compiling included' if run.mode == 'compiled' else ''}"
    )


def running(mode: str, args: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    """The settings under which a mode runs."""
    chosen: dict[str, Any] = {} if args.threads is None else {"threads": args.threads}
    if mode == "eager":
        return ek.settings(compile=False, **chosen)
    return ek.settings(**chosen, **({"dump": args.dump} if args.dump else {}))


def take_steps(run: Run, batches: Iterator[tuple[Array, Array]], count: int) -> None:
    """Train for `count` steps and note how long they took."""
    losses: list[Any] = []
    if not run.losses:
        start = time.perf_counter()
        losses.append(run.train_step(*next(batches)))
        run.first = time.perf_counter() - start
    rest = [next(batches) for _ in range(count - len(losses))]
    start = time.perf_counter()
    losses.extend(run.train_step(x, y) for x, y in rest)
    seconds = time.perf_counter() - start
    if rest:
        run.rates.append(len(rest) / seconds)
    run.losses.extend(float(loss) for loss in losses)


@contextlib.contextmanager
def reporter(run: Run, steps: int) -> Iterator[Any]:
    """A progress bar on a terminal, a few lines elsewhere."""
    columns = (
        TextColumn(f"{run.mode:8}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
    )
    shown = 0
    with Progress(
        *columns, console=console, auto_refresh=False, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=steps, text="")

        def report() -> None:
            nonlocal shown
            done = len(run.losses)
            loss = statistics.fmean(run.losses[-16:])
            text = f"loss {loss:.4f}  held-out {run.accuracy:.2%}  {run.rate:5.0f} steps/s"
            progress.update(task, completed=done, text=text, refresh=True)
            if not console.is_terminal and (done * 5 // steps > shown or done == steps):
                shown = done * 5 // steps
                console.print(f"{run.mode:8} {done:5d}/{steps}  {text}")

        yield report


def compare(runs: list[Run]) -> bool:
    """Show both runs side by side; true when every bit of their state is the same."""
    table = Table("", "first step", "steps/s", "held-out", title="one seed, two ways")
    for run in runs:
        table.add_row(run.mode, f"{run.first:.2f} s", f"{run.rate:.0f}", f"{run.accuracy:.2%}")
    console.print(table)
    compiled, eager = runs
    ours, theirs = compiled.state(), eager.state()
    different = [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    numbers = sum(value.size for value in ours.values())
    if different:
        console.print(f"[red]DIFFERENT BITS[/red] in {', '.join(different)}")
    else:
        console.print(
            f"same bits: {numbers} numbers in {len(ours)} parameters and optimizer slots are equal"
        )
    if compiled.losses != eager.losses:
        console.print("[red]DIFFERENT LOSSES[/red]")
    console.print(f"compiled is {compiled.rate / eager.rate:.1f} times as fast as eager")
    return not different and compiled.losses == eager.losses


def plot(run: Run, data: Data, folder: Path) -> None:
    """Save the loss curve and the held-out digits that were misread."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    window = min(20, len(run.losses))
    smooth = np.convolve(run.losses, np.ones(window) / window, mode="valid")
    axes.semilogy(run.losses, color="0.8", label="each step")
    axes.semilogy(np.arange(window - 1, len(run.losses)), smooth, label=f"mean of {window}")
    axes.set(xlabel="step", ylabel="loss", title=f"digits, {run.mode}")
    axes.legend()
    figure.savefig(folder / "loss.png", dpi=120)
    guesses = np.asarray(run.predict(data.held_out_x))
    wrong = np.flatnonzero(guesses != data.held_out_y)
    figure, grid = plt.subplots(3, 8, figsize=(9, 4.4), layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for k, axes in zip(wrong, grid.flat):
        axes.imshow(data.held_out_x[k].reshape(8, 8), cmap="gray_r")
        axes.set_title(f"{data.held_out_y[k]} read as {guesses[k]}", fontsize=9)
    figure.suptitle(f"{len(wrong)} of {len(guesses)} held-out digits misread")
    figure.savefig(folder / "misread.png", dpi=120)
    console.print(f"saved {folder / 'loss.png'} and {folder / 'misread.png'}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mode", choices=("compiled", "eager"), default="compiled")
    parser.add_argument("--compare", action="store_true", help="train both ways, compare the bits")
    parser.add_argument("--epochs", type=int, default=40, help="times through the training images")
    parser.add_argument("--steps", type=int, help="number of steps, instead of --epochs")
    parser.add_argument("--batch", type=int, default=64, help="images in a step")
    parser.add_argument("--lr", type=float, default=2e-3, help="learning rate of Adam")
    parser.add_argument("--dropout", type=float, default=0.25, help="rate of dropout")
    parser.add_argument("--seed", type=int, default=0, help="of split, order, network and dropout")
    parser.add_argument("--threads", type=int, help="threads for one compiled step")
    parser.add_argument("--dump", metavar="DIR", help="write every stage of the compilation there")
    parser.add_argument("--plot", metavar="DIR", nargs="?", const=".", help="save pictures there")
    args = parser.parse_args()
    if args.dump and args.mode == "eager" and not args.compare:
        parser.error("--dump shows a compilation: it goes with --mode compiled")
    if min(args.epochs, args.batch, 1 if args.steps is None else args.steps) < 1:
        parser.error("--epochs, --steps and --batch are at least 1")
    return args


def main() -> int:
    """Do what the command line asks; 1 when --compare finds a difference."""
    args = arguments()
    data = load(args.seed)
    if args.batch > len(data.x):
        raise SystemExit(f"--batch is at most {len(data.x)}, the number of training images")
    args.steps = args.steps or args.epochs * (len(data.x) // args.batch)
    console.print(
        f"{len(data.x)} digits to learn from, {len(data.held_out_x)} held out; "
        f"{args.steps} steps of {args.batch}"
    )
    runs: list[Run] = []
    for mode in ("compiled", "eager") if args.compare else (args.mode,):
        runs.append(build(mode, args))
        train(runs[-1], data, args)
    same = compare(runs) if args.compare else True
    if args.dump:
        console.print(f"wrote the stages of {args.dump}/*-train_step-*")
    if args.plot:
        plot(runs[0], data, Path(args.plot))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
