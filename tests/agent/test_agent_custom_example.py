"""The example of a custom kernel, on a CPU that plays CUDA and on a GPU.

On the CPU, g++ compiles the example's very source between a few lines that play CUDA: a thread is a
context (ucontext) that runs until it meets __syncthreads(); forwards and backwards, so that a
missing barrier shows. A, B and C end where memory does, so that a read after their end shows, and
float4s are checked for their alignment.
"""

from __future__ import annotations

import ctypes
import mmap
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from gpu_here import cupy_or_skip

from agent.check import check
from agent.kernels import load
from agent.kernels.custom import CustomKernels, fit, read_custom
from agent.operands import Array, Operands
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = "examples/kernels/tiled_vec4.toml"
Knobs = dict[str, int]
WriteKernel = Callable[[str, str], str]


def _example_knobs() -> list[Knobs]:
    tiles = product((64, 128), (64, 128), (8, 16))
    return [{"tile_m": m, "tile_n": n, "tile_k": k} for m, n, k in tiles]


KNOBS = _example_knobs()
SHAPES = [(1, 1, 1), (130, 68, 36), (67, 133, 19), (129, 200, 17), (65, 66, 64), (128, 128, 16)]
"""Over every edge; rows that a float4 divides, in A, in B, in both, in neither."""
SHIM = r"""
#include <cstddef>
#include <signal.h>
#include <ucontext.h>
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 { int x, y, z; };
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int min(int a, int b) { return a < b ? a : b; }
static dim3 threadIdx, blockIdx;
static ucontext_t scheduler, threads[1024];
static char stacks[1024][16384];
static bool done[1024];
static inline void __syncthreads() { swapcontext(&threads[threadIdx.x], &scheduler); }
#include SOURCE
static struct { const float *a, *b; float* c; int m, n, k; float alpha, beta; } task;
static void thread() {
    gemm(task.a, task.b, task.c, task.m, task.n, task.k, task.alpha, task.beta);
    done[threadIdx.x] = true;
}
static ucontext_t rescue;
static volatile int fault;
static void on_fault(int signal) {
    fault = signal;
    setcontext(&rescue);
}
static void block(int count, bool backwards) {
    for (int i = 0; i < count; ++i) {
        getcontext(&threads[i]);
        threads[i].uc_stack.ss_sp = stacks[i];
        threads[i].uc_stack.ss_size = sizeof stacks[i];
        threads[i].uc_link = &scheduler;
        makecontext(&threads[i], thread, 0);
        done[i] = false;
    }
    for (bool left = true; left;) {
        left = false;
        for (int j = 0; j < count; ++j) {
            threadIdx.x = backwards ? count - 1 - j : j;
            if (!done[threadIdx.x]) swapcontext(&scheduler, &threads[threadIdx.x]);
            left |= !done[threadIdx.x];
        }
    }
}
extern "C" int run(int gx, int gy, int gz, int count, int backwards,
                   const float* a, const float* b, float* c,
                   int m, int n, int k, float alpha, float beta) {
    struct sigaction mine = {}, before[2];
    mine.sa_handler = on_fault;
    sigaction(SIGSEGV, &mine, &before[0]);  // beyond the end
    sigaction(SIGILL, &mine, &before[1]);   // -fsanitize=alignment
    task = {a, b, c, m, n, k, alpha, beta};
    fault = 0;
    getcontext(&rescue);
    for (int i = 0; i < gx * gy * gz && !fault; ++i) {
        blockIdx = {i % gx, i / gx % gy, i / gx / gy};
        block(count, backwards);
    }
    sigaction(SIGSEGV, &before[0], nullptr);
    sigaction(SIGILL, &before[1], nullptr);
    return fault;
}
"""


def _config(kernel: str = EXAMPLE, **knobs: int) -> KernelConfig:
    return KernelConfig(family="custom", kernel=kernel, **knobs)


def _id(knobs: Knobs) -> str:
    return "x".join(map(str, knobs.values()))


@pytest.fixture
def mine(tmp_path: Path) -> WriteKernel:
    """Writes a description and its source; its path in tmp_path."""

    def write(toml: str, source: str) -> str:
        (tmp_path / "kernel.toml").write_text(toml)
        (tmp_path / "mine.cu").write_text(source)
        return "kernel.toml"

    return write


def _compile(folder: Path, source: Path, knobs: Mapping[str, int]) -> ctypes.CDLL:
    shim = folder / "shim.cpp"
    shim.write_text(SHIM)
    library = folder / "example.so"
    command = [
        "g++",
        "-std=c++17",
        "-O1",
        "-shared",
        "-fPIC",
        "-w",
        "-fsanitize=alignment",
        "-fsanitize-undefined-trap-on-error",
        f'-DSOURCE="{source}"',
        *(f"-D{name.upper()}={value}" for name, value in knobs.items()),
        "-o",
        str(library),
        str(shim),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def _at_the_edge(values: Array, gap: int) -> tuple[Array, Array]:
    """A float32 copy that ends `gap` elements before a page that cannot be touched.

    Also the NaNs before it.
    """
    page = mmap.PAGESIZE // 4
    size = values.size + gap
    pages = -(-size // page) + 1
    memory = np.frombuffer(mmap.mmap(-1, pages * mmap.PAGESIZE), np.float32)
    edge = memory.size - page
    memory[:edge] = np.nan
    inner = memory[edge - size : edge - gap].reshape(values.shape)
    inner[...] = values
    edge_at = ctypes.c_void_p(memory.ctypes.data + 4 * edge)
    assert ctypes.CDLL(None).mprotect(edge_at, mmap.PAGESIZE, 0) == 0
    return inner, memory[: edge - size]


def _multiply(
    library: ctypes.CDLL, knobs: Knobs, gemm: Gemm, *, gap: int = 0, backwards: bool = False
) -> None:
    rng = np.random.default_rng(3)
    a, _ = _at_the_edge(rng.standard_normal((gemm.batch, gemm.m, gemm.k)), gap)
    b, _ = _at_the_edge(rng.standard_normal((gemm.batch, gemm.k, gemm.n)), gap)
    before = rng.standard_normal((gemm.batch, gemm.m, gemm.n))
    c, in_front = _at_the_edge(before if gemm.beta else np.full(before.shape, np.nan), gap)
    fitted = fit(read_custom(EXAMPLE), gemm, _config(**knobs))
    fault = library.run(
        *fitted.grid,
        fitted.threads,
        int(backwards),
        ctypes.c_void_p(a.ctypes.data),
        ctypes.c_void_p(b.ctypes.data),
        ctypes.c_void_p(c.ctypes.data),
        gemm.m,
        gemm.n,
        gemm.k,
        ctypes.c_float(gemm.alpha),
        ctypes.c_float(gemm.beta),
    )
    assert not fault, signal.Signals(fault).name
    want = gemm.alpha * np.matmul(a.astype(np.float64), b.astype(np.float64))
    if gemm.beta:
        want += gemm.beta * before
    np.testing.assert_allclose(c, want, rtol=1e-4, atol=1e-4)
    assert np.isnan(in_front).all()


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.parametrize("knobs", KNOBS, ids=_id)
def test_the_example_multiplies_right_on_a_cpu_that_plays_cuda(
    knobs: Knobs, tmp_path: Path
) -> None:
    library = _compile(tmp_path, ROOT / "examples" / "kernels" / "tiled_vec4.cu", knobs)
    for i, (m, n, k) in enumerate(SHAPES):
        _multiply(library, knobs, Gemm(m=m, n=n, k=k, alpha=1.5), backwards=bool(i % 2))
    _multiply(library, knobs, Gemm(m=132, n=68, k=36, batch=3, beta=-0.5), backwards=True)
    _multiply(library, knobs, Gemm(m=132, n=68, k=36, batch=2, beta=2.0), gap=1)
    _multiply(library, knobs, Gemm(m=70, n=67, k=35, batch=3, beta=-0.5))


@pytest.mark.gpu
@pytest.mark.parametrize("knobs", KNOBS, ids=_id)
def test_the_example_multiplies_right_on_a_gpu(knobs: Knobs) -> None:
    cupy = cupy_or_skip()
    normal = cupy.random.standard_normal
    for (m, n, k), batch, beta in product(SHAPES, (1, 3), (0.0, -0.5)):
        gemm = Gemm(m=m, n=n, k=k, batch=batch, alpha=1.5, beta=beta)
        operands = Operands(
            normal((batch, m, k), dtype=cupy.float32),
            normal((batch, k, n), dtype=cupy.float32),
            normal((batch, m, n), dtype=cupy.float32),
        )
        prepared = load("custom").prepare(gemm, _config(**knobs), [operands])
        assert check(cupy, gemm, operands, prepared) >= 0.0
        facts = prepared.facts
        assert {name: facts[name] for name in knobs} == knobs
        assert facts["kernel"] == read_custom(EXAMPLE).name
        assert facts["spill_bytes"] < 128


ONE_ELEMENT_A_BLOCK = """
#if defined(DTYPE_FP16)
#include <cuda_fp16.h>
#endif
extern "C" __global__ void mine(const ELEMENT* a, const ELEMENT* b, ELEMENT* c, int m, int n, int k,
                                SCALAR alpha, SCALAR beta) {
    extern __shared__ SCALAR sums[];
    const int row = blockIdx.y, col = blockIdx.x;
    SCALAR sum = 0;
    for (int p = threadIdx.x; p < k; p += BLOCK_THREADS)
        sum += (SCALAR)a[TRANS_A ? p * m + row : row * k + p] * (SCALAR)b[p * n + col];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    for (int i = 1; i < BLOCK_THREADS; ++i) sum += sums[i];
    c[row * n + col] = (ELEMENT)(alpha * sum);
}
"""
ONE_ELEMENT_TOML = """
source = "mine.cu"
block = "BLOCK_THREADS"
grid = ["n", "m"]
smem = 65536
entry = "mine"
layouts = ["nn", "tn"]
dtypes = ["fp16", "fp64"]
knobs = { block_threads = [32, 64] }
"""


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["nn", "tn"])
@pytest.mark.parametrize(("dtype", "element"), [("fp16", "float16"), ("fp64", "float64")])
def test_other_dtypes_and_shared_memory_on_a_gpu(
    tmp_path: Path, mine: WriteKernel, layout: str, dtype: str, element: str
) -> None:
    cupy = cupy_or_skip()
    normal = cupy.random.standard_normal
    gemm = Gemm(m=5, n=7, k=100, dtype=dtype, layout=layout, alpha=0.1)
    a_shape = (1, 100, 5) if layout == "tn" else (1, 5, 100)
    operands = Operands(
        normal(a_shape).astype(element),
        normal((1, 100, 7)).astype(element),
        normal((1, 5, 7)).astype(element),
    )
    kernel = mine(ONE_ELEMENT_TOML, ONE_ELEMENT_A_BLOCK)
    config = _config(kernel, block_threads=64)
    prepared = CustomKernels(tmp_path).prepare(gemm, config, [operands])
    assert check(cupy, gemm, operands, prepared) >= 0.0
    assert prepared.facts["smem_bytes"] >= 65536
    assert prepared.facts["block_threads"] == 64


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("toml", "source", "status", "message"),
    [
        (
            ONE_ELEMENT_TOML,
            ONE_ELEMENT_A_BLOCK.replace("SCALAR sum = 0", "SCALAR sum = nought"),
            "cuda_error",
            'line 9: error: identifier "nought" is undefined',
        ),
        (
            ONE_ELEMENT_TOML.replace('"mine"', '"other"'),
            ONE_ELEMENT_A_BLOCK,
            "cuda_error",
            'no extern "C" __global__ void other',
        ),
        (
            ONE_ELEMENT_TOML.replace("65536", "1000000"),
            ONE_ELEMENT_A_BLOCK,
            "unsupported",
            "needs 1000000 bytes of dynamic shared memory",
        ),
    ],
    ids=["compiles not", "no such entry", "too much memory"],
)
def test_mistakes_on_a_gpu(
    tmp_path: Path, mine: WriteKernel, toml: str, source: str, status: str, message: str
) -> None:
    cupy_or_skip()
    gemm = Gemm(m=5, n=7, k=100, dtype="fp16")
    with pytest.raises(MeasurementError, match=message) as caught:
        CustomKernels(tmp_path).prepare(gemm, _config(mine(toml, source)), [])
    assert caught.value.status == status
