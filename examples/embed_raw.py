"""Use a model without gemmcast: NumPy, ONNX Runtime and docs/onnx.md.

python examples/embed_raw.py MODEL.onnx
"""

import json
import os
import sys

import numpy as np

# Before ONNX Runtime is imported: it would report to its vendor.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
properties = session.get_modelmeta().custom_metadata_map
assert properties["gemmcast.contract"] == "4", "another contract: see docs/onnx.md"
device = json.loads(properties["gemmcast.devices"])[0]
dtypes = json.loads(properties["gemmcast.dtypes"])
families = json.loads(properties["gemmcast.families"])
# The place of runtime_us in low and high.
column = json.loads(properties["gemmcast.outputs"]).index("runtime_us")


def query(m: int, n: int, k: int, tile: int) -> list[float]:
    """A tiled fp32 GEMM, both operands row-major and in memory: the 34 numbers of docs/onnx.md."""
    problem = [m, n, k, tile or m, tile or n, tile or k, 1, 4, 4, 0, dtypes["fp32"], 0, 0]
    # Of the knobs, only split_k is 1 when it is unknown. The tiled kernel has a thread for each
    # element of its tile. The last 0 stands for a cold cache.
    configuration = [families["tiled"], 0, 0, 0, 0, 1, 0, 0, 0, tile * tile, 0]
    machine = [
        device["compute_units"],
        device["peak_tflops"]["fp32"],
        device["dram_gbps"],
        device["l2_bytes"],
        device["clock_max_mhz"] or 0,
        device["empty_kernel_us"] or 0.5,
        device["power_limit_w"] or 0,
        device["idle_power_w"] or 0,
        device["l2_gbps"] or 2.2 * device["dram_gbps"],
    ]
    algorithm = 0
    return [*problem, *configuration, *machine, algorithm]


tiles = [4, 8, 16, 32]
rows = np.array([query(4096, 1024, 1024, tile) for tile in tiles], dtype=np.float32)
outputs = ["runtime_us", "tflops", "low", "high", "extrapolating"]
answers = zip(tiles, *session.run(outputs, {"question": rows}), strict=True)
for tile, runtime_us, tflops, low, high, extrapolating in answers:
    warning = ", outside the training range" if extrapolating else ""
    runtime = f"{runtime_us:.1f} us ({low[column]:.1f} to {high[column]:.1f})"
    print(f"tiled:tile={tile}: {runtime}, {tflops:.2f} TFLOP/s{warning}")
