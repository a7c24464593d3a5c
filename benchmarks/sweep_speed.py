"""How fast a fleet measures: cells per second, how busy one GPU is, the gain of more GPUs.

    .venv/bin/python benchmarks/sweep_speed.py [--out folder] [--json]     on a machine with GPUs

Needs one GPU or more.

Each figure is of a real run: Ray, one agent per GPU, the scheduler, the sample store; no training.
The agents are warm: other shapes of the same families are measured first, so that libraries have
loaded their kernels and boards are at working temperature. `gpu_busy_share` is NVML's utilisation
of one GPU over both sweeps; `runtime_busy_share` and `power_busy_share` are those of each sweep.
With several GPUs the sweep runs on one of them and on all; `speedup_over_one` is the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemmcast.cli_parser import Parser
from gemmcast.errors import InputError
from gemmcast.program import json_line, run_script

if TYPE_CHECKING:
    from coordinator.fleet.interface import Fleet
    from coordinator.plan.schema import Plan
    from coordinator.samples.store import SampleStore

Table = dict[str, object]

POLL_S = 0.05
PAPER_CELLS_PER_S = 1 / 7.8
NO_FAILURE = ("ok", "unsupported")
LIBRARY_SWEEPS: list[Table] = [
    {
        "family": "cublas",
        "dtypes": ["fp32", "tf32", "fp16", "bf16"],
        "shapes": {"sample": 300, "max": 4096},
    },
    {
        "family": "tiled",
        "shapes": {"sample": 300, "max": 4096, "max_gflop": 20},
        "knobs": {"tile": [8, 16, 32]},
    },
    {
        "family": "cublaslt",
        "kernel": "default",
        "dtypes": ["fp16", "bf16"],
        "shapes": {"sample": 300, "max": 4096},
    },
]
POWER_SWEEP: Table = {
    "family": "cublas",
    "dtypes": ["fp16", "fp32"],
    "shapes": {"sample": 24, "min": 64, "max": 1024},
    "power_share": 1.0,
}
WARM_UP_SHAPES = 40
POWER_WARM_UP_SHAPES = 4


class Figures(TypedDict):
    """What one process measures on some GPUs."""

    runtime_cells_per_s: float
    power_cells_per_s: float
    gpu_busy_share: float
    runtime_busy_share: float
    power_busy_share: float
    rows_not_ok: float


def main() -> int:
    """Measure and print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the samples of each run there, as Parquet")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    # One run in a process by itself: Ray looks at the GPUs once.
    parser.add_argument("--gpus", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--node", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    uuids = _uuids()
    if args.gpus:
        print(json_line(_run(uuids[: args.gpus], args.out, args.node)))
        return 0
    if not uuids:
        raise InputError("GPU", None, "sweep_speed measures GPUs", "run it where there is one")
    # One directory, so that the GPUs are described once.
    with TemporaryDirectory() as node:
        figures = _compare(len(uuids), args.out, Path(node))
    if args.json:
        print(json_line(figures))
    else:
        for name, value in figures.items():
            print(f"{name:30} {value:10.3f}")
    return 0


def _compare(gpus: int, out: Path | None, node: Path) -> Mapping[str, float]:
    """The figures of one GPU, and the gain of all."""
    one = _in_a_process(1, out, node)
    figures = {
        "runtime_cells_per_s": one["runtime_cells_per_s"],
        "power_cells_per_s": one["power_cells_per_s"],
        "gpu_busy_share": one["gpu_busy_share"],
        "runtime_busy_share": one["runtime_busy_share"],
        "power_busy_share": one["power_busy_share"],
        "over_the_papers_sweep": one["runtime_cells_per_s"] / PAPER_CELLS_PER_S,
        "rows_not_ok": one["rows_not_ok"],
        "gpus": float(gpus),
    }
    if gpus > 1:
        every = _in_a_process(gpus, out, node)
        runtime_per_s = every["runtime_cells_per_s"]
        power_per_s = every["power_cells_per_s"]
        figures["all_gpus_runtime_cells_per_s"] = runtime_per_s
        figures["speedup_over_one"] = runtime_per_s / one["runtime_cells_per_s"]
        figures["power_speedup_over_one"] = power_per_s / one["power_cells_per_s"]
    return figures


def _uuids() -> list[str]:
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    except pynvml.NVMLError:
        return []


def _in_a_process(gpus: int, out: Path | None, node: Path) -> Figures:
    command = [sys.executable, __file__, "--gpus", str(gpus), "--node", str(node)]
    if out:
        command += ["--out", str(out)]
    # In NVML's order, so that the first GPU is the same one in each process.
    visible = ",".join(str(i) for i in range(gpus))
    env = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _run(uuids: list[str], out: Path | None, node: Path) -> Figures:
    from coordinator.fleet.cluster import RayFleet
    from coordinator.fleet.connection import EMBEDDED, connect
    from coordinator.samples.store import SampleStore

    runtime_plan = _plan(LIBRARY_SWEEPS)
    with TemporaryDirectory() as folder:
        connect(EMBEDDED)
        store = SampleStore.open(Path(folder) / "samples", create=True)
        fleet = RayFleet(runtime_plan, node)
        while len(fleet.ready_agents()) < len(uuids):
            fleet.poll(0.2)
        _measure(_plan(_warm_up_sweeps()), store, fleet)
        with _Utilisation(uuids[0]) as runtime_busy:
            runtime_s, runtime_rows = _measure(runtime_plan, store, fleet)
        with _Utilisation(uuids[0]) as power_busy:
            power_s, power_rows = _measure(_plan([POWER_SWEEP]), store, fleet)
        fleet.close()
        table = store.read()
    if out:
        out.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, out / f"sweep_speed_{len(uuids)}.parquet", compression="zstd")
    shares = [runtime_busy.share, power_busy.share]
    return Figures(
        runtime_cells_per_s=runtime_rows / runtime_s,
        power_cells_per_s=power_rows / power_s,
        gpu_busy_share=float(np.average(shares, weights=[runtime_s, power_s])),
        runtime_busy_share=runtime_busy.share,
        power_busy_share=power_busy.share,
        rows_not_ok=float(_not_ok(table)),
    )


def _plan(sweeps: list[Table]) -> Plan:
    from coordinator.plan.schema import parse_plan

    devices = {"kind": "cuda", "second_board": 0}
    return parse_plan({"name": "sweep-speed", "seed": 3, "devices": devices, "sweep": sweeps})


def _warm_up_sweeps() -> list[Table]:
    """The same families over a few other shapes."""
    sweeps = []
    for sweep in [POWER_SWEEP, *LIBRARY_SWEEPS]:
        count = POWER_WARM_UP_SHAPES if sweep is POWER_SWEEP else WARM_UP_SHAPES
        shapes = sweep["shapes"]
        assert isinstance(shapes, dict)
        sweeps.append({**sweep, "shapes": {**shapes, "sample": count, "seed": 99}})
    return sweeps


def _measure(plan: Plan, store: SampleStore, fleet: Fleet) -> tuple[float, int]:
    """Seconds of a run, and rows that it committed."""
    from coordinator.fleet.scheduler import Scheduler

    before = len(store.committed)
    start_s = monotonic()
    Scheduler(plan, store, fleet, None).run(stop=lambda: False)
    return monotonic() - start_s, len(store.committed) - before


def _not_ok(table: pa.Table) -> int:
    return sum(status not in NO_FAILURE for status in table["status"].to_pylist())


class _Utilisation:
    """NVML's utilisation of a GPU while this is open."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._readings = [0.0]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> _Utilisation:
        self._readings.clear()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def share(self) -> float:
        """Mean, 0 to 1."""
        return float(np.mean(self._readings)) / 100

    def _poll(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
        while not self._stop.is_set():
            self._readings.append(float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
            sleep(POLL_S)


if __name__ == "__main__":
    run_script(main)
