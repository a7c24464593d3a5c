// What energies cost and emit as the page computes it; test_page_carbon.py compares with Python.
//
//     node amounts.mjs PAGE_FOLDER QUESTIONS.json

import { readFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const [page, questions] = process.argv.slice(2)
const { amounts, ratesOf } = await import(pathToFileURL(join(page, "src", "carbon.mjs")))
const { contract, asked } = JSON.parse(readFileSync(questions))
const answers = asked.map(({ fields, energy }) => {
  try {
    return amounts(contract, ratesOf(fields), energy)
  } catch (error) {
    return { error: error.message }
  }
})
console.log(JSON.stringify(answers))
