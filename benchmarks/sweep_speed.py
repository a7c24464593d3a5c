"""How fast a fleet of agents measures: cells a second without and with power, how busy one GPU is, and what more GPUs bring.

    .venv/bin/python benchmarks/sweep_speed.py [--out folder] [--json]      on a machine with NVIDIA GPUs

A real run each time: Ray, one agent per GPU, the loop that leases cells, the sample store. The agents are warm (other shapes of
the same families were measured before the clock starts, so that the libraries have loaded their kernels and the boards are at working
temperature), training is left out. `gpu_busy_share` is NVML's own utilisation of the one GPU, polled from this process over both
sweeps, and for each of them: `runtime_busy_share`, `power_busy_share`. With several GPUs the same sweep
is run on one of them and on all, and `speedup_over_one` is the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

POLL_S = 0.05
PAPER_CELLS_PER_S = 1 / 7.8
PLAN: dict[str, Any] = {
    "name": "sweep-speed",
    "seed": 3,
    "devices": {"kind": "cuda"},
    "sweep": [
        {"family": "cublas", "dtypes": ["fp32", "tf32", "fp16", "bf16"], "shapes": {"sample": 300, "max": 4096}},
        {"family": "tiled", "shapes": {"sample": 300, "max": 4096, "max_gflop": 20}, "knobs": {"tile": [8, 16, 32]}},
        {"family": "cublaslt", "kernel": "default", "dtypes": ["fp16", "bf16"], "shapes": {"sample": 300, "max": 4096}},
    ],
}
POWER_SWEEP: dict[str, Any] = {"family": "cublas", "dtypes": ["fp16", "fp32"], "shapes": {"sample": 24, "min": 64, "max": 1024}, "power_share": 1.0}
WARM_UP = [
    {**sweep, "shapes": {**sweep["shapes"], "sample": count, "seed": 99}} for sweep, count in ((POWER_SWEEP, 4), *((s, 40) for s in PLAN["sweep"]))
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the samples of each run there, as Parquet")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--gpus", type=int, help=argparse.SUPPRESS)  # one run, in a process of its own: Ray looks at the GPUs once
    parser.add_argument("--node", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.gpus:
        print(json.dumps(_run(_uuids()[: args.gpus], args.out, args.node)))
        return 0
    uuids = _uuids()
    if not uuids:
        print("sweep_speed: no NVIDIA GPU here", file=sys.stderr)
        return 2
    with TemporaryDirectory() as node:  # the GPUs are described once
        found = _compare(len(uuids), args.out, Path(node))
    print(json.dumps(found) if args.json else "\n".join(f"{name:30} {value:10.3f}" for name, value in found.items()))
    return 0


def _compare(gpus: int, out: Path | None, node: Path) -> dict[str, float]:
    one = _in_a_process(1, out, node)
    found = {name: one[name] for name in ("runtime_cells_per_s", "power_cells_per_s", "gpu_busy_share", "runtime_busy_share", "power_busy_share")}
    found |= {"over_the_papers_sweep": one["runtime_cells_per_s"] / PAPER_CELLS_PER_S, "rows_not_ok": one["rows_not_ok"], "gpus": float(gpus)}
    if gpus > 1:
        everyone = _in_a_process(gpus, out, node)
        found["all_gpus_runtime_cells_per_s"] = everyone["runtime_cells_per_s"]
        found["speedup_over_one"] = everyone["runtime_cells_per_s"] / one["runtime_cells_per_s"]
        found["power_speedup_over_one"] = everyone["power_cells_per_s"] / one["power_cells_per_s"]
    return found


def _uuids() -> list[str]:
    import pynvml

    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _in_a_process(gpus: int, out: Path | None, node: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--gpus", str(gpus), "--node", str(node), *(["--out", str(out)] if out else [])]
    # in NVML's order, so that the first is the same for both
    env = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus)))}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run(uuids: list[str], out: Path | None, node: Path) -> dict[str, float]:
    from coordinator.fleet.cluster import EMBEDDED, RayFleet, connect
    from coordinator.plan.schema import parse_plan
    from coordinator.samples.store import SampleStore

    warm_up, runtime, power = (parse_plan({**PLAN, "sweep": sweeps}) for sweeps in (WARM_UP, PLAN["sweep"], [POWER_SWEEP]))
    with TemporaryDirectory() as folder:
        connect(EMBEDDED)
        store = SampleStore.open(Path(folder) / "samples", create=True)
        fleet = RayFleet(runtime, node)
        while len(fleet.ready_agents()) < len(uuids):  # the clock starts when every agent is ready
            fleet.poll(0.2)
        _measure(warm_up, store, fleet)
        with _Utilisation(uuids[0]) as runtime_busy:
            runtime_s, runtime_rows = _measure(runtime, store, fleet)
        with _Utilisation(uuids[0]) as power_busy:
            power_s, power_rows = _measure(power, store, fleet)
        fleet.close()
        table = store.read()
    if out:
        out.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, out / f"sweep_speed_{len(uuids)}.parquet", compression="zstd")
    return {
        "runtime_cells_per_s": runtime_rows / runtime_s,
        "power_cells_per_s": power_rows / power_s,
        "gpu_busy_share": float(np.average([runtime_busy.share, power_busy.share], weights=[runtime_s, power_s])),
        "runtime_busy_share": runtime_busy.share,
        "power_busy_share": power_busy.share,
        "rows_not_ok": float(_not_ok(table)),
    }


def _measure(plan: Any, store: Any, fleet: Any) -> tuple[float, int]:
    """Seconds, and rows committed meanwhile."""
    from coordinator.fleet.scheduler import Scheduler

    before = len(store.committed)
    start_s = monotonic()
    Scheduler(plan, store, fleet, None).run(stop=lambda: False)
    return monotonic() - start_s, len(store.committed) - before


def _not_ok(table: pa.Table) -> int:
    return sum(status not in ("ok", "unsupported") for status in table["status"].to_pylist())


class _Utilisation:
    """NVML's utilisation of a GPU while this is open."""

    def __init__(self, uuid: str) -> None:
        self._uuid, self._readings = uuid, [0.0]
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
        return float(np.mean(self._readings)) / 100

    def _poll(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
        while not self._stop.is_set():
            self._readings.append(float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
            sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
