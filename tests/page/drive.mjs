// Drives the page in headless Chromium; test_page.py reads what it prints.
//
//     node drive.mjs FOLDER_OF_NODE_MODULES PAGE PAGE_OF_A_REPORT SCREENSHOTS QUESTIONS.json

import { readFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { launched } from "./browser.mjs"
import { looksOf, violations } from "./looks.mjs"

const [modules, file, ofReport, screenshots, questions] = process.argv.slice(2)
const asked = JSON.parse(readFileSync(questions))
const address = pathToFileURL(file).href
const { context, axe } = await launched(modules)
const seen = { messages: [], requests: [] }

/** Wait until a question is answered, its configurations too. */
const settled = async (page) => {
  await page.waitForFunction(() => document.querySelector("#pareto[aria-busy=false]"))
}

const opened = async (address, size = { width: 1280, height: 900 }) => {
  const page = await context.newPage()
  await page.setViewportSize(size)
  page.on("console", (message) => seen.messages.push(message.text()))
  page.on("pageerror", (error) => seen.messages.push(error.message))
  page.on("request", (request) => seen.requests.push(request.url().slice(0, 200)))
  await page.goto(address)
  await settled(page)
  return page
}

/** Everything that the page says of costs. */
const read = (page) =>
  page.evaluate(() => {
    const values = (element) =>
      [...element.querySelectorAll("data")].map(({ value }) => Number(value))
    const rows = [...document.querySelectorAll("#table tbody tr:not(.group)")]
    return {
      title: document.querySelector("#answer").textContent,
      error: document.querySelector("#error").textContent,
      cards: [...document.querySelectorAll("#cards article")].map((card) => ({
        name: card.querySelector("h3").textContent,
        names: [...card.querySelectorAll("dt")].map(({ textContent }) => textContent),
        values: values(card),
      })),
      rows: rows.map((row) => ({
        values: values(row),
        extrapolating: Boolean(row.querySelector(".badge")),
      })),
      front: [...document.querySelectorAll("#front tbody tr")].map(
        (row) => row.querySelector(".config").textContent,
      ),
      hash: location.hash,
    }
  })

/** Ask by the address, as a shared link does, in a page that is open. */
const ask = async (page, hash) => {
  await page.evaluate((text) => {
    document.querySelector("#pareto").setAttribute("aria-busy", "true")
    location.hash = text
  }, hash)
  await settled(page)
  return read(page)
}

const page = await opened(address)
const first = await read(page)
await page.evaluate(axe)
const answers = {}
for (const [name, hash] of Object.entries(asked.hashes)) answers[name] = await ask(page, hash)
await ask(page, asked.looked_at)
const picture = join(screenshots, "ask")
const looks = await looksOf(page, picture, async () => ({ violations: await violations(page) }))

// Typed by hand, shared, and opened again
await page.getByLabel("GEMMs", { exact: true }).check({ force: true })
await page.getByLabel("GEMMs, one a line").fill(asked.typed)
await page.getByLabel("Price of a kWh").fill(asked.rates.kwh_price)
await page.getByLabel("gCO2e of a kWh").fill(asked.rates.gco2_per_kwh)
await page.keyboard.press("Tab")
await page.getByRole("button", { name: "Ask" }).click()
await page.waitForFunction(
  (title) => document.querySelector("#answer").textContent === title,
  asked.typed_title,
)
await settled(page)
await page.getByRole("button", { name: "Copy link" }).click()
const shared = await read(page)
const again = await opened(address + shared.hash)
const reopened = await read(again)

// Another model: that of a report
const reported = await read(await opened(pathToFileURL(ofReport).href))

// A slip
await page.getByLabel("GEMMs, one a line").fill(asked.slip)
await page.waitForFunction(() => document.querySelector("#error").textContent)
const slip = await read(page)

// A phone: the answer is below the question
const onPhone = await opened(address, { width: 390, height: 844 })
const place = () => ({
  isFolded: !document.querySelector("#more").open,
  answer_px: Math.round(document.querySelector("#results").getBoundingClientRect().top),
})
const before = await onPhone.evaluate(place)
await onPhone.getByRole("button", { name: "Ask" }).click()
await onPhone.waitForFunction(() => scrollY > 0)
const phone = { before, after: await onPhone.evaluate(place) }

await context.close()
const found = { first, answers, looks, shared, reopened, reported, slip, phone, ...seen }
console.log(JSON.stringify(found))
