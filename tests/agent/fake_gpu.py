"""A GPU on paper: the little of CuPy and NVML that the CUDA bench uses, over NumPy and a clock that only launches move.

    python stand_in_gpu.py ROOT CELLS        rows of the cells, as JSON, measured by the real CudaBackend

What is real: arenas, graphs, batches, stamps, the load and the meter, as enqueued. A GEMM takes 20 us (with 96 rows 8 ms) and is
right; the board draws 300 W; its counter steps ten times a second of the host's time; spins see 1980 MHz and every other kernel 1900.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

GEMM_US, SLOW_M, SLOW_US, WATTS, SPIN_MHZ, MHZ, SMS = 20.0, 96, 8000.0, 300, 1980, 1900, 132


class Gpu:
    """Where time passes; while a stream is captured, launches are noted instead."""

    def __init__(self) -> None:
        self.now_us, self.captured = 1e6, None

    def run(self, us: float) -> None:
        if self.captured is not None:
            self.captured.append(us)
        else:
            self.now_us += us


GPU = Gpu()


class Array(np.ndarray):
    """NumPy's, with the names that CuPy gives a pointer."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    def get(self, stream: Any = None) -> Any:
        return np.asarray(self).copy()


def _on_device(make: Any) -> Any:
    return lambda *args, **options: make(*args, **options).view(Array)


KERNELS: dict[int, Kernel] = {}
# by the address that launches name


class Kernel:
    def __init__(self, _code: str, name: str) -> None:
        self.name, self.kernel = name, SimpleNamespace(ptr=id(self))
        KERNELS[id(self)] = self

    def __call__(self, _grid: Any, _block: Any, args: Any) -> None:
        if self.name == "spin":
            args[1][:2] = int(GPU.now_us * SPIN_MHZ), int(GPU.now_us * 1e3)
        GPU.run(30.0 if self.name == "spin" else 5.0)
        if self.name == "spin":
            args[1][2:] = int(GPU.now_us * SPIN_MHZ), int(GPU.now_us * 1e3)


def launch_kernel(function: int, *args: int) -> None:
    """Of a stamp, whose one argument points to [sm, 2], or of a pass over the flush buffer."""
    if KERNELS[function].name == "touch":
        return GPU.run(60.0)
    assert KERNELS[function].name == "stamp"
    slot = ctypes.cast(ctypes.cast(args[-2], ctypes.POINTER(ctypes.c_void_p))[0], ctypes.POINTER(ctypes.c_void_p))[0]
    seen = np.ctypeslib.as_array(ctypes.cast(slot, ctypes.POINTER(ctypes.c_longlong)), (SMS, 2))
    seen[:, 0], seen[:, 1] = int(GPU.now_us * MHZ), int(GPU.now_us * 1e3)
    GPU.run(3.0)


class Graph:
    def __init__(self, us: float) -> None:
        self.us = us

    def upload(self, _stream: Any) -> None:
        pass

    def launch(self, _stream: Any) -> None:
        GPU.run(self.us)
        time.sleep(self.us * 1e-6)  # the counter goes by the host's clock


class Stream:
    ptr = 1

    def __init__(self, **_options: bool) -> None:
        pass

    def use(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def begin_capture(self) -> None:
        GPU.captured = []

    def end_capture(self) -> Graph:
        noted, GPU.captured = GPU.captured, None
        return Graph(sum(noted))


class Event:
    done = True

    def record(self, _stream: Any) -> None:
        self.at_us = GPU.now_us

    def synchronize(self) -> None:
        pass


class Gemm:
    """A library that multiplies right."""

    version = "paper 1.0"

    def prepare(self, gemm: Any, _config: Any, sets: Any) -> Any:
        from agent.dtypes import narrow, widen
        from agent.kernels import Prepared

        def launch(i: int) -> None:
            GPU.run(SLOW_US if gemm.m == SLOW_M else GEMM_US)
            if GPU.captured is None:
                a, b, c = (np.asarray(getattr(sets[i], name)) for name in "abc")
                a = widen(np, a.swapaxes(1, 2) if gemm.layout[0] == "t" else a, gemm.dtype)
                b = widen(np, b.swapaxes(1, 2) if gemm.layout[1] == "t" else b, gemm.dtype)
                product = gemm.alpha * np.matmul(a, b) + gemm.beta * np.nan_to_num(widen(np, c, gemm.c_dtype))
                c[...] = product if gemm.dtype == "fp64" else narrow(np, product.astype(np.float32), gemm.c_dtype)

        return Prepared(launch, {"kernel": "paper", "workspace_bytes": 0})


def stand_in() -> None:
    """In place of cupy, pynvml and the kernel families of CUDA."""
    cupy = ModuleType("cupy")
    cupy.__dict__.update({name: value for name, value in vars(np).items() if not name.startswith("__")})
    cupy.__dict__.update({name: _on_device(getattr(np, name)) for name in ("zeros", "empty", "ones", "empty_like", "stack")})
    properties = {"name": b"Paper GPU", "multiProcessorCount": SMS, "l2CacheSize": 2**20, "totalGlobalMem": 2**34, "major": 9, "minor": 0}
    normal = np.random.default_rng(0).standard_normal
    cupy.random = SimpleNamespace(standard_normal=_on_device(normal))
    cupy.copyto = lambda target, source: (np.copyto(target, source), GPU.run(50.0))
    cupy.RawKernel = Kernel
    cupy.RawModule = lambda code: SimpleNamespace(get_function=lambda name: Kernel(code, name))
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    cupy.cuda = SimpleNamespace(
        Stream=Stream,
        Event=Event,
        Device=lambda _i: SimpleNamespace(use=lambda: None),
        get_current_stream=Stream,
        get_elapsed_time=lambda begin, end: (end.at_us - begin.at_us) / 1e3,
        driver=SimpleNamespace(launchKernel=launch_kernel),
        runtime=SimpleNamespace(
            getDeviceProperties=lambda _i: properties,
            deviceGetPCIBusId=lambda _i: "0000:00:06.0",
            runtimeGetVersion=lambda: 13020,
            memGetInfo=lambda: (2**33, 2**34),
        ),
    )
    nvml = ModuleType("pynvml")
    began_s, processes = time.monotonic(), iter([[], *[["ours"]] * 10_000])
    answers = {
        "Init": None, "DeviceGetHandleByPciBusId": 1, "DeviceGetUUID": "GPU-paper", "DeviceGetMaxClockInfo": SPIN_MHZ, "DeviceGetTemperature": 40,
        "DeviceGetCurrentClocksThrottleReasons": 0, "DeviceGetEnforcedPowerLimit": 700_000, "DeviceGetMigMode": (0, 0), "SystemGetDriverVersion": "1",
        "DeviceGetFieldValues": [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=WATTS * 1000))],
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(nvml, f"nvml{name}", lambda *_args, answer=answer: answer)
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda _handle: int((time.monotonic() - began_s) * 10) * WATTS * 100
    nvml.nvmlDeviceGetComputeRunningProcesses = lambda _handle: next(processes)
    nvml.NVMLError = type("NVMLError", (Exception,), {})
    for name in ("NVML_CLOCK_SM", "NVML_TEMPERATURE_GPU", "NVML_FI_DEV_POWER_INSTANT"):
        setattr(nvml, name, 0)
    nvml.nvmlClocksThrottleReasonSwPowerCap = nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 4
    sys.modules.update({"cupy": cupy, "pynvml": nvml})
    for name in ("cublas", "cublaslt"):
        family = ModuleType(f"agent.kernels.{name}")
        family.FAMILY = Gemm()
        sys.modules[family.__name__] = family


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    stand_in()
    from agent.devices import cuda, cuda_peaks
    from agent.instrument import LiveInstrument
    from gemmcast.cell import Cell
    from gemmcast.procedure import Procedure

    cuda_peaks.PEAK_DIMS, cuda_peaks.COPY_ELEMENTS = (64,), 2**16
    backend = cuda.CudaBackend()
    device = backend.characterise()
    instrument = LiveInstrument(backend, device, Procedure(), "paper")
    outcomes = instrument.measure_all([Cell.from_dict(values) for values in json.loads(sys.argv[2])])
    print(json.dumps({"device": json.loads(device.to_json()), "rows": [outcome.row for outcome in outcomes]}, default=lambda value: value.item()))


if __name__ == "__main__":
    main()
