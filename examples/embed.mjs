// Use a model from JavaScript, in Node or a browser: ONNX Runtime Web and docs/onnx.md.
//
//     npm install onnxruntime-web
//     gemmcast info --model MODEL.onnx --json > about.json     (ONNX Runtime Web hides a file's metadata)
//     node examples/embed.mjs MODEL.onnx about.json
//
// In a page, beside the two files and node_modules/ on a web server; it prints to the console:
//
//     <script type="importmap">
//       {"imports": {"onnxruntime-web": "./node_modules/onnxruntime-web/dist/ort.min.mjs"}}
//     </script>
//     <script type="module" src="embed.mjs?model=MODEL.onnx&about=about.json"></script>

import * as ort from "onnxruntime-web"

// Bytes of the two files: by path in Node, by address in a browser.
const inNode = typeof process !== "undefined"
const read = inNode ? (await import("node:fs/promises")).readFile : async (address) => {
  const answer = await fetch(new URL(address, import.meta.url))
  if (!answer.ok) throw new Error(`${address}: ${answer.status} ${answer.statusText}`)
  return new Uint8Array(await answer.arrayBuffer())
}
const given = new URL(import.meta.url).searchParams
const names = inNode ? process.argv.slice(2) : [given.get("model"), given.get("about")]
const [model, about] = await Promise.all(names.map((name) => read(name)))

const { contract, outputs, devices: [device] } = JSON.parse(new TextDecoder().decode(about))
if (contract !== "4") throw new Error(`contract ${contract}: see docs/onnx.md`)
const session = await ort.InferenceSession.create(model)

// A tiled fp32 GEMM, both operands row-major and in memory: the 34 numbers of docs/onnx.md.
const FP32 = 1, TILED = 1
const query = (m, n, k, tile) => [
  // The problem.
  m, n, k, tile || m, tile || n, tile || k, 1, 4, 4, 0, FP32, 0, 0,
  // The configuration, with a cold cache. Of the knobs, only split_k is 1 when it is unknown.
  // The tiled kernel has a thread for each element of its tile.
  TILED, 0, 0, 0, 0, 1, 0, 0, 0, tile * tile, 0,
  // The device.
  device.compute_units, device.peak_tflops.fp32, device.dram_gbps, device.l2_bytes,
  device.clock_max_mhz ?? 0, device.empty_kernel_us || 0.5, device.power_limit_w ?? 0, device.idle_power_w ?? 0,
  device.l2_gbps || 2.2 * device.dram_gbps,
  // The algorithm.
  0,
]

const tiles = [4, 8, 16, 32]
const rows = Float32Array.from(tiles.flatMap((tile) => query(4096, 1024, 1024, tile)))
const wanted = ["runtime_us", "tflops", "low", "high", "extrapolating"]
const answers = await session.run({ question: new ort.Tensor("float32", rows, [tiles.length, 34]) }, wanted)
const [runtimeUs, tflops, low, high, extrapolating] = wanted.map((name) => answers[name].data)
// low and high have one column for each of outputs.
const column = (i) => i * outputs.length + outputs.indexOf("runtime_us")
tiles.forEach((tile, i) => {
  const warning = extrapolating[i] ? ", outside the training range" : ""
  const interval = `${low[column(i)].toFixed(1)} to ${high[column(i)].toFixed(1)}`
  console.log(`tiled:tile=${tile}: ${runtimeUs[i].toFixed(1)} us (${interval}), ${tflops[i].toFixed(2)} TFLOP/s${warning}`)
})
