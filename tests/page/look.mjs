// How a page looks on small and large screens, light and dark; test_page_report.py reads it.
//
//     node look.mjs FOLDER_OF_NODE_MODULES PAGE SCREENSHOTS

import { mkdtempSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const [modules, file, screenshots] = process.argv.slice(2)
const installed = createRequire(join(modules, "package.json"))
const { chromium } = installed("playwright-core")
const axe = readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8")
const flags = [
  "no-sandbox",
  "disable-gpu",
  "disable-quic",
  "no-first-run",
  "disable-background-networking",
  "disable-component-update",
  "disable-sync",
]
const PATIENCE_MS = 120_000

const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "look-")), {
  executablePath: process.env.CHROMIUM,
  args: flags.map((flag) => `--${flag}`),
})
context.setDefaultTimeout(PATIENCE_MS)
const messages = []
const page = await context.newPage()
page.on("console", (message) => messages.push(message.text()))
page.on("pageerror", (error) => messages.push(error.message))
await page.goto(pathToFileURL(file).href)
const ofPage = [...messages]
await page.evaluate(axe)

/** The text with the smallest size on the screen, in CSS pixels: a scaled drawing counts. */
const smallest = () => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  const sizes = []
  while (texts.nextNode()) {
    const { parentElement, textContent } = texts.currentNode
    if (!textContent.trim() || !parentElement.getClientRects().length) continue
    const svg = parentElement.closest("svg")
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1
    sizes.push(scale * parseFloat(getComputedStyle(parentElement).fontSize))
  }
  return Math.min(...sizes)
}

const looks = []
for (const scheme of ["light", "dark"]) {
  for (const width of [390, 1280]) {
    await page.emulateMedia({ colorScheme: scheme })
    await page.setViewportSize({ width, height: 900 })
    await page.screenshot({ path: join(screenshots, `${scheme}-${width}.png`), fullPage: true })
    const found = await page.evaluate(() => globalThis.axe.run())
    const violations = found.violations.map(
      ({ id, nodes }) => `${id}: ${nodes[0].html.slice(0, 160)}`,
    )
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
    looks.push({ scheme, width, violations, overflow, smallest_px: await page.evaluate(smallest) })
  }
}
await context.close()
console.log(JSON.stringify({ looks, messages: ofPage }))
