// What the energy of GEMMs costs, and what making it emits: the formula of gemmcast/carbon.py, with its
// numbers from the contract. Knows no element of the page.

import { InputError } from "./query.mjs"

/** Name of an amount -> the field that says how much of it a kilowatt-hour is. */
const FIELDS = { cost: "kwh_price", gco2e: "gco2_per_kwh" }
const WAYS_OUT = {
  kwh_price: "give the price of a kWh, such as 0.25",
  gco2_per_kwh: "give grams of a kWh, such as 380",
}

/**
 * Name of an amount -> how much of it a kilowatt-hour is; only of filled fields.
 *
 * @param question the texts of the fields, by name.
 * @throws InputError that names the field.
 */
export function ratesOf(question) {
  const rates = {}
  for (const [name, field] of Object.entries(FIELDS)) {
    const text = question[field] ?? ""
    if (text !== "") rates[name] = checked(field, text)
  }
  return rates
}

function checked(field, text) {
  const rate = Number(text)
  if (Number.isFinite(rate) && rate >= 0) return rate
  const rule = "must be a finite number, not negative"
  throw new InputError(`${field} = "${text}" ${rule}; ${WAYS_OUT[field]}`)
}

/**
 * Name of an amount -> {value, low, high} of `contract.times` times this energy.
 *
 * @param rates from `ratesOf`.
 * @param energy {value, low, high} [mJ]; null, and so the amounts: it is not predicted.
 */
export function amounts(contract, rates, energy) {
  const found = {}
  for (const [name, rate] of Object.entries(rates)) {
    const perMj = (contract.times * rate) / contract.mj_per_kwh
    const of = (end) => energy[end] * perMj
    found[name] = energy ? { value: of("value"), low: of("low"), high: of("high") } : null
  }
  return found
}
