"""Ask a model from Python: what does this GEMM cost, and which configuration is cheapest?

python examples/embed.py MODEL [DEVICE]          MODEL: an .onnx file or a node's model directory
"""

import sys

from gemmcast import Gemm, KernelConfig, Predictor

gemm = Gemm(m=4096, n=1024, k=1024, dtype="fp32")
configs = [KernelConfig(family="tiled", tile_m=tile, tile_n=tile, tile_k=tile) for tile in (4, 8, 16, 32)]

with Predictor(sys.argv[1]) as predictor:
    device = sys.argv[2] if len(sys.argv) > 2 else predictor.devices[0]
    for config in configs:
        p = predictor.predict(gemm, config, device)
        doubt = ", beyond what the model was taught" if p.extrapolating else ""
        print(f"{config}: {p.runtime_us:.1f} us ({p.low['runtime_us']:.1f} to {p.high['runtime_us']:.1f}), {p.tflops:.2f} TFLOP/s{doubt}")
    print("pick:", predictor.pick(gemm, configs, device=device).config)
