"""Train a small network on handwritten digits, eagerly or with one native call for each step.

python examples/digits.py                 train compiled (--mode eager: op by op)
python examples/digits.py --compare       both from one seed: the same bits? how much faster?
python examples/digits.py --dump stages   write every stage of the compilation as well
python examples/digits.py --plot          draw the loss, and the digits that were misread
"""

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import einkorn as ek

Array = np.ndarray[Any, Any]

console = Console(width=min(100, Console().width), highlight=False)


class Network(ek.nn.Module):
    """64 pixels -> 256 -> 128 -> 10 digits."""

    def __init__(self) -> None:
        self.first = ek.nn.Linear(64, 256)
        self.second = ek.nn.Linear(256, 128)
        self.out = ek.nn.Linear(128, 10)
        self.dropout = ek.nn.Dropout(0.4)

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
        """Full batches without end, in a new order in each epoch."""
        generator = np.random.default_rng(seed)
        while True:
            order = generator.permutation(len(self.x))
            for start in range(0, len(order) - size + 1, size):
                chosen = order[start : start + size]
                yield self.x[chosen], self.y[chosen]


def load(seed: int) -> Data:
    """The 1797 images that come with scikit-learn; a third of each digit's is held out."""
    images, digits = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    x, held_out_x, y, held_out_y = train_test_split(
        images, digits, test_size=1 / 3, stratify=digits, random_state=seed
    )
    return Data(x, y, held_out_x, held_out_y)


@dataclass
class Run:
    """One training: the network, its step, and how it went."""

    mode: str
    network: Network
    optimizer: Any
    train_step: Callable[..., Any]
    predict: Callable[..., Any]
    first: float = 0.0
    rates: list[float] = field(default_factory=list[float])
    losses: list[float] = field(default_factory=list[float])
    accuracy: float = 0.0

    @property
    def rate(self) -> float:
        """Steps per second when the first step is over: the median of the epochs."""
        return statistics.median(self.rates or [float("nan")])

    def state(self) -> dict[str, Array]:
        """Everything that training changes, by name."""
        state = {name: leaf.value for name, leaf in self.network.named_parameters()}
        slots = self.optimizer.state.flat_items()
        return state | {f"optimizer/{name}": leaf.value for name, leaf in slots}


def build(mode: str, args: argparse.Namespace) -> Run:
    """A new network and its training step; the seed decides all of its random numbers."""
    ek.random.seed(args.seed)
    network = Network()
    opt = ek.optim.Adam(network, lr=1e-3)

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
    settings = {"dump": args.dump} if run.mode == "compiled" else {"compile": False}
    with ek.settings(threads=args.threads, **settings), reporter(run, args) as report:
        while len(run.losses) < args.steps:
            run.network.train()
            count = min(len(data.x) // args.batch, args.steps - len(run.losses))
            take_steps(run, list(islice(batches, count)))
            run.network.eval()
            guesses = np.asarray(run.predict(data.held_out_x))
            run.accuracy = float((guesses == data.held_out_y).mean())
            report()
    console.print(f"{run.mode:8} first step took {run.first:.2f} s, compilation included")


def take_steps(run: Run, batches: list[tuple[Array, Array]]) -> None:
    """Train on the batches and note how long it took."""
    losses: list[Any] = []
    if not run.losses:
        start = time.perf_counter()
        losses.append(run.train_step(*batches.pop(0)))
        run.first = time.perf_counter() - start
    start = time.perf_counter()
    losses.extend(run.train_step(x, y) for x, y in batches)
    if batches:
        run.rates.append(len(batches) / (time.perf_counter() - start))
    run.losses.extend(float(loss) for loss in losses)


@contextlib.contextmanager
def reporter(run: Run, args: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, five lines elsewhere."""
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[text]}")
    marks = [args.steps * k // 5 for k in range(1, 6)]

    def report() -> None:
        done = len(run.losses)
        loss = statistics.fmean(run.losses[-20:])
        text = f"loss {loss:.4f}  held-out {run.accuracy:.2%}  {run.rate:5.0f} steps/s"
        bar.update(task, completed=done, text=text, refresh=True)
        if bar.disable and done >= marks[0]:
            console.print(f"{run.mode:8} {done:5d}/{args.steps}  {text}")
            marks[:] = [mark for mark in marks if mark > done]

    hidden = not console.is_terminal
    with Progress(*columns, console=console, auto_refresh=False, disable=hidden) as bar:
        task = bar.add_task(f"{run.mode:8}", total=args.steps, text="")
        yield report


def compare(compiled: Run, eager: Run) -> bool:
    """Show both runs side by side; true when all of their state is the same to the last bit."""
    table = Table("", "first step", "steps/s", "held-out", title="One seed, two ways")
    for run in (compiled, eager):
        table.add_row(run.mode, f"{run.first:.2f} s", f"{run.rate:.0f}", f"{run.accuracy:.2%}")
    console.print(table)
    ours, theirs = compiled.state(), eager.state()
    ours["losses"], theirs["losses"] = np.array(compiled.losses), np.array(eager.losses)
    different = [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    count = sum(array.size for array in ours.values())
    same = f"Same bits: all {count:,} numbers of parameters, Adam's state and losses"
    console.print(f"[bold red]The bits differ[/] in {', '.join(different)}" if different else same)
    console.print(f"Compiled is {compiled.rate / eager.rate:.1f} times as fast as eager")
    return not different


def plot(run: Run, data: Data, folder: Path) -> None:
    """Save the loss curve and a grid of held-out digits that were misread."""
    from matplotlib.figure import Figure  # takes long to import and is needed here only

    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(run.losses)
    axes.set(xlabel="step", ylabel="loss", title=f"digits, {run.mode}")
    figure.savefig(folder / "loss.png", dpi=120)
    guesses = np.asarray(run.predict(data.held_out_x))
    wrong = np.flatnonzero(guesses != data.held_out_y)
    rows = max(1, -(-len(wrong[:24]) // 8))
    figure = Figure(figsize=(9, 0.6 + 1.35 * rows), layout="constrained")
    for position, k in enumerate(wrong[:24], start=1):
        place = figure.add_subplot(rows, 8, position, xticks=[], yticks=[])
        place.imshow(data.held_out_x[k].reshape(8, 8), cmap="gray_r")
        place.set_title(f"{data.held_out_y[k]} read as {guesses[k]}", fontsize=9)
    figure.suptitle(f"{len(wrong)} of {len(guesses)} held-out digits misread")
    figure.savefig(folder / "misread.png", dpi=120)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--mode", choices=("compiled", "eager"), default="compiled")
    add("--compare", action="store_true", help="train both ways and compare the bits")
    add("--epochs", type=int, default=50, help="times through the training images")
    add("--steps", type=int, help="number of steps, instead of --epochs")
    add("--batch", type=int, default=32, help="images in one step")
    add("--seed", type=int, default=0, help="of the split, the batches, the network and dropout")
    add("--threads", type=int, default=1, help="for one step; these are too short for more")
    add("--dump", metavar="DIR", default="", help="write every stage of the compilation there")
    add("--plot", metavar="DIR", nargs="?", const=".", help="save the pictures there")
    args = parser.parse_args()
    if not 1 <= args.batch <= 1198 or args.epochs < 1 or (args.steps or 1) < 1:
        parser.error("--epochs and --steps are at least 1, --batch is from 1 to 1198")
    return args


def main() -> int:
    """Do what the command line asks; 1 when --compare finds a difference."""
    args = arguments()
    data = load(args.seed)
    args.steps = args.steps or args.epochs * (len(data.x) // args.batch)
    console.print(f"{len(data.x)} digits to learn from, {len(data.held_out_x)} held out")
    runs: list[Run] = []
    for mode in ("compiled", "eager") if args.compare else (args.mode,):
        runs.append(build(mode, args))
        train(runs[-1], data, args)
    if args.plot:
        plot(runs[0], data, Path(args.plot))
    return 0 if not args.compare or compare(*runs) else 1


if __name__ == "__main__":
    sys.exit(main())
