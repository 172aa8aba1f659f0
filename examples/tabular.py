"""A small network beside gradient boosting and a linear model on tables, cross-validated.

python examples/tabular.py               ten folds of three data sets
python examples/tabular.py --quick       three folds
python examples/tabular.py --seed 1      other folds and first weights

All see the same folds, and none learns anything from what it is tested on: columns are scaled by
the other folds, and the network stops early by a part of these.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import KFold, StratifiedKFold

import einkorn as ek

Array = np.ndarray[Any, Any]
nn = ek.nn

SETS = {"breast cancer": load_breast_cancer, "wine": load_wine, "diabetes": load_diabetes}
MODELS = ("linear", "gradient boosting", "einkorn")


def network(x: Array, y: Array, tested: Array, epochs: int) -> Array:
    """Predictions of a network for rows of which it learns nothing.

    Integers y are classes. The last tenth of the rows, which are in random order, tells when to
    stop.
    """
    classes = y.max() + 1 if y.dtype.kind == "i" else 0
    net = nn.Sequential(
        nn.Linear(64), nn.SiLU(), nn.Dropout(0.3),
        nn.Linear(64), nn.SiLU(), nn.Dropout(0.3),
        nn.Linear(int(classes or 1)),
    )  # fmt: skip
    net.build(x[:1])
    model = ek.Model(
        net,
        loss=nn.CrossEntropyLoss() if classes else nn.MSELoss(),
        optimizer=ek.optim.AdamW(net, lr=3e-3, weight_decay=0.1),
    )
    stop = ek.callbacks.EarlyStopping(patience=20, restore_best_weights=True)
    targets = y if classes else y[:, np.newaxis]
    model.fit(x, targets, epochs=epochs, validation_split=0.1, callbacks=stop, verbose=0)
    outputs = model.predict(tested)
    return outputs.argmax(axis=1) if classes else outputs[:, 0]


def predictions(name: str, x: Array, y: Array, tested: Array, args: argparse.Namespace) -> Array:
    """What a model that learns from x and y says about other rows."""
    if name == "einkorn":
        return network(x, y, tested, args.epochs)
    if y.dtype.kind == "i":
        boosting, linear = GradientBoostingClassifier, LogisticRegression()
    else:
        boosting, linear = GradientBoostingRegressor, RidgeCV(np.logspace(-2, 3, 20))
    model = linear if name == "linear" else boosting(random_state=args.seed)
    return model.fit(x, y).predict(tested)


def cross_validate(name: str, args: argparse.Namespace) -> dict[str, list[float]]:
    """The score of each model for each fold: accuracy, or R2 where y is continuous."""
    x, y = SETS[name](return_X_y=True)
    classify = y.dtype.kind == "i"
    folds = 3 if args.quick else args.folds
    splitter = (StratifiedKFold if classify else KFold)(folds, shuffle=True, random_state=args.seed)
    order = np.random.default_rng(args.seed).permutation(len(x))
    x, y = x[order], y[order]
    scores: dict[str, list[float]] = {model: [] for model in MODELS}
    for learnt, tested in splitter.split(x, y):
        mean, scale = x[learnt].mean(axis=0), x[learnt].std(axis=0)
        rows = ((x - mean) / scale).astype(np.float32)
        targets = y if classify else ((y - y[learnt].mean()) / y[learnt].std()).astype(np.float32)
        for model in MODELS:
            found = predictions(model, rows[learnt], targets[learnt], rows[tested], args)
            score = accuracy_score if classify else r2_score
            scores[model].append(float(score(targets[tested], found)))
    return scores


def plot(results: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Save the scores of all folds and their means, a panel for each data set."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for place, (name, scores) in zip(figure.subplots(1, len(results)), results.items()):
        folds = np.array(list(scores.values()))
        place.plot(range(len(MODELS)), folds, color="0.8", marker="o", markersize=4)
        place.errorbar(
            range(len(MODELS)), folds.mean(axis=1), error(folds), fmt="D", color="C3", capsize=6
        )
        place.set(xticks=range(len(MODELS)), xlim=(-0.4, len(MODELS) - 0.6), title=name)
        place.set_xticklabels([model.replace(" ", "\n") for model in MODELS])
        place.set_ylabel("R²" if name == "diabetes" else "accuracy")
    figure.suptitle("Grey: one fold. Red: mean and its standard error")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def error(scores: Any) -> Any:
    """The standard error of the mean over folds, as if these were independent."""
    return np.std(scores, axis=-1, ddof=1) / np.sqrt(np.shape(scores)[-1])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--folds", type=int, default=10)
    add("--epochs", type=int, default=200, help="at most, of the network")
    add("--seed", type=int, default=0, help="of the folds and the models")
    add("--threads", type=int, default=1, help="for one step; these are too short for more")
    add("--quick", action="store_true", help="three folds")
    add("--out", metavar="DIR", type=Path, default=Path(), help="save the picture there")
    return parser.parse_args()


def main() -> None:
    """Cross-validate, print a table and save the picture."""
    args = arguments()
    ek.random.seed(args.seed)
    results: dict[str, dict[str, list[float]]] = {}
    print(f"{'':16}", *(f"{model:>20}" for model in MODELS))
    for name in SETS:
        start = time.perf_counter()
        with ek.settings(threads=args.threads):
            scores = results[name] = cross_validate(name, args)
        cells = (f"{np.mean(x):>12.3f} ± {error(x):.3f}" for x in scores.values())
        print(f"{name:16}", *cells, f"  {time.perf_counter() - start:.0f} s")
    plot(results, args.out / "tabular.png")


if __name__ == "__main__":
    main()
