"""Kernels that keep rows on the stack, in threads whose stack is small."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import threading
import numpy as np
import einkorn as ek

step = ek.compile(lambda x: ek.nn.softmax(ek.nn.softmax(x) * ek.tanh(x)))
x = np.random.default_rng(0).standard_normal((64, {n}))
found = []

def run():
    with ek.settings(threads=1):
        found.append(np.asarray(step(x)))

run()
threading.stack_size(131072)
thread = threading.Thread(target=run)
thread.start()
thread.join()
assert np.array_equal(*found)
print("equal")
"""


def test_rows_kept_on_the_stack_fit_into_a_small_one() -> None:
    for n in (1024, 4096, 8192):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(n=n)], capture_output=True, text=True, timeout=120
        )
        assert done.stdout == "equal\n", (n, done.returncode, done.stderr)
