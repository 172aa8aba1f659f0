"""Native objects: LLVM text in, object code and addresses out.

One object per kernel, compiled without a pass manager and loaded for the rest of the process into
one ORC LLJIT with JITLink. An object has no undefined symbols, so it can be stored and loaded in
any process with the same features. Keys are made of features and never of the CPU's name, which
LLVM gets wrong on some hosts.
"""

# llvmlite has no type information: what it returns is annotated where it enters.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
import os
import struct
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache

import llvmlite.binding as llvm

from einkorn.ir.errors import EinkornError, IRError

# Measured on an AVX-512 Xeon at levels 0, 1 and 2. An elementwise loop with a masked tail and an
# FMA chain of 12 compiles in 1.9, 3.7 and 3.8 ms and takes 1.18, 1.00 and 1.00 times as long to
# run; a 14 x 32 matmul tile in 1.6, 4.2 and 4.1 ms and 3.3, 1.0 and 1.0 times. Level 0 keeps
# accumulators in memory; level 1 compiles no faster than 2, and without a pass manager 3 is 2.
OPT_LEVEL = 2

MSG_OLD_CPU = (
    "einkorn compiles for CPUs with AVX2, FMA and F16C (x86-64 since 2013) or NEON (AArch64); "
    "this CPU ({triple}) has no {missing}"
)


@dataclass(frozen=True, slots=True)
class Features:
    """What code is compiled for.

    Attributes:
        name: the level: "avx512", "avx2" or "neon".
        triple: LLVM's target triple.
        flags: LLVM's feature string, all that the level turns on and nothing else of the host's.
        lanes: float32 lanes of a vector register.
        registers: how many vector registers there are.
    """

    name: str
    triple: str
    flags: str
    lanes: int
    registers: int


# The native half-precision extensions stay off: AVX512-BF16 flushes subnormal numbers and
# AVX512-FP16 and FullFP16 would make the bits of half types depend on the host.
_AVX2 = ("avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "popcnt", "movbe")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
LEVELS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "avx512": (_AVX512, 16, 32),
    "avx2": (_AVX2, 8, 16),
    "neon": (("neon",), 4, 32),
}

_lock = threading.RLock()
_addresses: dict[tuple[str, tuple[str, ...]], tuple[int, ...]] = {}
_forking = ExitStack()


def features_of(name: str, triple: str | None = None) -> Features:
    """The level `name` of `LEVELS`, for this process's triple unless another is given."""
    needs, lanes, registers = LEVELS[name]
    flags = ",".join(f"+{feature}" for feature in needs)
    return Features(name, triple or llvm.get_process_triple(), flags, lanes, registers)


@lru_cache(maxsize=1)
def host_features() -> Features:
    """The best level that this CPU can run."""
    with _lock:
        triple = llvm.get_process_triple()
        if triple.startswith(("aarch64", "arm64")):
            return features_of("neon", triple)  # part of the base architecture
        has: dict[str, bool] = llvm.get_host_cpu_features()
    missing = [feature for feature in _AVX2 if not has.get(feature, False)]
    if missing:
        raise EinkornError(MSG_OLD_CPU.format(triple=triple, missing=", ".join(missing).upper()))
    wide = all(has.get(feature, False) for feature in _AVX512)
    return features_of("avx512" if wide else "avx2", triple)


def object_key(text: str, features: Features | None = None) -> str:
    """The address of a kernel's object in any cache: LLVM's version, the features and the text."""
    features = features or host_features()
    numbers: tuple[int, ...] = llvm.llvm_version_info
    version = ".".join(map(str, numbers))
    head = f"{version} {OPT_LEVEL} {features.triple} {features.flags}\n"
    return hashlib.sha256((head + text).encode()).hexdigest()


def compile_object(text: str, features: Features | None = None) -> bytes:
    """Compile a module into an object file without undefined symbols."""
    with _lock:
        machine = _machine(features or host_features())
        with _parse(text, machine) as module:
            data = machine.emit_object(module)
    undefined = [name for name in _undefined(data) if name != "_GLOBAL_OFFSET_TABLE_"]
    if undefined:
        raise IRError(
            f"the object would call functions outside it: {', '.join(undefined)}; "
            "emit the code inline or pass its address"
        )
    return data


def assembly(text: str, features: Features | None = None) -> str:
    """The assembly of a module, for people."""
    with _lock:
        machine = _machine(features or host_features())
        with _parse(text, machine) as module:
            return machine.emit_assembly(module)


def load(text: str, symbol: str) -> int:
    """Compile a module for this host and give the address of one of its functions."""
    return load_all(text, (symbol,))[0]


def load_all(text: str, symbols: tuple[str, ...]) -> tuple[int, ...]:
    """Compile a module for this host and give the addresses of some of its functions."""
    key = object_key(text)
    known = _addresses.get((key, symbols))
    if known is not None:
        return known
    with _lock:
        known = _addresses.get((key, symbols))
        return known or load_object(compile_object(text), symbols, key)


def load_object(data: bytes, symbols: tuple[str, ...], key: str) -> tuple[int, ...]:
    """Load an object that was compiled before, under the `object_key` of its text."""
    with _lock:
        known = _addresses.get((key, symbols))
        if known is not None:
            return known
        builder = llvm.JITLibraryBuilder().add_object_img(data)
        for symbol in symbols:
            builder.export_symbol(symbol)
        try:
            tracker = builder.link(_jit(), ".".join((key, *symbols)))
        except RuntimeError as error:
            raise IRError(f"cannot load {', '.join(symbols)}: {error}") from None
        addresses = tuple(int(tracker[symbol]) for symbol in symbols)
        tracker.detach()  # never unloaded: a sleeping thread may be inside it until the very end
        _addresses[key, symbols] = addresses
        return addresses


@lru_cache
def _machine(features: Features) -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(features.triple)
    return target.create_target_machine(
        features=features.flags, opt=OPT_LEVEL, reloc="pic", codemodel="small"
    )


@lru_cache(maxsize=1)
def _jit() -> llvm.LLJIT:
    return llvm.create_lljit_compiler(_machine(host_features()), use_jit_link=True)


def _parse(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise IRError(f"LLVM refused a kernel: {error}") from None
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    return module


def _undefined(data: bytes) -> Iterable[str]:
    """The undefined symbols of an ELF object; other formats are only checked when linked."""
    if data[:4] != b"\x7fELF":
        return
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    for section in range(table, table + size * count, size):
        kind, _, _, start, length, strings = struct.unpack_from("<IQQQQI", data, section + 4)
        if kind != 2:  # SHT_SYMTAB
            continue
        (names,) = struct.unpack_from("<Q", data, table + size * strings + 0x18)
        for symbol in range(start + 24, start + length, 24):  # the first one is empty
            name, _, _, home = struct.unpack_from("<IBBH", data, symbol)
            if home == 0:
                first = names + name
                yield data[first : data.index(b"\0", first)].decode()


def _before_fork() -> None:
    # A child has only the thread that forked: a lock that another thread held stays locked for
    # ever. llvmlite's own lock can be held without ours (Numba, disposal by the collector).
    _lock.acquire()
    inner = getattr(llvm.ffi.lib, "_lock", None)
    if inner is not None:
        _forking.enter_context(inner)


def _after_fork() -> None:
    _forking.close()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
