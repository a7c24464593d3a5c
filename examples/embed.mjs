// Ask a model from JavaScript, in Node or a browser: ONNX Runtime Web and docs/onnx.md.
//
//     npm install onnxruntime-web
//     gemmcast info --model MODEL.onnx --json > about.json       (ONNX Runtime Web does not show a file's metadata)
//     node examples/embed.mjs MODEL.onnx about.json

import { readFileSync } from "node:fs"
import * as ort from "onnxruntime-web"

const [model, about] = process.argv.slice(2).map((path) => readFileSync(path))
const { contract, outputs, devices: [device] } = JSON.parse(about)
if (contract !== "2") throw new Error(`contract ${contract}: see docs/onnx.md`)
const session = await ort.InferenceSession.create(model)

// A tiled fp32 GEMM, both operands row-major and in memory: the 34 numbers of docs/onnx.md.
const FP32 = 1, TILED = 1
const question = (m, n, k, tile) => [
  m, n, k, tile || m, tile || n, tile || k, 1, 4, 4, 0, FP32, 0, 0,   // the problem
  TILED, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0,                                // the configuration; cold
  device.compute_units, device.peak_tflops.fp32, device.dram_gbps, device.l2_bytes,
  device.clock_max_mhz ?? 0, device.empty_launch_us, device.power_limit_w ?? 0, device.idle_power_w ?? 0,
  device.l2_gbps || 2.2 * device.dram_gbps, 0,
]

const tiles = [4, 8, 16, 32]
const rows = Float32Array.from(tiles.flatMap((tile) => question(4096, 1024, 1024, tile)))
const wanted = ["runtime_us", "tflops", "low", "high", "extrapolating"]
const said = await session.run({ question: new ort.Tensor("float32", rows, [tiles.length, 34]) }, wanted)
const [us, speed, low, high, outside] = wanted.map((name) => said[name].data)
const column = (i) => i * outputs.length + outputs.indexOf("runtime_us")   // low and high have one for each of outputs
tiles.forEach((tile, i) =>
  console.log(`tiled tile=${tile}: ${us[i].toFixed(1)} us (${low[column(i)].toFixed(1)} to ${high[column(i)].toFixed(1)}), ` +
    `${speed[i].toFixed(2)} TFLOP/s${outside[i] ? ", beyond what the model was taught" : ""}`))
