"""Run Triton kernels of the repository in Triton's interpreter, on NumPy arrays; prints the errors.

`python tests/agent/interpreted_triton.py` with TRITON_INTERPRET=1, which Triton reads when it is
imported: hence a process of its own. The interpreter is made for tensors of torch; here a pointer
is the address of an array. Each case is one line of JSON: its name, and the largest error.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import GridExecutor, TensorHandle

from agent.dtypes import narrow, widen
from agent.kernels.triton import read_triton
from agent.kernels.triton.fit import fit
from agent.kernels.triton.routing import Routing
from agent.kernels.triton.scales import BLOCK, ScaleSets
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm

EXAMPLE = "examples/kernels/w8a8_block.toml"
HALF = Gemm(m=37, n=48, k=80, dtype="fp16", layout="nt")
FP8 = Gemm(m=37, n=272, k=400, dtype="fp8_e4m3", layout="nt")
SMALL = {"tile_m": 16, "tile_n": 32, "tile_k": 32}
CASES = [
    (HALF, "matmul", {**SMALL, "swizzle": 2}),
    (replace(HALF, layout="nn"), "matmul", {**SMALL, "swizzle": 1}),
    (replace(HALF, batch=2), "matmul", {**SMALL, "swizzle": 64}),
    (replace(HALF, m=1, k=16), "matmul", {**SMALL, "swizzle": 4}),
    (FP8, "scaled_block", {**SMALL, "tile_k": 64, "swizzle": 2}),
    (FP8, "scaled_block", {**SMALL, "tile_k": 128, "swizzle": 16}),
    (replace(HALF, batch=5), "grouped", {**SMALL, "swizzle": 2}),
    (replace(HALF, m=1, batch=3), "grouped", {**SMALL, "swizzle": 1}),
    (FP8, EXAMPLE, {"tile_m": 16, "tile_n": 64, "tile_k": 128, "swizzle": 1}),
]


class Pointer:
    """An array as the interpreter takes it."""

    def __init__(self, array: Any, dtype: str) -> None:
        self.array, self.dtype = array, dtype

    def data_ptr(self) -> int:
        """Of its first element."""
        return int(self.array.ctypes.data)


class OnHost(GridExecutor):
    """The interpreter without copies from and to a GPU."""

    def _init_args_hst(self, args: Any, kwargs: Any) -> Any:
        return args, kwargs

    def _restore_args_dev(self, *args: Any) -> None:
        pass


def number(value: int) -> Any:
    """An int32 argument: 0-dimensional, as NumPy wants where a number is an index."""
    return tl.tensor(TensorHandle(np.array(value, np.int32), tl.int32), tl.int32)


def largest_error(gemm: Gemm, name: str, knobs: dict[str, int]) -> float:
    """Of the kernel's C, kept in float32, against the product of the widened operands."""
    kernel = read_triton(name)
    fitted = fit(kernel, gemm, KernelConfig(family="triton", kernel=name, **knobs), "sm_90")
    rng = np.random.default_rng(1)
    a = narrow(np, rng.standard_normal((gemm.batch, gemm.m, gemm.k), np.float32), gemm.dtype)
    b_shape = (gemm.n, gemm.k) if gemm.layout[1] == "t" else (gemm.k, gemm.n)
    b = narrow(np, rng.standard_normal((gemm.batch, *b_shape), np.float32), gemm.dtype)
    c = np.full((gemm.batch, gemm.m, gemm.n), np.nan, np.float32)
    scales = ScaleSets(np, gemm, 1)
    arrays = {"a": a, "b": b, "c": c, "a_scales": scales.a, "b_scales": scales.b}
    arrays |= vars(Routing(np, gemm, knobs["tile_m"]))
    types = [kind for _, kind in fitted.compilation.signature]
    arguments: list[Any] = []
    for pointer, kind in zip(fitted.pointers, types, strict=False):
        element = "fp32" if pointer == "c" else kind.removeprefix("*")
        arguments.append(Pointer(arrays[pointer], element))
    arguments += [number(value) for value in fitted.numbers]
    launch = OnHost(*_function(kernel, fitted), fitted.grid)
    launch(*arguments, **dict(fitted.compilation.constants))
    wide_a, wide_b = widen(np, a, gemm.dtype), widen(np, b, gemm.dtype)
    if gemm.layout[1] == "t":
        wide_b = wide_b.swapaxes(1, 2)
    if kernel.description.is_scaled:
        wide_a = wide_a * np.repeat(scales.a, BLOCK, axis=2)[:, :, : gemm.k]
        of_b = np.repeat(np.repeat(scales.b[0], BLOCK, axis=0)[: gemm.n], BLOCK, axis=1)
        wide_b = wide_b * of_b[:, : gemm.k].T
    return float(np.abs(c - wide_a @ wide_b).max())


def _function(kernel: Any, fitted: Any) -> tuple[Any, list[str]]:
    spec = importlib.util.spec_from_file_location("interpreted", kernel.source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, fitted.compilation.entry)
    return function.fn, function.arg_names


if __name__ == "__main__":
    for case in CASES:
        print(json.dumps([f"{case[0]} {case[1]}", largest_error(*case)]))
