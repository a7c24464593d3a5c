// How a page looks on small and large screens, light and dark; test_page_report.py reads it.
//
//     node look.mjs FOLDER_OF_NODE_MODULES PAGE PICTURE

import { pathToFileURL } from "node:url"
import { launched } from "./browser.mjs"
import { looksOf, violations } from "./looks.mjs"

const [modules, file, picture] = process.argv.slice(2)
const { context, axe } = await launched(modules)
const messages = []
const page = await context.newPage()
page.on("console", (message) => messages.push(message.text()))
page.on("pageerror", (error) => messages.push(error.message))
await page.goto(pathToFileURL(file).href)
await page.evaluate(axe)
const looks = await looksOf(page, picture, async () => ({ violations: await violations(page) }))
await context.close()
console.log(JSON.stringify({ looks, messages }))
