"""Latency of the demo's model: one query to all outputs, and a pick among 256 configurations.

    .venv/bin/python benchmarks/predict_latency.py [--workspace demo/workspace] [--json]

One thread. scikit-learn's figure is of the same model, fitted again from the same samples (the
store's version that the card names) in the same run; nothing is printed unless both agree on every
row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from coordinator.samples.store import SampleStore
from costmodel.dataset import split_by_shape, training_set
from costmodel.model import CostModel
from costmodel.onnx_session import PARITY_LIMIT
from gemmcast import KernelConfig, Predictor
from gemmcast.cli_parser import Parser
from gemmcast.errors import GemmcastError
from gemmcast.program import json_line, run_script
from gemmcast.query import Rows
from gemmcast.rows import config_of, gemm_of
from registry.registry import Registry

CANDIDATES = 256


def main() -> int:
    """The command; returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("demo/workspace"))
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    figures = measure(args.workspace)
    if args.json:
        print(json_line(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:24} {value:10.2f}")
    return 0


def measure(workspace: Path) -> dict[str, float]:
    """Latencies in us, the file's size and the number of its outputs.

    Raises:
        GemmcastError: no model or samples there, or the refitted model differs.
    """
    published = Registry(workspace / "registry").load("champion")
    card = published.card
    store = SampleStore.open(workspace / "samples", create=False)
    data = training_set(store.read(version=card.store_version))
    training, _ = split_by_shape(data, card.holdout)
    refitted = CostModel().fit_dataset(training)
    row = data.table.slice(0, 1).to_pylist()[0]
    gemm, config, device = gemm_of(row), config_of(row), row["device"]
    query = data.queries[:1]
    candidates = _candidates(config)
    with Predictor(workspace / "node") as predictor:
        _must_agree(refitted, predictor, data.queries)
        single = percentiles(lambda: predictor.predict_encoded(query[0]), runs=20_000)
        call = percentiles(lambda: predictor.predict(gemm, config, device), runs=20_000)
        in_sklearn = percentiles(lambda: refitted.predict(query), runs=300)
        pick = percentiles(lambda: predictor.pick(gemm, candidates, device=device), runs=500)
        outputs = len(predictor.outputs)
    return {
        "latency_p50_us": single[0],
        "single_p99_us": single[1],
        "predict_call_p50_us": call[0],
        "sklearn_latency_p50_us": in_sklearn[0],
        "pick256_p50_us": pick[0],
        "model_mib": len(published.model) / 2**20,
        "outputs": outputs,
    }


def percentiles(run: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median and 99th percentile of a call's time, in microseconds."""
    times_us: list[float] = []
    for _ in range(runs):
        start_s = perf_counter()
        run()
        times_us.append((perf_counter() - start_s) * 1e6)
    return float(np.median(times_us)), float(np.percentile(times_us, 99))


def _candidates(like: KernelConfig) -> list[KernelConfig]:
    """Configurations of the same kernel with different tiles."""
    configs: list[KernelConfig] = []
    for i in range(CANDIDATES):
        config = KernelConfig(
            family=like.family,
            kernel=like.kernel,
            block_threads=like.block_threads,
            cpu_threads=like.cpu_threads,
            tile_m=16 * (1 + i % 16),
            tile_n=16 * (1 + i // 16),
            tile_k=64,
        )
        configs.append(config)
    return configs


def _must_agree(refitted: CostModel, predictor: Predictor, queries: Rows) -> None:
    """Raise unless the published file predicts what the refitted model does."""
    from_file = predictor.predict_rows(queries)
    from_model = refitted.predict(queries)
    for name in predictor.outputs:
        worst = float(np.max(np.abs(from_file[name] / from_model[name] - 1)))
        if worst > PARITY_LIMIT:
            raise GemmcastError(
                f"the refitted model's {name} differs from the published one's by {worst:.1e}"
            )


if __name__ == "__main__":
    run_script(main)
