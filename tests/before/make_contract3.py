"""Make contract3.tar.xz with the program of commit de1b1cd, checked out in /tmp/before.

    cd /tmp/before
    PYTHONPATH=/tmp/before python /path/to/make_contract3.py OUT
    tar --sort=name --owner=0 --group=0 -c -C OUT . | xz -9e > contract3.tar.xz

Imports modules as that commit has them. No test runs this file.
"""

import importlib.util
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from coordinator.samples.export import write_dataset
from coordinator.samples.formats.t4 import write_t4
from coordinator.samples.store import SampleStore
from costmodel.model import CostModel
from costmodel.onnx_export import export
from gemmcast import Predictor, modeldir, query
from gemmcast.arrow import read_samples

ROOT = Path("/tmp/before")
CONFTEST = ROOT / "tests" / "gemmcast" / "conftest.py"
SLOW_HOST = "GPU-c6346251-56aa-251d-000b-d51a55a36e64"
"""A board of datasets/h100_sxm.parquet whose host needed 11.25 us for a launch."""
ROWS_EACH = 12
LAUNCHES_US = (1.5, 40.0)


def main(out: Path) -> None:
    """Write answers.json, model_directory/, samples/, rows.parquet and rows.t4.json."""
    spec = importlib.util.spec_from_file_location("conftest", CONFTEST)
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    directory = out / "model_directory"
    modeldir.put_model(directory, fitted(fixtures), "9")
    modeldir.put_device(directory, fixtures.GPU)
    (out / "answers.json").write_text(json.dumps(answers(directory, fixtures), indent=0))
    recorded = rows()
    SampleStore.open(out / "samples", create=True).append([recorded])
    write_dataset(recorded, out / "rows.parquet")
    write_t4(recorded, out / "rows.t4.json")


def rows():
    """Some of a GPU and some of a CPU."""
    of_gpu = read_samples(ROOT / "datasets" / "h100_sxm.parquet")
    is_slow = [uuid == SLOW_HOST for uuid in of_gpu["device_uuid"].to_pylist()]
    of_cpu = read_samples(ROOT / "tests" / "before" / "cpu.parquet")
    return pa.concat_tables(
        [of_gpu.filter(is_slow).slice(0, ROWS_EACH), of_cpu.slice(0, ROWS_EACH)]
    )


def fitted(fixtures):
    """The file of a tiny model of 240 made-up rows, on devices whose hosts differ."""
    slow = replace(fixtures.GPU, name="GPU S", uuid="GPU-s", empty_launch_us=11.25)
    devices = [fixtures.GPU, slow, fixtures.CPU]
    drawn = []
    for device in devices:
        drawn += [(gemm, config, device) for gemm, config in fixtures._draw(device, 80)]
    queries = np.array([query.encode(*one) for one in drawn], dtype=np.float32)
    work = queries[:, :3].prod(axis=1, dtype=np.float64)
    peak_tflops = queries[:, query.AT["peak_tflops"]]
    noise = np.random.default_rng(0).normal(size=len(queries))
    runtime_us = (3 + work * 2e-6 / peak_tflops) * np.exp(0.3 * noise)
    model = CostModel(members=1, steps=200, iterations=3, leaves=4, tree_weight={"runtime": 0.5})
    return export(model.fit(queries, {"runtime_us": runtime_us}), devices)


def answers(directory, fixtures):
    """What that program predicts for 16 queries, and for one of them on two other hosts."""
    predictions, hosts = [], []
    with Predictor(directory) as predictor:
        for device in (fixtures.GPU, fixtures.CPU):
            for gemm, config in fixtures._draw(device, 8, seed=99):
                predictions.append(answer(predictor, gemm, config, device))
        gemm, config = fixtures._draw(fixtures.GPU, 1, seed=99)[0]
        for launch_us in LAUNCHES_US:
            host = replace(fixtures.GPU, empty_launch_us=launch_us)
            hosts.append({"launch_us": launch_us, **answer(predictor, gemm, config, host)})
    return {"predictions": predictions, "hosts": hosts}


def answer(predictor, gemm, config, device):
    """One query and its prediction."""
    return {
        "gemm": asdict(gemm),
        "config": asdict(config),
        "device": device.name,
        "prediction": asdict(predictor.predict(gemm, config, device)),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
