// How a page looks on small and large screens, light and dark; test_page_report.py reads it.
//
//     node look.mjs FOLDER_OF_NODE_MODULES PAGE SCREENSHOTS

import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { launched } from "./browser.mjs"

const [modules, file, screenshots] = process.argv.slice(2)
const { context, axe } = await launched(modules)
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
