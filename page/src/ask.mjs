// Everything in one file: a library for Node, and in a browser the page.

import { show } from "./page.mjs"

export { amounts, ratesOf } from "./carbon.mjs"
export { candidates, gain, pareto, usual } from "./choices.mjs"
export { passGemms, total } from "./language.mjs"
export { readList } from "./list.mjs"
export { open, unpacked } from "./model.mjs"
export { InputError, encode, flops, nameOf, operandBytes } from "./query.mjs"

if (globalThis.document?.querySelector("#ask")) show(document)
