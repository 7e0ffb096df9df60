"""What this computer has and how much of it is free right now."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_INSTRUCTION_SETS = ("amx_int8", "avx512_vnni", "avx512f", "avx2", "avx", "asimddp", "asimd", "sse4_2")
_BUSY_SAMPLE_S = 0.1


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of main memory."""

    total: int
    free: int
    """What a new process can have without pushing others out."""


@cache
def cores() -> int:
    """Physical cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable))


def busy_cores(seconds: float | None = None) -> float:
    """How many cores are at work: over `seconds` from now, or (None) since the last call."""
    return sum(psutil.cpu_percent(interval=seconds, percpu=True)) / 100


def threads_to_use() -> int:
    """Physical cores less what is busy, at least one. Takes a tenth of a second.

    Never more: llama.cpp's threads spin while they wait for each other, and on a busy core they wait long.
    """
    return max(1, cores() - math.floor(busy_cores(_BUSY_SAMPLE_S) + 0.5))


def memory() -> Memory:
    """Main memory, or what the control group of this process is allowed of it."""
    system = psutil.virtual_memory()
    total, free = system.total, system.available
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return Memory(total, free)
    return Memory(min(total, limit), min(free, max(0, limit - used)))


@cache
def processor() -> str:
    """The name of the processor, as its maker calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def instruction_set() -> str:
    """The widest vector instructions of the processor that llama.cpp has kernels for."""
    try:
        flags = next(
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features"))
        ).split()
    except (OSError, StopIteration):
        return "NEON" if platform.machine().lower() in ("arm64", "aarch64") else platform.machine()
    names = {"asimd": "NEON", "asimddp": "NEON dot product", "avx512f": "AVX-512", "avx512_vnni": "AVX-512 VNNI"}
    found = next((name for name in _INSTRUCTION_SETS if name in flags), platform.machine())
    return names.get(found, found.upper().replace("_", " "))
