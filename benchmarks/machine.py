"""What the machine can do, measured with NumPy in a process of its own: `limits(threads)`.

copy     bytes read and written by copying 128 MiB, and 4 MiB (in the cache), GB/s
matmul   float32 products of square matrices by NumPy's BLAS, GFLOP/s
exp      NumPy's vectorised exp on float32 in the cache, G elements/s
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.process import cpu_model, environment, stay_on

ROOT = Path(__file__).resolve().parents[1]
COPIED = {"copy": 128 * 2**20, "cached_copy": 4 * 2**20}  # bytes, of all threads together
CACHED = 2**18  # float32 elements for each thread: 1 MiB in, 1 MiB out
SECONDS = 0.4


def facts() -> dict[str, Any]:
    """The machine and the Python that runs here."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": cpu_model(),
        "cpus": cpus,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _median_seconds(action: Callable[[], object]) -> float:
    action()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _together(threads: int, actions: list[Callable[[], object]]) -> float:
    """Seconds of all actions at once, one a thread; NumPy releases the GIL in each of them."""
    if threads == 1:
        return _median_seconds(actions[0])
    with ThreadPoolExecutor(threads) as pool:
        return _median_seconds(lambda: list(pool.map(lambda action: action(), actions)))


def _repeated(function: Callable[..., object], size: int, repeats: int) -> Callable[[], object]:
    """`function(source, target)` on arrays of that many float32, several times."""
    source = np.linspace(-4, 4, size, dtype=np.float32)
    target = np.ones_like(source)

    def action() -> None:
        for _ in range(repeats):
            function(source, target)

    return action


def measure(threads: int) -> dict[str, float]:
    """The limits, in this process."""
    found: dict[str, float] = {}
    for name, nbytes in COPIED.items():
        size, repeats = nbytes // 4 // threads, COPIED["copy"] // nbytes
        copies = [_repeated(lambda s, t: np.copyto(t, s), size, repeats) for _ in range(threads)]
        seconds = _together(threads, copies)
        found[f"{name}_gbs"] = 2 * nbytes * repeats / seconds / 1e9
    for n in (512, 2048):
        a, b = (np.random.default_rng(k).standard_normal((n, n), np.float32) for k in range(2))
        out = np.empty_like(a)
        seconds = _median_seconds(lambda a=a, b=b, out=out: np.matmul(a, b, out=out))
        found[f"matmul{n}_gflops"] = 2 * n**3 / seconds / 1e9
    seconds = _together(threads, [_repeated(np.exp, CACHED, 16) for _ in range(threads)])
    found["exp_gs"] = CACHED * 16 * threads / seconds / 1e9
    return found


def limits(threads: int) -> dict[str, float]:
    """The limits on so many threads, from a fresh process."""
    command = [sys.executable, "-m", "benchmarks.machine", "--threads", str(threads)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(threads, folder),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    return json.loads(done.stdout)


def main() -> None:
    """Print the limits as JSON."""
    parser = argparse.ArgumentParser(description="Measure the machine with NumPy")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    stay_on(args.threads)
    print(json.dumps(measure(args.threads)))


if __name__ == "__main__":
    main()
