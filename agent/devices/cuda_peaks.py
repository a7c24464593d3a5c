"""What a GPU can do, measured once per device and software version; takes ten to fifteen seconds.

Peak TFLOP/s, bandwidths of DRAM and L2, an empty kernel, idle power, the energy counter's step.
Peaks are those of a library's large GEMM on this very board, not of a datasheet. All are times of
the GPU: a slow host changes none of them. What a launch costs the host is a reading of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import cupy
import numpy as np

from agent.devices.cuda_stream import SPIN_CYCLES, CudaStream, elapsed_us
from agent.kernels import Prepared, load
from agent.operands import Operands
from agent.power_window import Board, HostClock
from agent.timing import Burst, Steps, finish
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure
from gemmcast.rows import Row

PEAK_DIMS = (4096, 8192)
PEAK_FAMILIES = {
    "fp64": "cublas",
    "fp32": "cublas",
    "tf32": "cublas",
    "fp16": "cublas",
    "bf16": "cublas",
    "fp8_e4m3": "cublaslt",
    "int8": "cublaslt",
}
"""dtype -> the family whose large GEMM is the peak."""
BURST_S = 0.05
SMALLEST = Gemm(m=1, n=1, k=1)
COPY_ELEMENTS = 2**27
L2_PASSES = 64
COVER_CYCLES = 20 * SPIN_CYCLES
"""About 0.6 ms: covers the enqueueing of one kernel and two events by any host."""
REST_S = 1.0
"""Until a board has come down to idle power."""
IDLE_STEPS = 10
COUNTER_STALL_S = 3.0
MAX_FALLS = 3
REGULAR = 0.25
"""Steps that differ by less than this share of their mean are regular."""
READ_L2 = r"""
extern "C" __global__ void read_l2(const float4* from, int count, int passes, float* out) {
    float sum = 0.0f;
    const int first = blockIdx.x * blockDim.x + threadIdx.x;
    for (int p = 0; p < passes; ++p)
        for (int i = first; i < count; i += gridDim.x * blockDim.x) {
            float4 v;
            asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                         : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(from + i));
            sum += v.x + v.y + v.z + v.w;
        }
    if (sum == 1234.5f) *out = sum;  // never true, but the compiler cannot see that
}
"""


class Gpu(Protocol):
    """What is needed of agent/devices/cuda.py's backend."""

    stream: CudaStream
    clock: HostClock

    @property
    def board(self) -> Board:
        """Its energy counter."""

    def identify(self) -> Device:
        """What it is."""

    def no_power(self) -> str | None:
        """Why power cannot be read, if so."""

    def operands(self, gemm: Gemm, *, cold: bool) -> Sequence[Operands]:
        """Operand sets."""

    def burst(
        self, prepared: Prepared, sets: Sequence[Operands], procedure: Procedure, *, cold: bool
    ) -> Steps[tuple[Burst, Row]]:
        """Times launches."""


def characterise(gpu: Gpu) -> Device:
    """The device with everything that has to be measured."""
    device = gpu.identify()
    idle_power_w, counter_step_s = _idle_power_and_step(gpu)
    peaks = {}
    for dtype in PEAK_FAMILIES:
        peak = _peak_tflops(gpu, dtype)
        if peak is not None:
            peaks[dtype] = peak
    return replace(
        device,
        idle_power_w=idle_power_w,
        counter_step_s=counter_step_s,
        dram_gbps=_dram_gbps(gpu),
        l2_gbps=_l2_gbps(gpu, device.l2_bytes, device.compute_units),
        empty_kernel_us=_empty_kernel_us(gpu),
        empty_launch_us=_empty_launch_us(gpu),
        peak_tflops=peaks,
    )


def _idle_power_and_step(gpu: Gpu) -> tuple[float | None, float | None]:
    """Idle power (W) and the length of a counter step (s), both between steps of the counter."""
    if gpu.no_power() is not None:
        return None, None
    gpu.stream.synchronize()
    gpu.clock.wait(REST_S)
    steps = _counter_steps(gpu.board, gpu.clock)
    if steps is None:
        return None, None
    first_s, first_mj = steps[0]
    last_s, last_mj = steps[-1]
    power_w = (last_mj - first_mj) / (last_s - first_s) / 1e3
    step_s = (last_s - first_s) / IDLE_STEPS
    gaps_s = np.diff([seen_s for seen_s, _ in steps])
    is_regular = bool(np.all(np.abs(gaps_s - step_s) < REGULAR * step_s))
    return power_w, step_s if is_regular else None


def _counter_steps(board: Board, clock: HostClock) -> list[tuple[float, float]] | None:
    """(time, mJ) at IDLE_STEPS steps and the one before; None where the counter stands still.

    After a fall (a reset, or a wrap) they are counted anew; a counter that falls often is no meter.
    """
    steps: list[tuple[float, float]] = []
    falls = 0
    last_mj = board.energy_mj()
    moved_s = clock.now_s()
    while len(steps) <= IDLE_STEPS:
        before_s = clock.now_s()
        now_mj = board.energy_mj()
        if now_mj < last_mj:
            falls += 1
            if falls > MAX_FALLS:
                return None
            steps.clear()
            last_mj = now_mj
        elif now_mj != last_mj:
            moved_s = (before_s + clock.now_s()) / 2
            steps.append((moved_s, now_mj))
            last_mj = now_mj
        elif before_s - moved_s > COUNTER_STALL_S:
            return None
    return steps


def _peak_tflops(gpu: Gpu, dtype: str) -> float | None:
    """None where this board or its library has no such multiplication."""
    procedure = Procedure(burst_s=BURST_S)
    family = PEAK_FAMILIES[dtype]
    best = 0.0
    for dim in PEAK_DIMS:
        # Both operands k-contiguous, as fp8 must be.
        gemm = Gemm(m=dim, n=dim, k=dim, dtype=dtype, layout="nt")
        try:
            sets = gpu.operands(gemm, cold=True)
            prepared = load(family).prepare(gemm, KernelConfig(family=family), sets)
            prepared.launch(0)
        except (MeasurementError, MemoryError):
            continue
        burst, _ = finish(gpu.burst(prepared, sets, procedure, cold=True))
        best = max(best, gemm.flops / (burst.runtime_us * 1e6))
    return best or None


def _dram_gbps(gpu: Gpu) -> float:
    """Of a copy far beyond L2, bytes read plus bytes written."""
    source = cupy.ones(COPY_ELEMENTS, dtype=cupy.float32)
    target = cupy.empty_like(source)

    def copy() -> None:
        """All of it."""
        cupy.copyto(target, source)

    best_us = min(_time_us(gpu, copy) for _ in range(10))
    return float(2 * source.nbytes / (best_us * 1e3))


def _l2_gbps(gpu: Gpu, l2_bytes: int, compute_units: int) -> float:
    """Of reading a quarter of L2 over and over, past L1."""
    kernel = cupy.RawKernel(READ_L2, "read_l2")
    source = cupy.ones(l2_bytes // 16, dtype=cupy.float32)
    out = cupy.zeros(1, dtype=cupy.float32)
    arguments = (source, np.int32(source.size // 4), np.int32(L2_PASSES), out)

    def read() -> None:
        """All passes."""
        kernel((compute_units * 8,), (256,), arguments)

    # The first launch compiles and fills L2.
    read()
    best_us = min(_time_us(gpu, read) for _ in range(5))
    return float(L2_PASSES * source.nbytes / (best_us * 1e3))


def _empty_kernel_us(gpu: Gpu) -> float:
    """Of an empty kernel, timed as every runtime is: many in a graph, between two events."""

    def launch(_: int) -> None:
        """One of them."""
        gpu.stream.launch_empty()

    # It uses no operands, but a burst rotates over some.
    unused = gpu.operands(SMALLEST, cold=False)
    procedure = Procedure(burst_s=BURST_S)
    burst, _ = finish(gpu.burst(Prepared(launch), unused, procedure, cold=False))
    return burst.runtime_us


def _empty_launch_us(gpu: Gpu) -> float:
    """Host time of one launch of an empty kernel, the queue never full."""
    best_us = float("inf")
    for _ in range(10):
        gpu.stream.synchronize()
        start_s = gpu.clock.now_s()
        for _ in range(100):
            gpu.stream.launch_empty()
        took_us = (gpu.clock.now_s() - start_s) * 1e6
        best_us = min(best_us, took_us / 100)
    gpu.stream.synchronize()
    return best_us


def _time_us(gpu: Gpu, run: Callable[[], None]) -> float:
    """On the GPU, between two events, which are all enqueued while it spins."""
    gpu.stream.spin(COVER_CYCLES)
    begin = gpu.stream.event()
    run()
    end = gpu.stream.event()
    end.synchronize()
    return elapsed_us(begin, end)
