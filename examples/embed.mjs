// Use a model from JavaScript, in Node or a browser: ONNX Runtime Web and docs/onnx.md.
//
//     npm install onnxruntime-web
//     gemmcast info --model MODEL.onnx --json > about.json     (ONNX Runtime Web hides a file's metadata)
//     node examples/embed.mjs MODEL.onnx about.json

import { readFileSync } from "node:fs"
import * as ort from "onnxruntime-web"

const [model, about] = process.argv.slice(2).map((path) => readFileSync(path))
const { contract, outputs, devices: [device] } = JSON.parse(about)
if (contract !== "3") throw new Error(`contract ${contract}: see docs/onnx.md`)
const session = await ort.InferenceSession.create(model)

// A tiled fp32 GEMM, both operands row-major and in memory: the 34 numbers of docs/onnx.md.
const FP32 = 1, TILED = 1
const query = (m, n, k, tile) => [
  // The problem.
  m, n, k, tile || m, tile || n, tile || k, 1, 4, 4, 0, FP32, 0, 0,
  // The configuration, with a cold cache. Of the knobs, only split_k is 1 when it is unknown.
  TILED, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0,
  // The device.
  device.compute_units, device.peak_tflops.fp32, device.dram_gbps, device.l2_bytes,
  device.clock_max_mhz ?? 0, device.empty_launch_us, device.power_limit_w ?? 0, device.idle_power_w ?? 0,
  device.l2_gbps || 2.2 * device.dram_gbps,
  // The algorithm.
  0,
]

const tiles = [4, 8, 16, 32]
const rows = Float32Array.from(tiles.flatMap((tile) => query(4096, 1024, 1024, tile)))
const names = ["runtime_us", "tflops", "low", "high", "extrapolating"]
const answers = await session.run({ question: new ort.Tensor("float32", rows, [tiles.length, 34]) }, names)
const [runtimeUs, tflops, low, high, extrapolating] = names.map((name) => answers[name].data)
// low and high have one column for each of outputs.
const column = (i) => i * outputs.length + outputs.indexOf("runtime_us")
tiles.forEach((tile, i) => {
  const warning = extrapolating[i] ? ", outside the training range" : ""
  const interval = `${low[column(i)].toFixed(1)} to ${high[column(i)].toFixed(1)}`
  console.log(`tiled:tile=${tile}: ${runtimeUs[i].toFixed(1)} us (${interval}), ${tflops[i].toFixed(2)} TFLOP/s${warning}`)
})
