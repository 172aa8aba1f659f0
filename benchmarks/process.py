"""What a process can find out about itself and about the machine that it runs on."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "EINKORN_THREADS",
)


def environment(threads: int, folder: str) -> dict[str, str]:
    """The environment of a process on so many threads, whose compilers find empty caches."""
    caches = {
        "XDG_CACHE_HOME": "cache",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "TRITON_CACHE_DIR": "triton",
    }
    return {
        **os.environ,
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        **{name: str(Path(folder) / part) for name, part in caches.items()},
    }


def stay_on(threads: int) -> None:
    """Keep this process on as many CPUs as it has threads: one thread is one CPU."""
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cpus[-threads:])


def cpu_model() -> str:
    """The processor's name."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_mb() -> float:
    """The most memory that this process had; getrusage would count that of its parent, too."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def own_cpu() -> float:
    """The CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def page_faults() -> int:
    """The page faults of this process so far that read nothing from a disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def machine_cpu() -> float | None:
    """The CPU seconds of everything on the machine so far, where the system tells."""
    statistics = Path("/proc/stat")
    if not statistics.exists():
        return None
    fields = [
        int(word) for word in statistics.read_text(encoding="utf-8").split("\n")[0].split()[1:9]
    ]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def wait_until_quiet(patience: float, limit: float = 0.1) -> None:
    """Return when others use less than `limit` CPUs, or when patience, in seconds, is over."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        before, start = machine_cpu(), time.monotonic()
        if before is None:
            return
        time.sleep(0.2)
        after = machine_cpu()
        if after is not None and (after - before) / (time.monotonic() - start) < limit:
            return
