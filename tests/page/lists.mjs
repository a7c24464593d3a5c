// Reads texts as the page does; test_page_lists.py compares the GEMMs with Python's.
//
//     node lists.mjs PAGE_FOLDER QUESTIONS.json

import { readFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const [page, questions] = process.argv.slice(2)
const { readList } = await import(pathToFileURL(join(page, "src", "list.mjs")))
const { contract, texts } = JSON.parse(readFileSync(questions))
const answers = texts.map((text) => {
  try {
    return { listed: readList(contract, text, { dtype: "bf16", layout: "nt" }) }
  } catch (error) {
    return { error: error.message }
  }
})
console.log(JSON.stringify(answers))
