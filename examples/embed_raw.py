"""Ask a model without gemmcast: NumPy, ONNX Runtime and docs/onnx.md.

python examples/embed_raw.py MODEL.onnx
"""

import json
import sys

import numpy as np
import onnxruntime as ort

session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = {key.removeprefix("gemmcast."): value for key, value in session.get_modelmeta().custom_metadata_map.items()}
assert about["contract"] == "2", "another contract: see docs/onnx.md"
device, dtypes, families = json.loads(about["devices"])[0], json.loads(about["dtypes"]), json.loads(about["families"])
column = json.loads(about["outputs"]).index("runtime_us")  # of low and high


def query(m: int, n: int, k: int, tile: int) -> list[float]:
    """A tiled fp32 GEMM, both operands row-major, operands in memory: the 34 numbers of docs/onnx.md."""
    return [
        m, n, k, tile or m, tile or n, tile or k, 1, 4, 4, 0, dtypes["fp32"], 0, 0,              # the problem
        families["tiled"], 0, 0, 0, 0, 1, 0, 0, 0, 0, 0,                                         # the configuration; cold
        device["compute_units"], device["peak_tflops"]["fp32"], device["dram_gbps"], device["l2_bytes"],
        device["clock_max_mhz"] or 0, device["empty_launch_us"], device["power_limit_w"] or 0, device["idle_power_w"] or 0,
        device["l2_gbps"] or 2.2 * device["dram_gbps"], 0,
    ]  # fmt: skip


tiles = [4, 8, 16, 32]
rows = np.array([query(4096, 1024, 1024, tile) for tile in tiles], dtype=np.float32)
wanted = ["runtime_us", "tflops", "low", "high", "extrapolating"]
for tile, time, speed, low, high, outside in zip(tiles, *session.run(wanted, {"question": rows}), strict=True):
    doubt = ", beyond what the model was taught" if outside else ""
    print(f"tiled tile={tile}: {time:.1f} us ({low[column]:.1f} to {high[column]:.1f}), {speed:.2f} TFLOP/s{doubt}")
