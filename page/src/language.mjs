// A language model's forward pass as GEMMs, and what they cost together. The products come from
// gemmcast/language_models; here they only get their rows (products.py) and are added up
// (forward_pass.py).

import { summed } from "./list.mjs"

/**
 * The GEMMs of one forward pass on one GPU; the weight of each is its number of launches.
 *
 * @param part one of a language model's parts: one tensor parallelism and dtype.
 * @param tokens rows of the pass.
 * @param sequences that the tokens belong to; as many as tokens while decoding.
 */
export function passGemms(part, tokens, sequences) {
  const phase = sequences === tokens ? "decoding" : "prompt"
  const launches = part.layers.flatMap(({ count, products }) => {
    const present = products.filter((product) => !product.phase || product.phase === phase)
    return present.map((product) => ({ ...listed(product, tokens), weight: count }))
  })
  return summed([...launches, listed(part.head, sequences)])
}

function listed(product, tokens) {
  const { m, batch } = product.experts
    ? routed(product, tokens)
    : { m: tokens, batch: product.heads }
  const { n, k, dtype, layout, name, kernel } = product
  return { gemm: { m, n, k, batch, dtype, layout, beta: 0 }, weight: 1, name, kernel }
}

/** Rows are divided equally among the experts that get any. */
function routed(product, tokens) {
  const rows = tokens * product.top_k
  const batch = Math.min(product.experts, rows)
  return { m: Math.ceil(rows / batch), batch }
}

/**
 * The sum over launches: {name: {value, low, high}}, null for what some answer does not have.
 *
 * Its interval goes from the sum of the lower ends to the sum of the upper ends: too wide unless
 * all errors have one sign. Energy is that of all `tp` GPUs.
 */
export function total(listed, answers, tp = 1) {
  const sums = {}
  for (const name of ["runtime_us", "sustained_runtime_us", "energy_mj"]) {
    const factor = name === "energy_mj" ? tp : 1
    sums[name] = added(
      listed,
      answers.map((answer) => answer[name]),
      factor,
    )
  }
  return sums
}

function added(listed, values, factor) {
  if (values.some((value) => !value)) return null
  const sum = { value: 0, low: 0, high: 0 }
  values.forEach((one, i) => {
    for (const end in sum) sum[end] += factor * listed[i].weight * one[end]
  })
  return sum
}
