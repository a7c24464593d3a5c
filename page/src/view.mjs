// What a question's answer looks like: cards, the table of a list, the table of a front.

import { amounts } from "./carbon.mjs"
import { gain } from "./choices.mjs"
import { badge, colour, deviceName, html } from "./dom.mjs"
import { nameOf } from "./query.mjs"
import { compared, fullName, shown, shownGain } from "./text.mjs"

const NAMES = {
  runtime_us: "Time",
  energy_mj: "Energy",
  tflops: "Throughput",
  power_w: "Power",
  sustained_runtime_us: "Sustained time",
}
const AMOUNTS = { cost: "Cost", gco2e: "CO2e" }

/** A throughput of a sum: its work over its time. */
function throughput(work, { value, low, high }) {
  const over = (time_us) => work / time_us / 1e6
  return { value: over(value), low: over(high), high: over(low) }
}

/** The cards of all devices; strips of one value share a scale. */
export function cards(contract, results, { listed, tp, title, rates, weightBytes }) {
  const single = listed.length === 1 && listed[0].weight === 1 && tp === 1
  const answering = results.filter(({ refusal }) => !refusal)
  const valuesOf = (result) => {
    const values = single ? result.answers[0] : summed(result)
    return { ...values, ...amounts(contract, rates, values.energy_mj) }
  }
  const values = new Map(answering.map((result) => [result, valuesOf(result)]))
  const names = { ...NAMES, ...amountNames(title ? "passes" : single ? "launches" : "lists") }
  return results.map((result) => {
    if (result.refusal) return refused(result)
    return card(result, names, values.get(result), [...values.values()], weightBytes)
  })
}

/** What amounts are called: those of one launch are too small to be read. */
function amountNames(of) {
  const named = Object.entries(AMOUNTS).map(([name, word]) => [name, `${word} of a million ${of}`])
  return Object.fromEntries(named)
}

function summed(result) {
  return { ...result.sums, tflops: throughput(result.flops, result.sums.runtime_us) }
}

function refused({ place, device, refusal }) {
  return html(
    "article",
    { style: `--device: ${colour(place)}` },
    title(place, device),
    html("p", {}, refusal),
  )
}

const title = (place, device) => html("h3", {}, badge(place), fullName(device))

function card(result, names, values, every, weightBytes) {
  const { place, device } = result
  const list = html("dl")
  // a sum has no power
  for (const target of Object.keys(names).filter((name) => name in values)) {
    const others = every.map((one) => one[target]).filter(Boolean)
    list.append(entry(target, names[target], values[target], others))
  }
  const signs = html("p", {}, trust(result), " ", ...memory(device, weightBytes))
  const style = `--device: ${colour(place)}`
  return html("article", { style }, title(place, device), list, signs, computedBy(result))
}

/** What computes a single GEMM; null for a list, whose rows say it. */
function computedBy({ choices }) {
  if (choices.length > 1) return null
  return html("small", { class: "config" }, `by ${choices[0].name}`)
}

function entry(target, name, value, others) {
  const isMain = target === "runtime_us"
  const text = value ? shown(target, value) : null
  const definition = html(
    "dd",
    {},
    html("b", {}, text ? number(value, text.value) : "not predicted"),
  )
  if (text) definition.append(html("small", {}, text.interval))
  if (value && others.length > 1 && target !== "power_w") definition.append(strip(value, others))
  return html("div", isMain ? { class: "main" } : {}, html("dt", {}, name), definition)
}

/** An interval on the scale of all devices. */
function strip(value, others) {
  const least = Math.min(...others.map(({ low }) => low))
  const most = Math.max(...others.map(({ high }) => high))
  const percent = (number) => (100 * (number - least)) / (most - least || 1)
  const range = `left: ${percent(value.low)}%; width: ${percent(value.high) - percent(value.low)}%`
  const middle = `left: ${percent(value.value)}%`
  return html(
    "div",
    { class: "strip", "aria-hidden": "true" },
    html("i", { style: range }),
    html("b", { style: middle }),
  )
}

function trust({ answers }) {
  const doubtful = answers.filter(({ extrapolating }) => extrapolating).length
  if (!doubtful) return html("span", { class: "badge" }, "✓ within the training range")
  const count = answers.length > 1 ? ` (${doubtful} of ${answers.length} GEMMs)` : ""
  return html("span", { class: "badge warn" }, `⚠ extrapolating${count}`)
}

function memory(device, weightBytes) {
  if (!weightBytes || weightBytes <= device.memory_bytes) return []
  const gib = Math.round(weightBytes / 2 ** 30)
  return [html("span", { class: "badge warn" }, `⚠ does not fit: ${gib} GiB of weights`)]
}

/** The answer in one sentence, for a screen reader. */
export function spoken(title, results) {
  const costs = results.map(({ label, refusal, sums }) => {
    if (refusal) return `${label}: ${refusal}`
    const present = ["runtime_us", "energy_mj"].filter((target) => sums[target])
    return `${label}: ${present.map((target) => shown(target, sums[target]).value).join(", ")}`
  })
  return `${title}. ${costs.join("; ")}.`
}

/** The devices in words, each against the first. */
export function comparison(results) {
  const [first, ...others] = results.filter(({ refusal }) => !refusal)
  const sentences = others.map((other) => {
    const parts = [compared("time", first.sums.runtime_us, other.sums.runtime_us)]
    if (first.sums.energy_mj && other.sums.energy_mj) {
      parts.push(compared("energy", first.sums.energy_mj, other.sums.energy_mj))
    }
    return `${other.label} against ${first.label}: ${parts.join(", ")}.`
  })
  return sentences.join(" ")
}

/** Every GEMM with every device below it. */
export function gemmTable(results, listed, place, onShow) {
  const answering = results.filter(({ refusal }) => !refusal)
  const columns = ["Device", "Time", "Energy", "TFLOP/s"].map((name) =>
    html("th", { scope: "col" }, name),
  )
  const table = html("table", { "aria-labelledby": "each-title" })
  table.append(html("thead", {}, html("tr", {}, ...columns)))
  listed.forEach((one, i) => {
    const body = html("tbody", {}, groupRow(one, i, i === place, onShow))
    for (const result of answering) body.append(answerRow(result, i))
    table.append(body)
  })
  return html(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of GEMMs" },
    table,
  )
}

function groupRow({ gemm, weight, name, kernel }, i, isShown, onShow) {
  const words = [name, nameOf(gemm), kernel, weight === 1 ? "" : `× ${+weight.toPrecision(6)}`]
  const text = words.filter(Boolean).join(" · ")
  const button = html(
    "button",
    { type: "button", class: "quiet", "aria-pressed": `${isShown}` },
    isShown ? "shown" : "show",
  )
  button.setAttribute("aria-label", `${isShown ? "Shown" : "Show"} in the charts: ${text}`)
  button.addEventListener("click", () => onShow(i))
  const head = html(
    "th",
    { scope: "rowgroup", colspan: 4 },
    html("div", {}, html("span", {}, text), button),
  )
  return html("tr", { class: isShown ? "group is-shown" : "group" }, head)
}

function answerRow({ place, label, answers, choices }, i) {
  const answer = answers[i]
  const name = html("th", { scope: "row" }, deviceName(place, label))
  if (answer.extrapolating) name.append(doubt())
  const cells = ["runtime_us", "energy_mj", "tflops"].map((target) => cell(target, answer[target]))
  return html("tr", { title: choices[i].name }, name, ...cells)
}

/** On a narrow screen only its sign is seen. */
function doubt() {
  return html(
    "small",
    { class: "badge warn", title: "extrapolating" },
    "⚠",
    html("span", { class: "word" }, " extrapolating"),
  )
}

function cell(target, value) {
  if (!value) return html("td", {}, "–")
  const text = shown(target, value)
  const written = target === "tflops" ? text.value.replace(/ .*/, "") : text.value
  return html("td", {}, number(value, written), html("small", {}, text.interval))
}

/** A value as it is read, with all its digits for machines. */
const number = ({ value }, written) => html("data", { value: `${value}` }, written)

/** The configurations of the fronts, the default of each device first. */
export function frontTable(contract, series) {
  const names = [
    "Device, configuration",
    "Gain in time",
    "Gain in energy",
    "Sustained time",
    "Energy",
  ]
  const table = html(
    "table",
    { "aria-labelledby": "front-title" },
    html("thead", {}, html("tr", {}, ...names.map((name) => html("th", { scope: "col" }, name)))),
  )
  for (const { place, label, front, byDefault } of series) {
    const body = html("tbody")
    const others = front.filter((one) => one !== byDefault)
    for (const one of [byDefault, ...others])
      body.append(frontRow(contract, { place, label, byDefault, one }))
    table.append(body)
  }
  return html(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of configurations" },
    table,
  )
}

function frontRow(contract, { place, label, byDefault, one }) {
  const head = html("th", { scope: "row" }, deviceName(place, label))
  head.append(
    html("small", { class: "config" }, one === byDefault ? `default: ${one.name}` : one.name),
  )
  if (one.answer.extrapolating) head.append(doubt())
  const gains = ["sustained_runtime_us", "energy_mj"].map((target) => {
    const text = shownGain(gain(contract, byDefault, one, target))
    return html("td", {}, text.value, one === byDefault ? null : html("small", {}, text.interval))
  })
  const costs = ["sustained_runtime_us", "energy_mj"].map((target) =>
    cell(target, one.answer[target]),
  )
  return html("tr", {}, head, ...gains, ...costs)
}

/** Where a GEMM lies under the roof, in words. */
export function roofText(result, gemm, i, intensity) {
  const { device, label, answers } = result
  const peak = device.peak_tflops[gemm.dtype]
  const bandwidth = device.dram_gbps
  const roof = Math.min(peak, (bandwidth * intensity) / 1e3)
  const bound = roof < peak ? "memory" : "compute"
  const share = Math.round((100 * answers[i].tflops.value) / roof)
  return `${label}: bound by ${bound}, ${share} % of its roof of ${+roof.toPrecision(3)} TFLOP/s`
}
