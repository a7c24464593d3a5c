// Visits the pages of the site in headless Chromium; test_page_site.py reads what it prints.
//
//     node visit.mjs FOLDER_OF_NODE_MODULES SITE SCREENSHOTS PAGES.json

import { readFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { launched } from "./browser.mjs"
import { looksOf, violations } from "./looks.mjs"

const RULES = ["color-contrast", "image-alt", "link-name", "scrollable-region-focusable"]
const [modules, site, screenshots, listed] = process.argv.slice(2)
const root = `${pathToFileURL(site).href}/`
const { context, axe } = await launched(modules)
const page = await context.newPage()
const seen = { messages: [], requests: [] }
page.on("console", (message) => seen.messages.push(message.text()))
page.on("pageerror", (error) => seen.messages.push(error.message))
page.on("requestfailed", (request) => seen.messages.push(`failed: ${request.url()}`))
page.on("request", (request) => seen.requests.push(request.url()))

/** Headings without words, where links lead to, where they may lead to, and the prose. */
const contents = () => {
  const every = (selector) => [...document.querySelectorAll(selector)]
  const article = document.querySelector("article").cloneNode(true)
  for (const code of article.querySelectorAll("code, pre, dt, script")) code.remove()
  return {
    headings: every("h1, h2, h3, h4, h5, h6").map((heading) => heading.textContent),
    links: every("a[href]").map(({ href }) => href),
    ids: every("[id]").map(({ id }) => id),
    prose: article.textContent,
    results: every("#search-results li").length,
  }
}

/** One page in all its looks; axe-core sees those that are pictured. */
const visit = async ({ address, picture }) => {
  Object.assign(seen, { messages: [], requests: [] })
  await page.goto(root + address)
  // the answer to a search
  if (address.includes("?")) await page.waitForLoadState("networkidle")
  const found = await page.evaluate(contents)
  const { messages, requests } = seen
  let more
  if (picture) {
    await page.evaluate(axe)
    more = async () => ({ violations: await violations(page, RULES) })
  }
  const looks = await looksOf(page, picture ? join(screenshots, picture) : null, more)
  return { address, messages, requests, looks, ...found }
}

const visits = []
for (const one of JSON.parse(readFileSync(listed))) visits.push(await visit(one))
await context.close()
console.log(JSON.stringify(visits))
