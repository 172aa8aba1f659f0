"""Starts one process for each peer and lets them take turns: A B C, A B C, ...

Every peer of a round runs under the same conditions, so ratios are formed within a round. The
others wait for a line on a pipe meanwhile. A turn during which something else used the machine is
taken again.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks import reference
from benchmarks.peers import by_numpy
from benchmarks.process import environment, wait_until_quiet
from benchmarks.results import DISTURBED
from benchmarks.workloads import in_float64, make

ROOT = Path(__file__).resolve().parents[1]
SLOW_START = 5.0  # seconds; a peer that needs more to its first result is started once
TURNS = 3  # how often a disturbed turn is taken at most
BUILD_TIMEOUT, ROUND_TIMEOUT = 600.0, 300.0


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure.

    Attributes:
        rounds: turns of every peer.
        seconds: the length of one.
        starts: fresh processes of a peer, for the time to the first result.
        patience: seconds to wait for a quiet machine before a turn; 0 also accepts disturbed turns.
        checked: how many first losses are compared with the reference.
        tiny: the workloads' small sizes, for tests.
    """

    rounds: int = 7
    seconds: float = 0.5
    starts: int = 3
    patience: float = 10.0
    checked: int = 6
    tiny: bool = False


class Process:
    """A worker, and the pipe to it."""

    def __init__(self, peer: str, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        self._errors = tempfile.TemporaryFile("w+")
        command = [sys.executable, "-m", "benchmarks.worker"]
        self._process = subprocess.Popen(
            [*command, "--peer", peer, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment(threads, self._folder.name),
        )

    def ask(self, timeout: float, **question: Any) -> dict[str, Any]:
        """The worker's answer; it has "error" when there is none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": self._last_words()}
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        if not ready:
            self._process.kill()
            return {"error": f"no answer in {timeout:g} s"}
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": self._last_words()}

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"the process ended: {lines[-1] if lines else 'no message'}"[:1000]

    def close(self) -> None:
        """End the worker and remove its caches."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(5)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()


@lru_cache
def reference_losses(name: str, plan: Plan) -> list[float] | None:
    """The first losses in float64; None when the reference has no such model."""
    workload = in_float64(make(name, tiny=plan.tiny))
    if workload.model in reference.TRAINED:
        running = by_numpy.train(workload, reference.TRAINED[workload.model])
    elif workload.model in by_numpy.MODELS:
        running = by_numpy.build(workload, "", 1)
    else:
        return None
    losses: list[float] = []
    for _ in range(plan.checked):
        running.step()
        losses.append(running.loss())
    return losses


class Group:
    """The peers on some workloads that share processes."""

    def __init__(self, names: Sequence[str], peers: Sequence[str], threads: int, plan: Plan):
        self.names, self.peers, self.threads, self.plan = list(names), list(peers), threads, plan
        self.processes: dict[str, Process] = {}
        self.found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in self.names}

    def measure(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What each peer answered: workload -> peer -> facts, with "rounds"."""
        starts = self.plan.starts if len(self.names) == 1 else 1
        try:
            for left in reversed(range(starts)):
                for peer in self.peers:
                    if peer not in self.processes:
                        self._start(peer, last=left == 0)
            for _ in range(self.plan.rounds):
                for name in self.names:
                    for peer in self.processes:
                        self._turn(name, peer)
        finally:
            for process in self.processes.values():
                process.close()
        return self.found

    def _start(self, peer: str, last: bool) -> None:
        """Start a process of the peer; keep the last one, or the first if starting takes long."""
        if any("error" in self.found[name].get(peer, {}) for name in self.names):
            return
        wait_until_quiet(self.plan.patience)
        process = Process(peer, self.threads)
        facts = [self._build(process, peer, name) for name in self.names]
        useful = [each for each in facts if "rounds" in each]
        if useful and (last or useful[0]["all_cold_s"][-1] > SLOW_START):
            self.processes[peer] = process
        else:
            process.close()

    def _build(self, process: Process, peer: str, name: str) -> dict[str, Any]:
        """Have a workload set up; the times of earlier starts stay beside the new ones."""
        question = {"workload": name, "tiny": self.plan.tiny, "checked": self.plan.checked}
        facts = process.ask(BUILD_TIMEOUT, do="build", **question)
        if "cold_s" in facts:
            earlier = self.found[name].get(peer, {})
            for key in ("cold_s", "import_s"):
                facts[f"all_{key}"] = [*earlier.get(f"all_{key}", []), facts.pop(key)]
            facts["rounds"] = []
        self.found[name][peer] = facts
        return facts

    def _turn(self, name: str, peer: str) -> None:
        """One round of one peer; taken again while something else uses the machine."""
        facts = self.found[name][peer]
        if "rounds" not in facts or "error" in facts:
            return
        question = {"do": "round", "workload": name, "seconds": self.plan.seconds}
        turns: list[dict[str, Any]] = []
        for _ in range(TURNS):
            wait_until_quiet(self.plan.patience)
            reply = self.processes[peer].ask(ROUND_TIMEOUT, **question)
            if "error" in reply:
                facts["error"] = reply["error"]
                return
            turns.append(reply)
            if not self.plan.patience or (reply["others"] or 0.0) < DISTURBED:
                break
        facts["rounds"].append(min(turns, key=lambda turn: turn["others"] or 0.0))
