// From a question to everything that the page shows. Knows no element of the page.

import { candidates, pareto, usual } from "./choices.mjs"
import { passGemms, total } from "./language.mjs"
import { readList } from "./list.mjs"
import { InputError, flops, unmeasured } from "./query.mjs"
import { short } from "./text.mjs"

/**
 * The GEMMs of a question.
 *
 * @returns {listed, tp, title, remark}; title is empty for a list.
 */
export function listedOf(model, question) {
  const { dtype, layout } = question
  if (question.source === "list") {
    return {
      listed: readList(model.contract, question.gemms, { dtype, layout }),
      tp: 1,
      title: "",
      remark: "",
    }
  }
  const tokens = whole("tokens", question.tokens)
  const sequences = question.sequences ? whole("sequences", question.sequences) : tokens
  if (sequences > tokens)
    throw new InputError(
      `sequences = ${sequences}: there are ${tokens} tokens; each has one or more`,
    )
  const part = partOf(model, question)
  const listed = passGemms(part, tokens, sequences)
  const phase = sequences === tokens ? "decoding" : `a prompt pass of ${sequences} sequences`
  const gpus = part.tp > 1 ? `, on ${part.tp} GPUs` : ""
  const title = `${question.lm}, ${phase}, ${tokens} tokens${gpus}`
  return { listed, tp: part.tp, title, remark: part.remark, weightBytes: part.weight_bytes }
}

function partOf(model, { lm, tp, lmdtype }) {
  const { parts } = model.languageModels.find(({ name }) => name === lm)
  const part = parts.find((one) => one.tp === +tp && one.dtype === lmdtype)
  if (part) return part
  const shared = [...new Set(parts.map((one) => one.tp))].join(", ")
  throw new InputError(`tensor parallel = ${tp}: ${lm} can't be divided so; use one of ${shared}`)
}

function whole(field, text) {
  const value = Number(text)
  if (Number.isInteger(value) && value >= 1 && value <= 2 ** 20) return value
  throw new InputError(`${field} = "${text}" must be a whole number from 1 to ${2 ** 20}`)
}

/**
 * What each device answers.
 *
 * @returns [{place, device, label, choices, answers, sums, flops}], or {..., refusal} of a device
 *   that was not measured at one of the dtypes.
 */
export async function answered(model, question, { listed, tp }) {
  const results = []
  for (const [place, device] of model.devices.entries()) {
    if (!question.device.includes(device.name)) continue
    const label = short(device, model.devices)
    const missing = listed.find(({ gemm }) => !device.peak_tflops[gemm.dtype])
    if (missing) {
      results.push({
        place,
        device,
        label,
        refusal: `${missing.gemm.dtype}: ${unmeasured(device)}`,
      })
      continue
    }
    results.push({ place, device, label, ...(await onDevice(model, question, device, listed, tp)) })
  }
  if (!results.length) throw new InputError("no device: choose one or more")
  return results
}

async function onDevice(model, question, device, listed, tp) {
  const choices = listed.map((one) => usual(model.about, device, one, question.kernels))
  const queries = listed.map(({ gemm }, i) => ({ gemm, ...choices[i] }))
  const answers = await model.predict(queries, device, { isWarm: question.cache === "warm" })
  const work = listed.reduce((sum, { gemm, weight }) => sum + weight * flops(gemm), 0)
  return { choices, answers, sums: total(listed, answers, tp), flops: work }
}

/**
 * Every configuration of one GEMM on one device, with the front and the default.
 *
 * @returns {all, front, byDefault}; null where the model has no energy.
 */
export async function weighed(model, question, device, one, pause) {
  const found = candidates(model.about, device, one)
  const library = usual(model.about, device, one, "library")
  const known = found.some(({ name }) => name === library.name) ? found : [library, ...found]
  const queries = known.map((config) => ({ gemm: one.gemm, ...config }))
  const answers = await model.predict(queries, device, { isWarm: question.cache === "warm", pause })
  const all = known.map((config, i) => ({ ...config, answer: answers[i] }))
  const front = pareto([...all])
  const byDefault = all.find(({ name }) => name === library.name)
  const hasEnergy = byDefault.answer.energy_mj && front.length
  return hasEnergy ? { all: all.filter(({ answer }) => answer.energy_mj), front, byDefault } : null
}
