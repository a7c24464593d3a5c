"""Use a model from Python: what does this GEMM cost, and which configuration is cheapest?

python examples/embed.py [MODEL [DEVICE]]

MODEL: an .onnx file or a node's model directory [default: the model that comes with gemmcast]
DEVICE: its name or words of it, such as h100 [default: the model's first]
"""

import sys

from gemmcast import Gemm, KernelConfig, Predictor

gemm = Gemm(m=4096, n=1024, k=1024, dtype="fp32")
configs = [
    KernelConfig(family="tiled", tile_m=tile, tile_n=tile, tile_k=tile) for tile in (4, 8, 16, 32)
]

with Predictor(*sys.argv[1:2]) as predictor:
    device = sys.argv[2] if len(sys.argv) > 2 else predictor.devices[0]
    for config in configs:
        p = predictor.predict(gemm, config, device)
        low_us, high_us = p.low["runtime_us"], p.high["runtime_us"]
        warning = ", outside the training range" if p.extrapolating else ""
        runtime = f"{p.runtime_us:.1f} us ({low_us:.1f} to {high_us:.1f})"
        print(f"{config}: {runtime}, {p.tflops:.2f} TFLOP/s{warning}")
    print("pick:", predictor.pick(gemm, configs, device=device).config)
