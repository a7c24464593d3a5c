"""The kernel configuration: the kernel family that computes a GEMM, and its knobs.

A knob that a family does not have, or that its library does not reveal, is 0 ("unknown"). Every
family reads only its own knobs. Knows no kernel and no library.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Final
from urllib.parse import quote, unquote

from gemmcast.errors import InputError


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """Where a kernel family runs and what it multiplies."""

    device_kind: str
    """`cuda` or `cpu`."""
    dtypes: tuple[str, ...]
    """Some of gemmcast.gemm.DTYPES."""


FAMILIES: Final = {
    "blas": FamilyFacts("cpu", ("fp32", "fp64")),
    "tiled": FamilyFacts("cuda", ("fp32",)),
    "cublas": FamilyFacts("cuda", ("fp32", "tf32", "fp16", "bf16", "fp64")),
    "cutlass": FamilyFacts("cuda", ("fp32", "tf32", "fp16", "bf16", "fp8_e4m3")),
    "cublaslt": FamilyFacts("cuda", ("fp32", "tf32", "fp16", "bf16", "fp8_e4m3", "int8")),
    "custom": FamilyFacts("cuda", ("fp64", "fp32", "tf32", "fp16", "bf16")),
    "triton": FamilyFacts("cuda", ("fp32", "tf32", "fp16", "bf16", "fp8_e4m3")),
}
"""The order is part of the ONNX contract: append, never reorder."""
TRITON_KERNELS: Final = ("matmul", "scaled_block", "grouped")
"""Triton kernels of our own. The code of one is its place in this list, from 1: append."""
WARP_THREADS: Final = 32
FIELD_KNOBS: Final = {"group_m": ("swizzle", 1), "warps": ("block_threads", WARP_THREADS)}
"""The words of Triton's users for knobs -> the knob, and how much of it one is."""
_MAX_KNOB: Final = 2**24
_MAX_DIGITS: Final = 8
"""Of a number below it."""
_TILE: Final = ("tile_m", "tile_n", "tile_k")
_SAFE: Final = "/:@+"
"""Of a kernel's name, besides letters, digits and `_.-~`: as it is in the text form."""


# Without slots: leases are pickled in half the time.
@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """One way to compute a GEMM. Every knob is a whole number from 0 to 2^24 - 1; 0 is unknown."""

    family: str
    """One of FAMILIES."""
    kernel: str = ""
    """The family's own name of the kernel, free text. The model reads knobs only; those that the
    name of a CUTLASS kernel says are read from it (gemmcast/kernel_names.py)."""
    tile_m: int = 0
    """Tile of one thread block, or of one cache block on a CPU, along m. [elements]"""
    tile_n: int = 0
    """The same along n. [elements]"""
    tile_k: int = 0
    """The same along k. [elements]"""
    warp_m: int = 0
    """Tile of one warp along m. [elements]"""
    warp_n: int = 0
    """The same along n. [elements]"""
    warp_k: int = 0
    """The same along k. [elements]"""
    stages: int = 0
    """Depth of the software pipeline."""
    split_k: int = 0
    """Slices of k that are summed at the end."""
    swizzle: int = 0
    """Rasterisation of thread blocks. Of a Triton kernel `group_m`: rows of tiles that run
    together."""
    cluster_m: int = 0
    """Thread blocks in a cluster along m; sm_90 and newer. [blocks]"""
    cluster_n: int = 0
    """The same along n. [blocks]"""
    algo_id: int = 0
    """The library's own number of the algorithm."""
    block_threads: int = 0
    """Threads of one thread block; 0 on a CPU. Of a Triton kernel 32 x `warps`."""
    cpu_threads: int = 0
    """Threads that a BLAS on a CPU uses; 0 on a GPU."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            way_out = f"use one of {', '.join(FAMILIES)}"
            raise InputError("family", self.family, "unknown kernel family", way_out)
        if type(self.kernel) is not str:
            raise InputError("kernel", self.kernel, "must be a text", "correct the configuration")
        for name in KNOBS:
            value = getattr(self, name)
            # `type` and not `isinstance`: True is an int, too.
            if type(value) is not int or not 0 <= value < _MAX_KNOB:
                rule = f"must be a whole number from 0 (unknown) to {_MAX_KNOB - 1}"
                raise InputError(name, value, rule, "correct the configuration")

    @property
    def threads(self) -> int:
        """Threads that compute: of one block on a GPU, of the whole GEMM on a CPU.

        One of the two knobs is 0.
        """
        return max(self.block_threads, self.cpu_threads)

    def __str__(self) -> str:
        """`FAMILY[:KNOB=VALUE,...]` without what is unknown; `parse` reads it."""
        known = {name: getattr(self, name) for name in KNOBS if getattr(self, name)}
        if self.tile_m and self.tile_m == self.tile_n == self.tile_k:
            for name in _TILE:
                del known[name]
            known = {"tile": self.tile_m, **known}
        words = [f"{name}={value}" for name, value in known.items()]
        if self.kernel:
            words = [f"kernel={quote(self.kernel, safe=_SAFE)}", *words]
        return ":".join([self.family, ",".join(words)]) if words else self.family

    @staticmethod
    def parse(text: str) -> KernelConfig:
        """A configuration from its text; the knob `tile` sets all three tiles.

        `group_m=8` is `swizzle=8`, `warps=4` is `block_threads=128`.

        Examples: `tiled:tile=16`, `blas:kernel=blocked,tile_m=64,tile_n=128,tile_k=64`, `cublas`.
        What a shell or this form would take for something else in a kernel's name is
        percent-encoded.

        Raises:
            InputError: an unknown family or knob, or a value that is no whole number.
        """
        family, _, words = text.partition(":")
        kernel = ""
        numbers: dict[str, int] = {}
        seen: set[str] = set()
        for word in filter(None, words.split(",")):
            name, equals, value = word.partition("=")
            if name in seen:
                raise InputError("config", text, f"{name!r} stands there twice", "leave one out")
            seen.add(name)
            if not equals or name not in (*KNOBS, *FIELD_KNOBS, "kernel", "tile"):
                way_out = f"write family:knob=value,... with knobs kernel, tile, {', '.join(KNOBS)}"
                raise InputError("config", text, f"can't read {word!r}", way_out)
            if name == "kernel":
                kernel = unquote(value)
                continue
            if not value.isdecimal() or len(value) > _MAX_DIGITS:
                rule = f"must be a whole number from 0 (unknown) to {_MAX_KNOB - 1}"
                raise InputError(name, value, rule, "correct the configuration")
            knob, unit = FIELD_KNOBS.get(name, (name, 1))
            names = _TILE if knob == "tile" else (knob,)
            numbers |= dict.fromkeys(names, unit * int(value))
        return KernelConfig(family=family, kernel=kernel, **numbers)


@cache
def library_config(dtype: str, device_kind: str) -> KernelConfig:
    """What the vendor's library launches by itself, its knobs unknown.

    On a GPU that is cuBLAS, and cuBLASLt's default for the dtypes that cuBLAS does not have.
    """
    if device_kind == "cpu":
        return KernelConfig(family="blas")
    if dtype in FAMILIES["cublas"].dtypes:
        return KernelConfig(family="cublas")
    return KernelConfig(family="cublaslt", kernel="default")


KNOBS: Final = tuple(f.name for f in fields(KernelConfig) if f.name not in ("family", "kernel"))
"""Names of the whole numbers of a KernelConfig."""
