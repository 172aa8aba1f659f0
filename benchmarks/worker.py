"""The process of one peer: sets up workloads and takes samples when the driver asks.

One JSON object a line, from standard input and to standard output:

    {"do": "build", "workload": "W1", "tiny": false, "checked": 6}
    {"do": "round", "workload": "W1", "seconds": 0.5}

An answer has "error" when the peer failed. Between two questions the process waits and uses no CPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from typing import Any, TextIO

from benchmarks.peers import PEERS, Running
from benchmarks.process import machine_cpu, own_cpu, page_faults, peak_mb, stay_on

SAMPLE = 0.005  # seconds; shorter steps are timed many at once
CALIBRATION = 0.05
MOST_AT_ONCE = 5000
LEAST_SAMPLES = 5


class Worker:
    """One peer with the workloads that it has set up."""

    def __init__(self, peer: str, threads: int) -> None:
        stay_on(threads)
        self._threads, self._entry = threads, PEERS[peer]
        start = time.perf_counter()
        self._peer = importlib.import_module(f"benchmarks.peers.{self._entry.module}")
        self._import_s = time.perf_counter() - start
        self._import_mb = peak_mb()
        self._running: dict[str, tuple[Running, int]] = {}

    def build(self, name: str, tiny: bool, checked: int) -> dict[str, Any]:
        """Set a workload up, take its first steps, and find how many make a sample."""
        workloads = importlib.import_module("benchmarks.workloads")
        workload = workloads.make(name, tiny=tiny)
        if workload.model not in self._peer.MODELS or workload.task not in self._entry.tasks:
            return {"unsupported": workload.model}
        start = time.perf_counter()
        running: Running = self._peer.build(workload, self._entry.mode, self._threads)
        losses: list[float] = []
        cold = 0.0
        for _ in range(checked):
            running.step()
            running.sync()
            losses.append(running.loss())
            cold = cold or time.perf_counter() - start
        count = 1 if workload.task == "infer" else self._steps_in_a_sample(running)
        self._running[name] = running, count
        return {
            "version": self._peer.VERSION,
            "import_s": self._import_s,
            "import_mb": self._import_mb,
            "cold_s": cold,
            "losses": losses,
            "steps_in_a_sample": count,
            "peak_mb": peak_mb(),
        }

    @staticmethod
    def _steps_in_a_sample(running: Running) -> int:
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < CALIBRATION and steps < MOST_AT_ONCE:
            running.step()
            running.sync()
            steps += 1
        each = (time.perf_counter() - start) / steps
        return max(1, min(MOST_AT_ONCE, round(SAMPLE / each)))

    def round(self, name: str, seconds: float) -> dict[str, Any]:
        """Samples in seconds per step, and what else the machine did meanwhile."""
        running, count = self._running[name]
        step, sync, clock = running.step, running.sync, time.perf_counter
        for _ in range(max(2, count)):  # another peer had the caches
            step()
        sync()
        samples: list[float] = []
        everyone, mine, faults, start = machine_cpu(), own_cpu(), page_faults(), clock()
        while clock() - start < seconds or len(samples) < LEAST_SAMPLES:
            before = clock()
            for _ in range(count):
                step()
            sync()
            samples.append((clock() - before) / count)
        wall, mine, faults = clock() - start, own_cpu() - mine, page_faults() - faults
        now = machine_cpu()
        others = None if everyone is None or now is None else max(0.0, now - everyone - mine) / wall
        return {
            "samples": samples,
            "cpus": mine / wall,
            "others": others,
            "faults": faults / (count * len(samples)),
            "peak_mb": peak_mb(),
        }

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """The reply to one line."""
        name = question["workload"]
        if question["do"] == "build":
            return self.build(name, question["tiny"], question["checked"])
        return self.round(name, question["seconds"])


def _own_output() -> TextIO:
    """Standard output for the answers alone; what libraries print goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return channel


def main() -> None:
    """Answer until standard input ends."""
    parser = argparse.ArgumentParser(description="The process of one peer; see benchmarks.drive")
    parser.add_argument("--peer", required=True, choices=PEERS)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    channel = _own_output()
    worker = None
    for line in sys.stdin:
        try:
            worker = worker or Worker(args.peer, args.threads)
            reply = worker.answer(json.loads(line))
        except Exception as error:  # whatever a framework raises is a result of this peer
            reply = {"error": f"{type(error).__name__}: {error}"[:1000]}
        channel.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
