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
import { open, readList, usual } from "../docs/site/ask.mjs"

const facts = JSON.parse(await readFile(new URL("../docs/site/ask.json", import.meta.url)))
const model = await open(facts)
const words = process.argv.slice(2).join(" ") || "4096 4096 4096"
const listed = readList(model.contract, words, { dtype: "bf16", layout: "nt" })

for (const device of model.devices) {
  // What the vendor's library launches by itself; choices.mjs has the others.
  const queries = listed.map((one) => ({
    gemm: one.gemm,
    ...usual(model.about, device, one, "library"),
  }))
  const [{ runtime_us, energy_mj, tflops, extrapolating }] = await model.predict(queries, device)
  const written = ({ value, low, high }) =>
    `${value.toFixed(1)} (${low.toFixed(1)} to ${high.toFixed(1)})`
  console.log(device.name)
  console.log(`  ${written(runtime_us)} us, ${written(energy_mj)} mJ, ${written(tflops)} TFLOP/s`)
  if (extrapolating) console.log("  extrapolating: the intervals are not reliable")
}
