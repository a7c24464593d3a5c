"""A fake GPU: what the CUDA backend uses of CuPy and NVML, over NumPy and a made-up clock.

    with fake_gpu.installed() as gpu:
        backend = CudaBackend(gpu.clock)

What is real: arenas, graphs, batches, stamps, the load and the meter, as they are enqueued. A GEMM
takes 20 us (with 96 rows 8 ms) and is right; the board draws 300 W; its counter steps ten times a
second; spins see 1980 MHz and every other kernel 1900 MHz. The GPU works beside the host: a launch
costs the host 2 us and runs when the launches before it are done. Its L2 keeps what was used last;
launches in graphs are counted as hits where it holds their operands, else as misses.
"""

from __future__ import annotations

import ctypes
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from agent.devices.rotation import COLD
from agent.power_window import HostClock

GEMM_US = 20.0
SLOW_M = 96
SLOW_US = 8000.0
STAMP_US = 3.0
TOUCH_US = 60.0
COPY_US = 50.0
SHORT_US = 5.0
HOST_LAUNCH_US = 2.0
ENERGY_READ_US = 2000.0
L2_BYTES = 2**20
FLUSH_BUFFER = 1
"""Stands for its address."""
STEP_S = 0.1
WATTS = 300
SPIN_MHZ = 1980
SPIN_US = 60_000 / SPIN_MHZ
MHZ = 1900
SMS = 132
REPLACED = (
    "cupy",
    "pynvml",
    "agent.devices.cuda",
    "agent.devices.nvml",
    "agent.kernels.cublas",
    "agent.kernels.launch",
)
"""Modules with these beginnings are imported anew over the fakes, and put back afterwards."""
Launch = tuple[float, tuple[int, int] | None]
"""In a graph: its time (us); address and bytes of its operands."""


class Gpu:
    """Two clocks that only launches and waits move: the host's, and the end of the GPU's queue."""

    def __init__(self) -> None:
        self.host_us = 1e6
        self.queue_end_us = 1e6
        self.captured: list[Launch] | None = None
        self.l2 = L2()
        self.graphs: dict[str, int] = {"hits": 0, "misses": 0}
        """Launches in graphs."""
        self.enqueued: list[str] = []
        """Names of what ran, in its order: gemm, graph, and kernels by their names."""
        self.slow_from_us = float("inf")
        """From here on the clock is half of MHZ."""
        self.clock = HostClock(now_s=self.now_s, wait=self.wait)

    def now_s(self) -> float:
        return self.host_us * 1e-6

    def wait(self, seconds: float) -> None:
        self.host_us += seconds * 1e6

    def run(self, us: float, name: str = "", operands: tuple[int, int] | None = None) -> None:
        """Enqueue a kernel; while a graph is captured, note it instead.

        Args:
            operands: the address and the bytes of what it uses.
        """
        if self.captured is not None:
            self.captured.append((us, operands))
            return
        if operands is not None:
            self.l2.use(*operands)
        self.enqueued.append(name)
        self.queue_end_us = max(self.queue_end_us, self.host_us) + us
        self.host_us += HOST_LAUNCH_US

    def run_graph(self, launches: list[Launch]) -> None:
        """Enqueue them all, and count which find their operands in L2."""
        self.run(sum(us for us, _ in launches), "graph")
        for _, operands in launches:
            if operands is not None:
                is_hit = self.l2.use(*operands)
                self.graphs["hits" if is_hit else "misses"] += 1

    def cycles(self, at_us: float) -> int:
        """Of an SM until that time."""
        slow_us = max(0.0, at_us - self.slow_from_us)
        return int((at_us - slow_us / 2) * MHZ)

    def wait_until(self, at_us: float) -> None:
        self.host_us = max(self.host_us, at_us)

    def energy_mj(self) -> int:
        """Of whole steps; a read takes two milliseconds."""
        self.host_us += ENERGY_READ_US
        steps = int(self.now_s() / STEP_S)
        return round(steps * WATTS * STEP_S * 1e3)


class L2:
    """A cache that keeps what was used last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, int] = OrderedDict()
        self._bytes = 0

    def use(self, address: int, size: int) -> bool:
        """Whether it held this; from now on it does."""
        is_hit = address in self._kept
        self._bytes -= self._kept.pop(address, 0)
        self._kept[address] = size
        self._bytes += size
        while self._bytes > L2_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped
        return is_hit


class Array(np.ndarray):
    """NumPy's, with the names that CuPy gives a pointer and a copy to the host."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    def get(self, stream: Any = None) -> Any:
        return np.asarray(self).copy()


class Graph:
    def __init__(self, gpu: Gpu, launches: list[Launch]) -> None:
        self._gpu = gpu
        self._launches = launches

    def upload(self, _stream: Any) -> None:
        pass

    def launch(self, _stream: Any) -> None:
        self._gpu.run_graph(self._launches)


class Stream:
    ptr = 1

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def use(self) -> None:
        pass

    def synchronize(self) -> None:
        self._gpu.wait_until(self._gpu.queue_end_us)

    def begin_capture(self) -> None:
        self._gpu.captured = []

    def end_capture(self) -> Graph:
        noted, self._gpu.captured = self._gpu.captured, None
        return Graph(self._gpu, noted or [])


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.at_us = 0.0

    def record(self, _stream: Any) -> None:
        self.at_us = max(self._gpu.queue_end_us, self._gpu.host_us)

    @property
    def done(self) -> bool:
        return self._gpu.host_us >= self.at_us

    def synchronize(self) -> None:
        self._gpu.wait_until(self.at_us)


class Kernel:
    """One of the kernels of agent/devices/cuda_stream.py or cuda_peaks.py, by its name."""

    def __init__(self, gpu: Gpu, name: str, kernels: dict[int, Kernel]) -> None:
        self._gpu = gpu
        self.name = name
        self.kernel = SimpleNamespace(ptr=id(self))
        kernels[id(self)] = self

    def __call__(self, _grid: Any, _block: Any, args: Any) -> None:
        if self.name != "spin":
            self._gpu.run(SHORT_US, self.name)
            return
        begin_us = max(self._gpu.queue_end_us, self._gpu.host_us)
        spin_us = float(args[0]) / SPIN_MHZ
        self._gpu.run(spin_us, self.name)
        end_us = begin_us + spin_us
        args[1][:] = [_cycles(begin_us), _ns(begin_us), _cycles(end_us), _ns(end_us)]

    def launch(self, arguments: int) -> None:
        """As `launchKernel` of the driver: `arguments` points to an array of pointers."""
        if self.name == "touch":
            self._gpu.run(TOUCH_US, self.name, (FLUSH_BUFFER, COLD * L2_BYTES))
            return
        assert self.name == "stamp"
        pointers = ctypes.cast(arguments, ctypes.POINTER(ctypes.c_void_p))
        slot = ctypes.cast(pointers[0], ctypes.POINTER(ctypes.c_void_p))[0]
        seen = np.ctypeslib.as_array(ctypes.cast(slot, ctypes.POINTER(ctypes.c_longlong)), (SMS, 2))
        at_us = max(self._gpu.queue_end_us, self._gpu.host_us)
        seen[:, 0] = self._gpu.cycles(at_us)
        seen[:, 1] = _ns(at_us)
        self._gpu.run(STAMP_US, self.name)


def _cycles(us: float) -> int:
    return int(us * SPIN_MHZ)


def _ns(us: float) -> int:
    return int(us * 1e3)


class Library:
    """A kernel family that multiplies right."""

    version = "fake 1.0"

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def prepare(self, gemm: Any, _config: Any, sets: Any) -> Any:
        from agent.kernels import Prepared

        def launch(i: int) -> None:
            us = SLOW_US if gemm.m == SLOW_M else GEMM_US
            self._gpu.run(us, "gemm", (sets[i].c.ctypes.data, gemm.operand_bytes))
            if self._gpu.captured is None:
                _multiply(gemm, sets[i])

        return Prepared(launch, {"kernel": "fake", "workspace_bytes": 0})


def _multiply(gemm: Any, operands: Any) -> None:
    from agent.dtypes import narrow, widen

    a, b, c = (np.asarray(getattr(operands, name)) for name in "abc")
    a = a.swapaxes(1, 2) if gemm.layout[0] == "t" else a
    b = b.swapaxes(1, 2) if gemm.layout[1] == "t" else b
    product = gemm.alpha * np.matmul(widen(np, a, gemm.dtype), widen(np, b, gemm.dtype))
    product += gemm.beta * np.nan_to_num(widen(np, c, gemm.c_dtype))
    if gemm.dtype == "fp64":
        c[...] = product
    else:
        c[...] = narrow(np, product.astype(np.float32), gemm.c_dtype)


def _on_device(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **options: make(*args, **options).view(Array)


def _fake_cupy(gpu: Gpu) -> ModuleType:
    cupy = ModuleType("cupy")
    for name, value in vars(np).items():
        if not name.startswith("__"):
            setattr(cupy, name, value)
    for name in ("zeros", "empty", "ones", "empty_like", "stack"):
        setattr(cupy, name, _on_device(getattr(np, name)))
    kernels: dict[int, Kernel] = {}

    def raw_module(code: str) -> Any:
        return SimpleNamespace(get_function=lambda name: Kernel(gpu, name, kernels))

    def copyto(target: Any, source: Any) -> None:
        np.copyto(target, source)
        gpu.run(COPY_US)

    def launch_kernel(function: int, *args: int) -> None:
        kernels[function].launch(args[-2])

    normal = np.random.default_rng(0).standard_normal
    cupy.random = SimpleNamespace(standard_normal=_on_device(normal))
    cupy.copyto = copyto
    cupy.RawModule = raw_module
    cupy.RawKernel = lambda code, name: Kernel(gpu, name, kernels)
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    cupy.cuda = SimpleNamespace(
        Stream=lambda **_options: Stream(gpu),
        Event=lambda: Event(gpu),
        Device=lambda _i: SimpleNamespace(use=lambda: None),
        get_current_stream=lambda: Stream(gpu),
        get_elapsed_time=lambda begin, end: (end.at_us - begin.at_us) / 1e3,
        driver=SimpleNamespace(launchKernel=launch_kernel),
        runtime=_fake_runtime(),
    )
    return cupy


def _fake_runtime() -> SimpleNamespace:
    properties = {
        "name": b"Fake GPU",
        "multiProcessorCount": SMS,
        "l2CacheSize": L2_BYTES,
        "totalGlobalMem": 2**34,
        "major": 9,
        "minor": 0,
    }
    return SimpleNamespace(
        getDeviceProperties=lambda _i: properties,
        deviceGetPCIBusId=lambda _i: "0000:00:06.0",
        runtimeGetVersion=lambda: 13020,
        memGetInfo=lambda: (2**33, 2**34),
    )


def _fake_nvml(gpu: Gpu) -> ModuleType:
    nvml = ModuleType("pynvml")
    instant = SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=WATTS * 1000))
    answers = {
        "nvmlInit": None,
        "nvmlDeviceGetHandleByPciBusId": 1,
        "nvmlDeviceGetUUID": "GPU-fake",
        "nvmlDeviceGetMaxClockInfo": SPIN_MHZ,
        "nvmlDeviceGetTemperature": 40,
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
        "nvmlDeviceGetEnforcedPowerLimit": 700_000,
        "nvmlDeviceGetMigMode": (0, 0),
        "nvmlSystemGetDriverVersion": "1",
        "nvmlDeviceGetFieldValues": [instant],
    }
    for name, answer in answers.items():
        setattr(nvml, name, lambda *_args, answer=answer: answer)
    # None at first; later the context of this process.
    this_one = SimpleNamespace(pid=4711)
    processes = iter([[], *[[this_one]] * 10_000])
    nvml.nvmlDeviceGetComputeRunningProcesses = lambda _handle: next(processes)
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda _handle: gpu.energy_mj()
    nvml.NVMLError = type("NVMLError", (Exception,), {})
    for name in ("NVML_CLOCK_SM", "NVML_TEMPERATURE_GPU", "NVML_FI_DEV_POWER_INSTANT"):
        setattr(nvml, name, 0)
    nvml.nvmlClocksThrottleReasonSwPowerCap = 4
    nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 4
    return nvml


@contextmanager
def installed() -> Iterator[Gpu]:
    """In place of cupy, pynvml and the libraries' kernel families; small peak measurements."""
    import agent.devices
    import agent.kernels

    gpu = Gpu()
    packages = (agent.devices, agent.kernels)
    before = [dict(vars(package)) for package in packages]
    real = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_replaced(name)}
    sys.modules["cupy"] = _fake_cupy(gpu)
    sys.modules["pynvml"] = _fake_nvml(gpu)
    for name in ("agent.kernels.cublas", "agent.kernels.cublaslt"):
        family = ModuleType(name)
        family.FAMILY = Library(gpu)
        sys.modules[name] = family
    try:
        from agent.devices import cuda_peaks

        cuda_peaks.PEAK_DIMS = (64,)
        cuda_peaks.COPY_ELEMENTS = 2**16
        yield gpu
    finally:
        for name in list(sys.modules):
            if _is_replaced(name):
                del sys.modules[name]
        sys.modules.update(real)
        for package, names in zip(packages, before, strict=True):
            for name in set(vars(package)) - set(names):
                delattr(package, name)
            vars(package).update(names)


def _is_replaced(name: str) -> bool:
    return name.startswith(REPLACED)
