"""Latency of the demo's model: one raw question to all outputs, and a pick among 256 configurations; one thread.

    .venv/bin/python benchmarks/predict_latency.py [--workspace demo/workspace] [--json]

scikit-learn's figure is of the same model, fitted again from the very samples (the store's version that the card names), in the same
run; the benchmark refuses to print it unless the two agree on every row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from coordinator.samples.store import SampleStore
from costmodel.dataset import dataset, held_out
from costmodel.model import CostModel
from costmodel.onnx_session import PARITY_LIMIT
from gemmcast import KernelConfig, Predictor
from gemmcast.errors import GemmcastError
from gemmcast.rows import config_of, gemm_of
from registry.registry import Registry

CANDIDATES = 256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("demo/workspace"))
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    try:
        found = measure(args.workspace)
    except GemmcastError as error:
        print(f"predict_latency: {error}; run `make demo` first", file=sys.stderr)
        return 2
    print(json.dumps(found) if args.json else "\n".join(f"{name:24} {value:10.2f}" for name, value in found.items()))
    return 0


def measure(workspace: Path) -> dict[str, float]:
    model, card, _ = Registry(workspace / "registry").load("champion")
    data = dataset(SampleStore.open(workspace / "samples", create=False).read(version=card.store_version))
    twin = CostModel().fit_dataset(data.take(~held_out(data.shapes, card.holdout)))
    with Predictor(workspace / "node") as predictor:
        row = data.table.slice(0, 1).to_pylist()[0]
        gemm, config, query = gemm_of(row), config_of(row), data.queries[:1]
        _must_agree(twin, predictor, data.queries)
        candidates = _candidates(config)
        raw = percentiles(lambda: predictor.predict_encoded(query[0]), runs=20_000)
        return {
            "latency_p50_us": raw[0],
            "single_p99_us": raw[1],
            "predict_call_p50_us": percentiles(lambda: predictor.predict(gemm, config, row["device"]), runs=20_000)[0],
            "sklearn_latency_p50_us": percentiles(lambda: twin.predict(query), runs=300)[0],
            "pick256_p50_us": percentiles(lambda: predictor.pick(gemm, candidates, device=row["device"]), runs=500)[0],
            "model_mib": len(model) / 2**20,
            "outputs": len(predictor.outputs),
        }


def percentiles(run: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median and 99th percentile of a call, in microseconds."""
    took = []
    for _ in range(runs):
        start_s = perf_counter()
        run()
        took.append((perf_counter() - start_s) * 1e6)
    return float(np.median(took)), float(np.percentile(took, 99))


def _candidates(like: KernelConfig) -> list[KernelConfig]:
    return [
        KernelConfig(family=like.family, kernel=like.kernel, cpu_threads=like.threads, tile_m=16 * (1 + i % 16), tile_n=16 * (1 + i // 16), tile_k=64)
        for i in range(CANDIDATES)
    ]


def _must_agree(twin: CostModel, predictor: Predictor, queries: object) -> None:
    got, want = predictor.predict_rows(queries), twin.predict(queries)  # type: ignore[arg-type]
    worst = max(float(np.max(np.abs(got[name] / want[name] - 1))) for name in predictor.outputs)
    if worst > PARITY_LIMIT:
        raise GemmcastError(f"the refitted model differs from the published one by {worst:.1e}")


if __name__ == "__main__":
    sys.exit(main())
