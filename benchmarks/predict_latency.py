"""Latency of the demo's model: one query to all outputs, and a pick among 256 configurations.

    .venv/bin/python benchmarks/predict_latency.py [--workspace demo/workspace] [--json]

One thread; two minutes. scikit-learn's figure is of the same model, fitted again from the same
samples (the store's version that the card names) in the same run; nothing is printed unless both
agree on every row.

`shipped` is one query to the shipped model through ONNX Runtime, `c` the same model as C, called
from C (c_latency.c), `c_ctypes` through ctypes; without a C compiler these two are null.
`empty_graph` is what ONNX Runtime takes for a graph that does nothing, `repeat` a query that came
before. Each is the median of the quietest of five stretches; `..._over_onnx` are their ratios to
the same model in ONNX Runtime, which hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from coordinator.samples.store import SampleStore
from costmodel.dataset import split_by_shape, training_set
from costmodel.model import CostModel
from costmodel.onnx_export import empty_graph
from costmodel.onnx_session import PARITY_LIMIT, open_session, p50_us
from gemmcast import Gemm, KernelConfig, Predictor, models
from gemmcast.cli_parser import Parser
from gemmcast.errors import GemmcastError
from gemmcast.program import json_line, run_script
from gemmcast.query import FIELDS, INPUT, Rows, encode_configs
from gemmcast.rows import config_of, gemm_of
from registry.exporting import export_files
from registry.registry import Registry

CANDIDATES = 256
RUNS: Final = 20_000
MAX_SIZE: Final = 4096
C_MAIN: Final = Path(__file__).with_name("c_latency.c")
C_FLAGS: Final = ("-std=c99", "-O3", "-fno-trapping-math")


class CLatency(NamedTuple):
    """Of one query to the shipped model as C; None without a compiler."""

    from_c_us: float | None
    through_ctypes_us: float | None


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
        print(f"{name:24} {'none' if value is None else f'{value:10.2f}':>10}")
    return 0


def measure(workspace: Path) -> dict[str, float | None]:
    """Latencies in us, their ratios, the file's size and the number of its outputs.

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
        single = percentiles(lambda: predictor.predict_encoded(query[0]), runs=RUNS)
        gemms = _different(gemm)
        call = percentiles(lambda: predictor.predict(next(gemms), config, device), runs=RUNS)
        repeat_us = p50_us(lambda: predictor.predict(gemm, config, device), runs=RUNS)
        onnx_us = p50_us(lambda: predictor.predict_encoded(query[0]), runs=RUNS)
        in_sklearn = percentiles(lambda: refitted.predict(query), runs=300)
        pick = percentiles(lambda: predictor.pick(gemm, candidates, device=device), runs=500)
        outputs = len(predictor.outputs)
    return {
        "latency_p50_us": single[0],
        "single_p99_us": single[1],
        "predict_call_p50_us": call[0],
        "sklearn_latency_p50_us": in_sklearn[0],
        "repeat_p50_us": repeat_us,
        "repeat_over_onnx": repeat_us / onnx_us,
        "empty_graph_p50_us": _empty_graph_us(),
        **_of_the_shipped_model(),
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


def _different(gemm: Gemm) -> Iterator[Gemm]:
    """GEMMs of which none came before."""
    for size in count():
        yield replace(gemm, m=1 + size % MAX_SIZE, n=1 + size // MAX_SIZE)


def _empty_graph_us() -> float:
    session = open_session(empty_graph())
    row = np.zeros((1, len(FIELDS)), dtype=np.float32)
    return p50_us(lambda: session.run(None, {INPUT: row}), runs=RUNS)


def _of_the_shipped_model() -> dict[str, float | None]:
    """One query in ONNX Runtime and as C, and the ratios."""
    with Predictor() as predictor:
        rows = _rows(predictor)
        shipped_us = p50_us(lambda: predictor.predict_encoded(rows[0]), runs=RUNS)
    with tempfile.TemporaryDirectory() as folder:
        as_c = _as_c(Path(folder), rows)
    figures: dict[str, float | None] = {"shipped_p50_us": shipped_us}
    for name, value_us in (("c", as_c.from_c_us), ("c_ctypes", as_c.through_ctypes_us)):
        figures[f"{name}_p50_us"] = value_us
        figures[f"{name}_over_onnx"] = None if value_us is None else value_us / shipped_us
    return figures


def _rows(predictor: Predictor) -> Rows:
    """Queries about different GEMMs, with the library's choice."""
    config = KernelConfig(family="cublas")
    parts: list[Rows] = []
    for size in range(1, CANDIDATES + 1):
        gemm = Gemm(m=16 * size, n=4096, k=4096, dtype="bf16", layout="nt")
        parts.append(encode_configs(gemm, [config], predictor.devices[0]))
    return np.concatenate(parts)


def _as_c(folder: Path, rows: Rows) -> CLatency:
    compiler = shutil.which("cc")
    if compiler is None:
        return CLatency(None, None)
    source = folder / "gemmcast_model.c"
    export_files(models.path().read_bytes(), source, "c", "the shipped model")
    program, library = folder / "latency", folder / "gemmcast_model.so"
    build = [compiler, *C_FLAGS, f"-I{folder}", str(source)]
    subprocess.run([*build, str(C_MAIN), "-o", str(program), "-lm"], check=True)
    subprocess.run([*build, "-shared", "-fPIC", "-o", str(library), "-lm"], check=True)
    done = subprocess.run([program], input=rows.tobytes(), capture_output=True, check=True)
    return CLatency(float(done.stdout), _through_ctypes_us(library, rows))


def _through_ctypes_us(library: Path, rows: Rows) -> float:
    predict = ctypes.CDLL(str(library)).gemmcast_predict
    predict.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    # 15 values, and the flag
    answer = np.zeros(16, dtype=np.float32)
    question, target = rows[0].ctypes.data, answer.ctypes.data
    return p50_us(lambda: predict(question, target), runs=RUNS)


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
