// Headless Chromium as the tests of pages start it.

import { mkdtempSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"

const PATIENCE_MS = 120_000
const flags = [
  "no-sandbox",
  "disable-gpu",
  "disable-quic",
  "no-first-run",
  "disable-background-networking",
  "disable-component-update",
  "disable-sync",
]

/** A browser context, and the source of axe-core; both from a folder of node modules. */
export const launched = async (modules) => {
  const installed = createRequire(join(modules, "package.json"))
  const { chromium } = installed("playwright-core")
  const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "page-")), {
    executablePath: process.env.CHROMIUM,
    args: flags.map((flag) => `--${flag}`),
    viewport: { width: 1280, height: 900 },
  })
  context.setDefaultTimeout(PATIENCE_MS)
  return { context, axe: readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8") }
}
