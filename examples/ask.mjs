// Ask the shipped model from Node, with the files of the built site alone: no package, no network.
//
//     make docs                  (once; writes docs/site/ask.mjs and ask.json)
//     node examples/ask.mjs 4096 4096 4096 bf16 nt
//
// Behind m, n and k: a dtype, a layout, a batch. The same in a page:
//
//     <script type="module">
//       import { open, readList, usual } from "./ask.mjs"
//       const model = await open(await (await fetch("ask.json")).json())
//     </script>

import { readFile } from "node:fs/promises"
import { InputError, open, readList, usual } from "../docs/site/ask.mjs"

const facts = JSON.parse(await readFile(new URL("../docs/site/ask.json", import.meta.url)))
const model = await open(facts)
const words = process.argv.slice(2).join(" ") || "4096 4096 4096"
const written = ({ value, low, high }) =>
  `${value.toFixed(1)} (${low.toFixed(1)} to ${high.toFixed(1)})`

try {
  const [one] = readList(model.contract, words, { dtype: "bf16", layout: "nt" })
  const measured = model.devices.filter(({ peak_tflops }) => peak_tflops[one.gemm.dtype])
  for (const device of measured) {
    // What the vendor's library launches by itself; `candidates` has every other configuration.
    const config = usual(model.about, device, one, "library")
    const [answer] = await model.predict([{ gemm: one.gemm, ...config }], device)
    const { runtime_us, energy_mj, tflops } = answer
    console.log(device.name)
    console.log(`  ${written(runtime_us)} us, ${written(energy_mj)} mJ, ${written(tflops)} TFLOP/s`)
    if (answer.extrapolating) console.log("  extrapolating: the intervals are not reliable")
  }
} catch (error) {
  if (!(error instanceof InputError)) throw error
  console.error(`error: ${error.message}`)
  process.exitCode = 2
}
