"""A transformer that reads the sources of Python's standard library, one character at a time.

python examples/characters.py             train for about two minutes, then write some "Python"
python examples/characters.py --quick     a smaller network, for a few seconds

A step with forward, backward, clipping and AdamW is one native call. So is writing: the loop over
characters is an `ek.scan` that draws each from what the network expects.
"""

import argparse
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import einkorn as ek

Array = np.ndarray[Any, Any]
nn = ek.nn


class Network(nn.Module):
    """Characters [..., T] -> logits [..., T, alphabet] of the character that follows each."""

    def __init__(self, alphabet: int, width: int, layers: int) -> None:
        self.characters = nn.Embedding(alphabet, width)
        self.blocks = nn.TransformerEncoder(layers, width, width // 32, causal=True, rotary=True)
        self.out = nn.Linear(width, alphabet)

    def forward(self, x: Any) -> Any:
        return self.out(self.blocks(self.characters(x)))


def load() -> tuple[Array, Array, str]:
    """Text to learn from and every tenth file, held out, as indices; four spaces are a tab."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [path.read_text(encoding="utf-8").replace("    ", "\t") for path in files]
    clean = ["".join(c for c in text if c in "\n\t" or " " <= c <= "~") for text in texts]
    alphabet = "".join(sorted(set().union(*clean)))
    index = np.zeros(128, np.int64)
    index[list(alphabet.encode())] = np.arange(len(alphabet))
    codes = [index[np.frombuffer(text.encode(), np.uint8)] for text in clean]
    held_out = codes[9::10]
    del codes[9::10]
    return np.concatenate(codes), np.concatenate(held_out), alphabet


def batch(codes: Array, count: int, context: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Random stretches of the text (count, context), and the same one character further."""
    starts = rng.integers(0, len(codes) - context, (count, 1))
    stretches = codes[starts + np.arange(context + 1)]
    return stretches[:, :-1], stretches[:, 1:]


def training_step(network: Network, steps: int, rate: float) -> Any:
    """A compiled step of AdamW: a twentieth of the steps warms up, half a cosine follows."""
    warm = max(1, steps // 20)
    schedule = ek.optim.schedules.WarmUp(ek.optim.schedules.Cosine(rate, steps - warm), warm)
    opt = ek.optim.AdamW(network, lr=schedule, beta2=0.99, weight_decay=0.1, clip_global_norm=1.0)

    @ek.compile
    def step(x: Any, y: Any) -> Any:
        loss, grads = ek.value_and_grad(lambda: nn.cross_entropy(network(x), y), network)()
        opt.step(grads)
        return loss

    return step


def write(network: Network, start: Array, count: int, temperature: float) -> Array:
    """So many characters that may follow `start`, which is as long as the context."""

    def step(window: Any, _: Any) -> tuple[Any, Any]:
        following = ek.random.categorical(network(window)[-1] / temperature)
        return ek.concat([window[1:], following.reshape((1,))]), following

    return ek.compile(lambda start: ek.scan(step, start, length=count)[1])(start).numpy()


def plot(losses: list[float], validation: dict[int, float], path: Path) -> None:
    """Save the loss of each step, its running mean, and that on held-out files."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    span = max(1, len(losses) // 50)
    smooth = np.convolve(losses, np.ones(span) / span, "valid")
    axes.plot(losses, color="C0", alpha=0.25, linewidth=0.8)
    axes.plot(np.arange(len(smooth)) + span // 2, smooth, color="C0", label="training")
    axes.plot(*zip(*validation.items()), "o-", color="C1", label="held-out files")
    axes.set(xlabel="step", ylabel="nats per character", ylim=(1, 4))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--steps", type=int, default=1500)
    add("--batch", type=int, default=16, help="stretches of text in one step")
    add("--context", type=int, default=128, help="characters that the network sees")
    add("--width", type=int, default=128, help="32 for each head of the attention")
    add("--layers", type=int, default=4)
    add("--lr", type=float, default=3e-3, help="learning rate after the warm-up")
    add("--temperature", type=float, default=0.8, help="of what is written; less is safer")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=2, help="for one step")
    add("--out", metavar="DIR", type=Path, default=Path(), help="save the picture there")
    add("--quick", action="store_true", help="100 steps of a small network")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.width, args.layers, args.context = 100, 64, 2, 64
    return args


def main() -> None:
    """Train, write, and save the loss curve."""
    args = arguments()
    ek.random.seed(args.seed)
    codes, held_out, alphabet = load()
    network = Network(len(alphabet), args.width, args.layers)
    size = sum(p.size for p in network.parameters())
    print(f"{len(codes):,} characters, {len(held_out):,} held out, {size:,} parameters")
    step = training_step(network, args.steps, args.lr)
    loss_of = ek.compile(lambda x, y: nn.cross_entropy(network(x), y))
    rng = np.random.default_rng(args.seed)
    test = batch(held_out, 128, args.context, np.random.default_rng(1))
    losses: list[float] = []
    validation: dict[int, float] = {}
    start = time.perf_counter()
    with ek.settings(threads=args.threads):
        for k in range(1, args.steps + 1):
            losses.append(float(step(*batch(codes, args.batch, args.context, rng))))
            if k % max(1, args.steps // 10) == 0:
                with ek.no_grad():  # it keeps nothing for a backward pass
                    validation[k] = float(loss_of(*test))
                mean, seconds = np.mean(losses[-20:]), time.perf_counter() - start
                print(f"{k:5}  loss {mean:.3f}  held-out {validation[k]:.3f}  {seconds:.0f} s")
        written = write(network, held_out[: args.context], 500, args.temperature)
    print("Written:\n" + "".join(alphabet[k] for k in written).replace("\t", "    "))
    plot(losses, validation, args.out / "characters.png")


if __name__ == "__main__":
    main()
