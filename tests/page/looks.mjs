// How an open page looks on small and large screens, light and dark.

const SCHEMES = ["light", "dark"]
const WIDTHS = [390, 1280]
const HEIGHT = 900

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

/** How much wider than the screen the page is, or what the site's theme lets scroll in its place. */
const beyond = () => {
  const boxes = [document.documentElement, ...document.querySelectorAll(".content")]
  return Math.max(...boxes.map(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth))
}

/** What axe-core finds, by all its rules or some; the page must have evaluated its source before. */
export const violations = async (page, rules) => {
  // to preload is to fetch style sheets, which a page from a disk may not
  const options = { preload: false, ...(rules && { runOnly: rules }) }
  const found = await page.evaluate((options) => globalThis.axe.run(options), options)
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes[0].html.slice(0, 160)}`)
}

/**
 * Every look of a page.
 *
 * @param picture where screenshots go, as `PICTURE-SCHEME-WIDTH.png`; null: none is made.
 * @param more what else is to be found in each look: a function from page to an object.
 * @returns [{scheme, width, smallest_px, overflow, ...}]; overflow is what lies beyond the screen.
 */
export const looksOf = async (page, picture, more = () => ({})) => {
  const looks = []
  for (const scheme of SCHEMES) {
    for (const width of WIDTHS) {
      await page.emulateMedia({ colorScheme: scheme })
      await page.setViewportSize({ width, height: HEIGHT })
      if (picture)
        await page.screenshot({ path: `${picture}-${scheme}-${width}.png`, fullPage: true })
      const overflow = await page.evaluate(beyond)
      const smallest_px = await page.evaluate(smallest)
      looks.push({ scheme, width, smallest_px, overflow, ...(await more(page)) })
    }
  }
  return looks
}
