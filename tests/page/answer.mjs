// Answers from Node with the files of the built site; test_page.py reads what it prints.
//
//     node answer.mjs SITE QUESTIONS.json

import { readFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const [site, questions] = process.argv.slice(2)
const { candidates, open } = await import(pathToFileURL(join(site, "ask.mjs")))
const model = await open(JSON.parse(readFileSync(join(site, "ask.json"))))
const answers = []
for (const { gemm, kernel, device, every } of JSON.parse(readFileSync(questions))) {
  const on = model.device(device)
  const found = candidates(model.about, on, { gemm, kernel })
  const chosen = found.filter((_, i) => i % every === 0)
  const predicted = await model.predict(
    chosen.map(({ row }) => ({ gemm, row })),
    on,
  )
  answers.push({ count: found.length, names: chosen.map(({ name }) => name), predicted })
}
console.log(JSON.stringify(answers))
