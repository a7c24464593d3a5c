"""Kernels of one's own: descriptions, their arithmetic, paths that must not lead out, and the example, on the CPU and on a GPU.

On the CPU, g++ compiles the example's very source between a few lines that play CUDA: a thread is a context (ucontext) that runs until
it meets __syncthreads(); forwards and backwards, so that a barrier that is missing shows. A, B and C end where memory does, so that a
read beyond them shows, and float4s are checked for their alignment.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.check import check
from agent.kernels import load, refuse
from agent.kernels.custom import Description, OwnKernels, evaluate, first_error, fit, parse_own, read_own
from agent.operands import Operands
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import read_plan
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError, MeasurementError
from gemmcast.gemm import Gemm

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = "examples/kernels/tiled_vec4.toml"
KNOBS = [dict(zip(("tile_m", "tile_n", "tile_k"), tile, strict=True)) for tile in product((64, 128), (64, 128), (8, 16))]
SHAPES = [(1, 1, 1), (130, 68, 36), (67, 133, 19), (129, 200, 17), (65, 66, 64), (128, 128, 16)]
# over every edge; rows that a float4 divides, in A, in B, in both, in neither
TOML = 'source = "mine.cu"\nblock = "TILE_M * TILE_N"\nknobs = { tile_m = [16, 8], tile_n = 16 }\n'
MakeOwn = Callable[..., str]


def _config(kernel: str = EXAMPLE, **knobs: int) -> KernelConfig:
    return KernelConfig(family="custom", kernel=kernel, **knobs)


@pytest.fixture
def mine(tmp_path: Path) -> MakeOwn:
    """Writes a description and its source; its path beneath tmp_path."""

    def write(toml: str = TOML, source: str = "// nothing\n") -> str:
        (tmp_path / "my").mkdir(exist_ok=True)
        (tmp_path / "my" / "kernel.toml").write_text(toml)
        (tmp_path / "my" / "mine.cu").write_text(source)
        return "my/kernel.toml"

    return write


# arithmetic


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("TILE_M * 2", 256), ("(n + TILE_M - 1) / TILE_M", 3), ("(n+127)//TILE_M-1", 2), ("2 * (3 + 4) * TILE_M / 8", 224), (" 1 +\n1 ", 2)],
)
def test_arithmetic_is_that_of_whole_numbers(text: str, value: int) -> None:
    assert evaluate("grid", text, {"TILE_M": 128, "n": 300}) == value


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("TILE_K", "can't reckon with TILE_K"),
        ("2.5", "can't reckon with 2.5"),
        ("True", "can't reckon with True"),
        ("TILE_M ** 9", r"can't reckon with TILE_M \*\* 9"),
        ("-TILE_M", "can't reckon with -TILE_M"),
        ("TILE_M % 3", "can't reckon with TILE_M % 3"),
        ("__import__('os').system('ls')", "can't reckon with __import__"),
        ("(lambda: 1)()", r"can't reckon with \(lambda"),
        ("[1][0]", r"can't reckon with \[1\]\[0\]"),
        ("1 if TILE_M else 2", "can't reckon with 1 if"),
        ("x := 1", "no arithmetic"),
        ("1 +", "no arithmetic"),
        ("1\0", "no arithmetic"),
        ("(" * 190 + "1", "no arithmetic"),
        ("", "no arithmetic"),
        ("1 / (TILE_M - 128)", "divides by zero"),
    ],
)
def test_nothing_else_is_reckoned_with(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        evaluate("block", text, {"TILE_M": 128})


# descriptions


def test_three_lines_are_enough() -> None:
    raw = (ROOT / EXAMPLE).read_bytes()
    assert len(raw.splitlines()) == 3 and len(tomllib.loads(raw.decode())) == 3
    found = parse_own(raw, EXAMPLE)
    assert found.knobs == {"tile_m": (128, 64), "tile_n": (128, 64), "tile_k": (8, 16)}
    assert (found.entry, found.dtypes, found.layouts, found.grid, found.smem) == ("gemm", ("fp32",), ("nn",), None, "0")
    assert (found.block, found.source) == (("(TILE_M / 8) * (TILE_N / 8)",), "tiled_vec4.cu")


def test_a_number_stands_for_a_list_of_one() -> None:
    found = parse_own(b'source = "x.cu"\nblock = [32, "8"]\ngrid = ["n", 1]\nsmem = 512\nknobs = { stages = 3 }', "x.toml")
    assert (found.block, found.grid, found.smem, found.knobs) == (("32", "8"), ("n", "1"), "512", {"stages": (3,)})


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("source = ", r"kernel = 'x.toml': not TOML \(.*\); correct that line"),
        ('block = 1\nsource = "\xff"', "kernel = 'x.toml': not UTF-8"),
        ("block = 1", "source = None: missing; add it to the description"),
        ('source = "x.cu"', "block = None: missing"),
        (TOML + "blocks = 3", "blocks = 3: unknown key; remove it, or use one of source, block, knobs, grid, smem, entry, dtypes, layouts"),
        (TOML.replace('"mine.cu"', "3"), "source = 3: input should be a valid string"),
        (TOML.replace('"TILE_M * TILE_N"', "[1, 2, 3, 4]"), "block = .*at most 3 items"),
        (TOML.replace('"TILE_M * TILE_N"', "1.5"), "block.0 = 1.5: input should be a valid string"),
        (TOML.replace('"TILE_M * TILE_N"', '"' + "1+" * 200 + '1"'), "block.0 = .*at most 200 characters"),
        (TOML + 'entry = "gemm<float>"', "entry = 'gemm<float>': string should match pattern"),
        (TOML + 'grid = "n"', "grid = 'n': input should be a valid tuple"),
        (TOML + 'dtypes = ["fp32", "fp8_e4m3"]', "dtypes = 'fp8_e4m3': unknown; use fp64, fp32, tf32, fp16, bf16"),
        (TOML + 'layouts = ["tnt"]', "layouts = 'tnt': unknown; use nn, nt, tn, tt"),
        (TOML.replace("tile_m", "tile_x"), "knobs = 'tile_x': unknown; use tile_m, tile_n"),
        (TOML.replace("[16, 8]", "[]"), "knobs.tile_m = .*at least 1 item"),
        (TOML.replace("[16, 8]", '["16"]'), "knobs.tile_m.0 = '16': input should be a valid integer"),
        (TOML.replace("[16, 8]", "[0]"), "knobs.tile_m.0 = 0: input should be greater than or equal to 1"),
        (TOML.replace("[16, 8]", "[true]"), "knobs.tile_m.0 = True: input should be a valid integer"),
        (TOML.replace("tile_m", "stages"), "grid = None: missing, and without knobs tile_m and tile_n .*; add grid"),
    ],
)
def test_a_bad_description_is_told_what_is_wrong(toml: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_own(toml.encode("latin-1"), "x.toml")


def test_a_description_is_frozen() -> None:
    found: Any = parse_own(TOML.encode(), "x.toml")
    with pytest.raises(ValueError, match="frozen"):
        found.entry = "other"
    assert isinstance(found, Description)


# paths and content


def test_the_name_goes_with_the_content_of_both_files(tmp_path: Path, mine: MakeOwn) -> None:
    first = read_own(mine(), tmp_path)
    assert re.fullmatch(r"my/kernel\.toml@[0-9a-f]{8}", first.name)
    assert read_own(mine(), tmp_path) == first
    assert read_own(first.name, tmp_path) == first  # as a row has it
    names = {first.name, read_own(mine(source="// other\n"), tmp_path).name, read_own(mine(TOML + "\n"), tmp_path).name}
    assert len(names) == 3
    with pytest.raises(InputError, match=r"the files have changed, they are @[0-9a-f]{8} now; bring the old ones back, or leave the @ out"):
        read_own(first.name, tmp_path)


@pytest.mark.parametrize("path", ["../kernel.toml", "my/../../kernel.toml", "/etc/hostname", "link/kernel.toml"])
def test_nothing_leads_out_of_the_project(path: str, tmp_path: Path, mine: MakeOwn) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("kernel.toml", "mine.cu"):
        (tmp_path / name).write_text(TOML)
    (project / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads out of the project; give a path beneath"):
        read_own(path, project)
    (project / "kernel.toml").write_text(TOML.replace("mine.cu", path))
    with pytest.raises(InputError, match="source = .*: leads out of the project"):
        read_own("kernel.toml", project)


def test_what_is_not_there_is_named(tmp_path: Path, mine: MakeOwn) -> None:
    with pytest.raises(InputError, match="kernel = '': .*name its description"):
        read_own("", tmp_path)
    with pytest.raises(InputError, match="kernel = 'none.toml': no such file in"):
        read_own("none.toml", tmp_path)
    with pytest.raises(InputError, match="kernel = 'my': no such file"):
        read_own(str(Path(mine()).parent), tmp_path)
    with pytest.raises(InputError, match="source = 'other.cu': no such file in .*/my"):
        read_own(mine(TOML.replace("mine.cu", "other.cu")), tmp_path)


# fitting


def test_a_description_is_fitted_to_a_gemm() -> None:
    own = read_own(EXAMPLE)
    fitted = fit(own, Gemm(m=130, n=300, k=7, batch=3), _config(tile_m=64))
    assert (fitted.grid, fitted.block, fitted.threads, fitted.smem_bytes) == ((3, 3, 3), (128,), 128, 0)
    assert fitted.knobs == {"tile_m": 64, "tile_n": 128, "tile_k": 8}  # what was not said is the first value
    assert {"-DTILE_M=64", "-DTILE_N=128", "-DTILE_K=8", "-DELEMENT=float", "-DSCALAR=float", "-DDTYPE_FP32=1"} <= set(fitted.options)
    assert {"-DTRANS_A=0", "-DTRANS_B=0", "-DELEMENT_BYTES=4"} <= set(fitted.options)
    assert fit(own, Gemm(m=130, n=300, k=7), _config(tile_m=64, block_threads=128)).threads == 128  # as a row has it


def test_a_source_is_told_dtype_and_layout(tmp_path: Path, mine: MakeOwn) -> None:
    kernel = mine(TOML + 'smem = "2 * TILE_M * ELEMENT_BYTES"\ngrid = ["m * n / 4", "k"]\ndtypes = ["fp64", "bf16"]\nlayouts = ["tn"]')
    for dtype, element, scalar, smem in (("fp64", "double", "double", 256), ("bf16", "__nv_bfloat16", "float", 64)):
        fitted = fit(read_own(kernel, tmp_path), Gemm(m=8, n=6, k=5, dtype=dtype, layout="tn"), _config(kernel))
        wanted = {f"-DELEMENT={element}", f"-DSCALAR={scalar}", f"-DDTYPE_{dtype.upper()}=1", "-DTRANS_A=1", "-DTRANS_B=0"}
        assert wanted <= set(fitted.options) and (fitted.smem_bytes, fitted.grid) == (smem, (12, 5, 1))


@pytest.mark.parametrize(
    ("toml", "gemm", "knobs", "message"),
    [
        (TOML, {"dtype": "fp16"}, {}, "has no dtype fp16 .it has fp32"),
        (TOML, {"layout": "nt"}, {}, "has no layout nt .it has nn"),
        (TOML, {}, {"tile_m": 32}, "has no tile_m=32 .it has 16, 8"),
        (TOML, {}, {"stages": 2}, "has no stages=2 .it has no such knob"),
        (TOML, {}, {"block_threads": 64}, "has blocks of 256 threads here, not 64"),
        (TOML, {"batch": 65536}, {}, r"grid \(1, 1, 65536\) is over CUDA's limit"),
        (TOML, {"m": 2**24}, {}, "is over CUDA's limit"),
        (TOML.replace("TILE_M * TILE_N", "TILE_M * TILE_N * 8"), {}, {}, r"block = \(2048,\): a block has 1 to 1024 threads"),
        (TOML.replace("TILE_M * TILE_N", "TILE_M / 32"), {}, {}, r"block = \(0,\): a block has 1 to"),
        (TOML + 'smem = "TILE_M - 17"', {}, {}, "less than there can be"),
        (TOML + 'grid = ["n / 100", 1]', {}, {}, "less than there can be"),
        (TOML + 'grid = ["n / TILE_K", 1]', {}, {}, "grid = 'n / TILE_K': can't reckon with TILE_K; use .*TILE_M, TILE_N, m, n, k"),
        (TOML + "colour = 1", {}, {}, "my/kernel.toml: colour = 1: unknown key"),
    ],
)
def test_what_can_not_be_fitted_is_unsupported(
    toml: str, gemm: dict[str, Any], knobs: dict[str, int], message: str, tmp_path: Path, mine: MakeOwn
) -> None:
    kernel = mine(toml)
    with pytest.raises(MeasurementError, match=message) as caught:
        OwnKernels(tmp_path).prepare(Gemm(**{"m": 8, "n": 8, "k": 8, **gemm}), _config(kernel, **knobs), [])
    assert caught.value.status == "unsupported"


def test_the_first_error_is_told_with_its_line() -> None:
    log = '/tmp/x1/0a.cubin.cu(7): warning #177-D: unused\n/tmp/x1/0a.cubin.cu(46): error: expected a "]"\n      float s[8 = {};\n\n1 error'
    assert first_error(log, "my.toml@1") == 'my.toml@1, line 46: error: expected a "]"'
    assert first_error("nvrtc: error: invalid value\nmore", "my.toml@1") == "my.toml@1: nvrtc: error: invalid value"
    assert first_error("", "my.toml@1") == "my.toml@1: no reason given"


def test_the_family_loads_without_cuda() -> None:
    assert list(FAMILIES)[5] == "custom" and isinstance(load("custom"), OwnKernels)
    refuse(Gemm(m=1, n=1, k=1, dtype="fp64"), _config(), "cuda")
    code = "import sys, agent.kernels.custom; print('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_plan_in_examples_asks_for_what_there_is() -> None:
    gpu = Device(name="G", kind="cuda", uuid="GPU-1", compute_units=132, memory_bytes=80 * 2**30, l2_bytes=2**25, dram_gbps=3000.0, empty_launch_us=2.0)
    cells = plan_cells(read_plan(ROOT / "examples" / "own-kernel.toml"), gpu).cells
    own = [cell for cell in cells if cell.config.family == "custom"]
    assert {cell.config.family for cell in cells} == {"custom", "tiled", "cublas"} and len(own) == 20 * len(KNOBS)
    for cell in own:
        assert fit(read_own(cell.config.kernel), cell.gemm, cell.config).knobs in KNOBS


# the example itself, on the CPU

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
static void thread() { gemm(task.a, task.b, task.c, task.m, task.n, task.k, task.alpha, task.beta); done[threadIdx.x] = true; }
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
extern "C" int run(int gx, int gy, int gz, int count, int backwards, const float* a, const float* b, float* c, int m, int n, int k, float alpha,
                   float beta) {
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


def _compile(folder: Path, source: Path, knobs: Mapping[str, int]) -> Any:
    (folder / "shim.cpp").write_text(SHIM)
    macros = [f"-D{name.upper()}={value}" for name, value in knobs.items()]
    library = folder / f"{'_'.join(map(str, knobs.values()))}.so"
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error", f'-DSOURCE="{source}"']
    done = subprocess.run(["g++", *flags, *macros, "-o", library, folder / "shim.cpp"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def _at_the_edge(values: Any, gap: int) -> tuple[Any, Any]:
    """A float32 copy that ends `gap` elements before a page that can't be touched; and the NaNs before it."""
    size, page = values.size + gap, mmap.PAGESIZE // 4
    pages = -(-size // page) + 1
    memory = np.frombuffer(mmap.mmap(-1, pages * mmap.PAGESIZE), np.float32)
    edge = memory.size - page
    memory[:edge] = np.nan
    inner = memory[edge - size : edge - gap].reshape(values.shape)
    inner[...] = values
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(memory.ctypes.data + 4 * edge), mmap.PAGESIZE, 0) == 0
    return inner, memory[: edge - size]


def _multiply(library: Any, knobs: dict[str, int], gemm: Gemm, *, gap: int = 0, backwards: bool = False) -> None:
    rng = np.random.default_rng(3)
    a, _ = _at_the_edge(rng.standard_normal((gemm.batch, gemm.m, gemm.k)), gap)
    b, _ = _at_the_edge(rng.standard_normal((gemm.batch, gemm.k, gemm.n)), gap)
    before = rng.standard_normal((gemm.batch, gemm.m, gemm.n))
    c, in_front = _at_the_edge(before if gemm.beta else np.full(before.shape, np.nan), gap)
    fitted = fit(read_own(EXAMPLE), gemm, _config(**knobs))
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (a, b, c)]
    scalars = ctypes.c_float(gemm.alpha), ctypes.c_float(gemm.beta)
    fault = library.run(*fitted.grid, fitted.threads, int(backwards), *pointers, gemm.m, gemm.n, gemm.k, *scalars)
    assert not fault, signal.Signals(fault).name
    want = gemm.alpha * np.matmul(a.astype(np.float64), b.astype(np.float64)) + (gemm.beta * before if gemm.beta else 0.0)
    np.testing.assert_allclose(c, want, rtol=1e-4, atol=1e-4)
    assert np.isnan(in_front).all()


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.parametrize("knobs", KNOBS, ids=lambda knobs: "x".join(map(str, knobs.values())))
def test_the_example_multiplies_right_on_a_cpu_that_plays_cuda(knobs: dict[str, int], tmp_path: Path) -> None:
    library = _compile(tmp_path, ROOT / "examples" / "kernels" / "tiled_vec4.cu", knobs)
    for i, (m, n, k) in enumerate(SHAPES):
        _multiply(library, knobs, Gemm(m=m, n=n, k=k, alpha=1.5), backwards=bool(i % 2))
    _multiply(library, knobs, Gemm(m=132, n=68, k=36, batch=3, beta=-0.5), backwards=True)
    _multiply(library, knobs, Gemm(m=132, n=68, k=36, batch=2, beta=2.0), gap=1)
    _multiply(library, knobs, Gemm(m=70, n=67, k=35, batch=3, beta=-0.5))


# on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("knobs", KNOBS, ids=lambda knobs: "x".join(map(str, knobs.values())))
def test_the_example_multiplies_right_on_a_gpu(knobs: dict[str, int]) -> None:
    cupy = _cupy()
    for (m, n, k), batch, beta in product(SHAPES, (1, 3), (0.0, -0.5)):
        gemm = Gemm(m=m, n=n, k=k, batch=batch, alpha=1.5, beta=beta)
        shapes = (batch, m, k), (batch, k, n), (batch, m, n)
        operands = Operands(*(cupy.random.standard_normal(shape, dtype=cupy.float32) for shape in shapes))
        prepared = load("custom").prepare(gemm, _config(**knobs), [operands])
        assert check(cupy, gemm, operands, prepared) >= 0.0
        assert {name: prepared.facts[name] for name in knobs} == knobs
        assert prepared.facts["kernel"] == read_own(EXAMPLE).name and prepared.facts["spill_bytes"] < 128


@pytest.mark.gpu
def test_other_dtypes_shared_memory_and_mistakes_on_a_gpu(tmp_path: Path, mine: MakeOwn) -> None:
    cupy = _cupy()
    source = """
#if defined(DTYPE_FP16)
#include <cuda_fp16.h>
#endif
extern "C" __global__ void mine(const ELEMENT* a, const ELEMENT* b, ELEMENT* c, int m, int n, int k, SCALAR alpha, SCALAR beta) {
    extern __shared__ SCALAR sums[];
    const int row = blockIdx.y, col = blockIdx.x;
    SCALAR sum = 0;
    for (int p = threadIdx.x; p < k; p += THREADS) sum += (SCALAR)a[TRANS_A ? p * m + row : row * k + p] * (SCALAR)b[p * n + col];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    for (int i = 1; i < THREADS; ++i) sum += sums[i];
    c[row * n + col] = (ELEMENT)(alpha * sum);
}
"""
    toml = 'source = "mine.cu"\nblock = "THREADS"\ngrid = ["n", "m"]\nsmem = 65536\nentry = "mine"\nlayouts = ["nn", "tn"]\n'
    toml += 'dtypes = ["fp16", "fp64"]\nknobs = { block_threads = [32, 64] }'
    kernel, family = mine(toml, source), OwnKernels(tmp_path)
    for dtype, layout in product(("fp16", "fp64"), ("nn", "tn")):
        gemm = Gemm(m=5, n=7, k=100, dtype=dtype, layout=layout, alpha=0.1)
        shapes = (1, 100, 5) if layout == "tn" else (1, 5, 100), (1, 100, 7), (1, 5, 7)
        kind = "float16" if dtype == "fp16" else "float64"
        operands = Operands(*(cupy.random.standard_normal(shape).astype(kind) for shape in shapes))
        prepared = family.prepare(gemm, _config(kernel, block_threads=64), [operands])
        assert check(cupy, gemm, operands, prepared) >= 0.0
        assert prepared.facts["smem_bytes"] >= 65536 and prepared.facts["block_threads"] == 64
    refused = [
        (toml, source.replace("SCALAR sum = 0", "SCALAR sum = nought"), "cuda_error", 'line 8: error: identifier "nought" is undefined'),
        (toml.replace('"mine"', '"other"'), source, "cuda_error", 'no extern "C" __global__ void other'),
        (toml.replace("65536", "1000000"), source, "unsupported", "wants 1000000 bytes of dynamic shared memory"),
    ]
    for description, text, status, message in refused:
        with pytest.raises(MeasurementError, match=message) as caught:
            family.prepare(Gemm(m=5, n=7, k=100, dtype="fp16"), _config(mine(description, text)), [])
        assert caught.value.status == status


def _cupy() -> Any:
    cupy = pytest.importorskip("cupy")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU: {error}")
    return cupy
