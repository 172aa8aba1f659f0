"""An LSTM that learns to colour Python: for each character, is it a name, a keyword, a string...?

python examples/lstm.py               train, and draw a held-out piece of source in its colours
python examples/lstm.py --quick       a few files only
python examples/lstm.py --forward     read from left to right only, as an editor would

It reads sources of the standard library, and the module `tokenize` tells the truth. A character by
itself says little: a letter in a string looks like one in a name.
"""

import argparse
import io
import keyword
import sysconfig
import time
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import einkorn as ek

Array = np.ndarray[Any, Any]
nn = ek.nn

KINDS = {
    "space": "0.8",
    "name": "black",
    "keyword": "tab:blue",
    "operator": "tab:brown",
    "number": "tab:purple",
    "string": "tab:green",
    "comment": "tab:gray",
}


def kind(token: tokenize.TokenInfo) -> str:
    """What kind of token it is: a key of KINDS."""
    name = tokenize.tok_name[token.type].lower()
    if name == "name":
        return "keyword" if keyword.iskeyword(token.string) else "name"
    if "string" in name:  # parts of f-strings are tokens of their own in newer versions
        return "string"
    return {"op": "operator", "number": "number", "comment": "comment"}.get(name, "space")


def read(path: Path) -> tuple[Array, Array]:
    """The characters of a file as numbers below 128, and the kind of each."""
    text = path.read_text(encoding="utf-8")
    starts = np.cumsum([0, 0, *(len(line) for line in text.splitlines(keepends=True))])
    kinds = np.zeros(len(text), np.int64)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        (row, column), (end_row, end_column) = token.start, token.end
        kinds[starts[row] + column : starts[end_row] + end_column] = list(KINDS).index(kind(token))
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return np.minimum(characters, 127).astype(np.int64), kinds


def windows(files: list[Path], length: int) -> tuple[Array, Array]:
    """Files cut into rows of so many characters, and their kinds."""
    pairs = [read(path) for path in files]
    rows = [[x[: len(x) // length * length].reshape(-1, length) for x in pair] for pair in pairs]
    return np.concatenate([x for x, _ in rows]), np.concatenate([y for _, y in rows])


def draw(text: Array, truth: Array, guesses: Array, path: Path, rows: int = 34) -> None:
    """Save lines around some mistake in the colours of `guesses`, with boxes around mistakes."""
    wrong = np.flatnonzero(truth != guesses)
    begin = max(0, wrong[len(wrong) // 3] - 600)
    begin += text[begin:].tolist().index(ord("\n")) + 1
    place = (figure := Figure(figsize=(7.4, 6.6), layout="constrained")).subplots()
    place.set(xlim=(0, 90), ylim=(rows, -1))
    place.axis("off")
    place.set_title("Held-out source in the colours of the LSTM; red boxes where it is wrong")
    row = column = 0
    for character, true, guess in zip(text[begin:], truth[begin:], guesses[begin:]):
        box = {"facecolor": "mistyrose", "edgecolor": "red", "linewidth": 0.5, "pad": 0.4}
        weight = "bold" if guess == list(KINDS).index("keyword") else "normal"
        style = {"color": list(KINDS.values())[guess], "weight": weight, "family": "monospace"}
        mark = None if guess == true else box
        place.text(column, row, chr(character).strip() or " ", style, fontsize=9, bbox=mark)
        row, column = (row + 1, 0) if character == ord("\n") else (row, column + 1)
        if row == rows:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def report(x: Array, y: Array, counts: Array, guesses: Array) -> None:
    """Print the share of each kind that is right, beside the most frequent kind of a character."""
    baseline = counts.argmax(axis=1)[x]
    print(f"{'kind':10}{'share':>8}{'by character':>14}{'LSTM':>8}")
    for k, name in enumerate(KINDS):
        of_kind = y == k
        shares = (of_kind.mean(), *((found[of_kind] == k).mean() for found in (baseline, guesses)))
        print("{:10}{:8.1%}{:14.1%}{:8.1%}".format(name, *shares))
    print(f"{'all':10}{1:8.1%}{(baseline == y).mean():14.1%}{(guesses == y).mean():8.1%}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--epochs", type=int, default=5, help="times through the files")
    add("--batch", type=int, default=32, help="windows in one step")
    add("--length", type=int, default=128, help="characters in a window")
    add("--hidden", type=int, default=64, help="units of the LSTM")
    add("--forward", action="store_true", help="only from left to right")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=2, help="for one step")
    add("--quick", action="store_true", help="few files, two epochs")
    add("--out", metavar="DIR", type=Path, default=Path(), help="save the picture there")
    return parser.parse_args()


def main() -> None:
    """Train, compare with a baseline, and save the picture."""
    args = arguments()
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    held_out_x, held_out_y = windows(files[1 :: 50 if args.quick else 10], args.length)
    x, y = windows(files[:: 30 if args.quick else 3], args.length)
    ek.random.seed(args.seed)
    lstm = nn.LSTM(args.hidden, bidirectional=not args.forward)
    net = nn.Sequential(nn.Embedding(128, 32), lstm, nn.Linear(len(KINDS)))
    model = ek.Model(
        net,
        loss=nn.CrossEntropyLoss(),
        metrics=[ek.metrics.Accuracy()],
        optimizer=lambda net: ek.optim.Adam(net, lr=5e-3, clip_global_norm=1.0),
    )
    start = time.perf_counter()
    options = {"batch_size": args.batch, "epochs": 2 if args.quick else args.epochs}
    with ek.settings(threads=args.threads):
        model.fit(x, y, validation_data=(held_out_x, held_out_y), **options)
        guesses = model.predict(held_out_x).argmax(axis=-1)
    print(
        f"{x.size:,} characters, {held_out_x.size:,} held out, {time.perf_counter() - start:.0f} s"
    )
    counts = np.zeros((128, len(KINDS)))
    np.add.at(counts, (x, y), 1)
    report(held_out_x, held_out_y, counts, guesses)
    draw(held_out_x.ravel(), held_out_y.ravel(), guesses.ravel(), args.out / "lstm.png")


if __name__ == "__main__":
    main()
