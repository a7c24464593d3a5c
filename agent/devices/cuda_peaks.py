"""What a GPU can do, measured once per device and software version: peaks, bandwidths, launch overhead, idle power, the counter's step.

Peaks are those of a library's large GEMM, not of a datasheet: what a kernel may hope for on this very board. Takes ten to fifteen seconds.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any

import cupy
import numpy as np

from agent.kernels import load
from agent.timing import finish
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure

if TYPE_CHECKING:
    from agent.devices.cuda import CudaBackend

PEAK_DIMS = (4096, 8192)
PEAK_FAMILIES = {"fp64": "cublas", "fp32": "cublas", "tf32": "cublas", "fp16": "cublas", "bf16": "cublas", "fp8_e4m3": "cublaslt"}
COPY_ELEMENTS = 2**27
L2_PASSES = 64
IDLE_STEPS = 10
COUNTER_STALL_S = 3.0
READ_L2 = r"""
extern "C" __global__ void read_l2(const float4* from, int count, int passes, float* out) {
    float sum = 0.0f;
    for (int p = 0; p < passes; ++p)
        for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
            float4 v;
            asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(from + i));
            sum += v.x + v.y + v.z + v.w;
        }
    if (sum == 1234.5f) *out = sum;  // never true, and the compiler does not know
}
"""


def describe(backend: CudaBackend) -> Device:
    """The bench's device with everything that has to be measured."""
    known = backend.identify()
    idle_power_w, step_s = _at_rest(backend)
    peaks = {dtype: peak for dtype in PEAK_FAMILIES if (peak := _peak_tflops(backend, dtype)) is not None}
    return replace(
        known,
        idle_power_w=idle_power_w,
        counter_step_s=step_s,
        dram_gbps=_dram_gbps(backend),
        l2_gbps=_l2_gbps(backend, known.l2_bytes, known.compute_units),
        empty_launch_us=_empty_launch_us(backend),
        peak_tflops=peaks,
    )


def _at_rest(backend: CudaBackend) -> tuple[float | None, float | None]:
    """Idle power (W) and the length of a counter step (s), both between steps of the energy counter."""
    if backend.no_power():
        return None, None
    backend.queue.stream.synchronize()
    sleep(1.0)  # the board needs a while to come down
    steps: list[tuple[float, float]] = []
    last_mj = backend.board.energy_mj()
    moved_s = monotonic()
    while len(steps) <= IDLE_STEPS:
        before_s = monotonic()
        now_mj = backend.board.energy_mj()
        if now_mj != last_mj:
            moved_s = (before_s + monotonic()) / 2
            steps.append((moved_s, now_mj))
            last_mj = now_mj
        elif before_s - moved_s > COUNTER_STALL_S:
            return None, None
    (first_s, first_mj), (last_s, last_mj) = steps[0], steps[-1]
    gaps = np.diff([when for when, _ in steps])
    step_s = (last_s - first_s) / IDLE_STEPS
    regular = bool(np.all(np.abs(gaps - step_s) < 0.25 * step_s))
    return (last_mj - first_mj) / (last_s - first_s) / 1e3, step_s if regular else None


def _peak_tflops(backend: CudaBackend, dtype: str) -> float | None:
    """None where this board or its library has no such multiplication."""
    best = 0.0
    procedure = Procedure(burst_s=0.05)
    for dim in PEAK_DIMS:
        gemm = Gemm(m=dim, n=dim, k=dim, dtype=dtype, layout="nt")  # both k-contiguous, as fp8 must be
        try:
            sets = backend.operands(gemm, cold=True)
            family = PEAK_FAMILIES[dtype]
            prepared = load(family).prepare(gemm, KernelConfig(family=family), sets)
            prepared.launch(0)
        except (MeasurementError, MemoryError):
            continue
        burst, _ = finish(backend.burst(prepared, len(sets), procedure, cold=True))
        best = max(best, gemm.flops / (burst.runtime_us * 1e6))
    return best or None


def _dram_gbps(backend: CudaBackend) -> float:
    """Of a copy far beyond L2, bytes read plus bytes written."""
    source = cupy.ones(COPY_ELEMENTS, dtype=cupy.float32)
    target = cupy.empty_like(source)
    best_ms = min(_event_ms(backend, lambda: cupy.copyto(target, source)) for _ in range(10))
    return float(2 * source.nbytes / (best_ms * 1e6))


def _l2_gbps(backend: CudaBackend, l2_bytes: int, compute_units: int) -> float:
    """Of reading a quarter of L2 over and over, past L1."""
    kernel = cupy.RawKernel(READ_L2, "read_l2")
    source = cupy.ones(l2_bytes // 16, dtype=cupy.float32)
    out = cupy.zeros(1, dtype=cupy.float32)

    def read() -> None:
        kernel((compute_units * 8,), (256,), (source, np.int32(source.size // 4), np.int32(L2_PASSES), out))

    read()
    best_ms = min(_event_ms(backend, read) for _ in range(5))
    return float(L2_PASSES * source.nbytes / (best_ms * 1e6))


def _empty_launch_us(backend: CudaBackend) -> float:
    """Host time of one launch of an empty kernel, the queue never full."""
    took = []
    for _ in range(10):
        backend.queue.stream.synchronize()
        start_s = perf_counter()
        for _ in range(100):
            backend.queue.empty((1,), (1,), ())
        took.append((perf_counter() - start_s) * 1e4)
    backend.queue.stream.synchronize()
    return min(took)


def _event_ms(backend: CudaBackend, run: Any) -> float:
    backend.queue.spin()
    begin = backend.queue.event()
    run()
    end = backend.queue.event()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end))
