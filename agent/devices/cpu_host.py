"""What Linux reports of this host: processor, cores, caches, memory, interruptions."""

from __future__ import annotations

import os
import platform
import resource
import uuid
from pathlib import Path

DEFAULT_CACHE_BYTES = 32 * 2**20
"""Where the kernel lists no caches."""
CACHE_UNITS = {"K": 2**10, "M": 2**20}


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    """The processor's name and the number of cores."""
    return f"{_model_name()} ({core_count()} cores)"


def machine_id() -> str:
    """The same after every restart."""
    path = Path("/etc/machine-id")
    text = path.read_text().strip() if path.exists() else ""
    return text or f"{uuid.getnode():012x}"


def last_level_cache_bytes() -> int:
    """The largest cache of core 0."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text.rstrip("KM")) * CACHE_UNITS.get(text[-1], 1))
    return max(sizes, default=DEFAULT_CACHE_BYTES)


def memory_bytes() -> int:
    """Memory of the host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int:
    """Memory that can be taken without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def preemptions() -> int:
    """How often the kernel took a core away from this process, since it began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _model_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
