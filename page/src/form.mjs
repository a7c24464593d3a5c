// The choices of the form: devices, dtypes, kernels and language models of the model.

import { $, deviceName, html } from "./dom.mjs"
import { fullName } from "./text.mjs"

/** Fill the form's choices; the example stands in it. */
export function fillForm(form, { contract, model, language_models }) {
  const { example, devices, candidates } = model
  const options = (name, values, chosen) => {
    form.elements[name].replaceChildren(
      ...values.map((value) => new Option(value, value, value === chosen, value === chosen)),
    )
  }
  const dtypes = Object.keys(contract.dtypes).filter((name) =>
    devices.some(({ peak_tflops }) => peak_tflops[name]),
  )
  options("dtype", dtypes, example.dtype)
  options("layout", contract.layouts, example.layout)
  options(
    "lm",
    language_models.map(({ name }) => name),
  )
  const parts = language_models.flatMap((one) => one.parts)
  options(
    "tp",
    [...new Set(parts.map(({ tp }) => `${tp}`))].sort((a, b) => a - b),
  )
  options("lmdtype", [...new Set(parts.map(({ dtype }) => dtype))])
  form.elements.gemms.defaultValue = `${example.m} ${example.n} ${example.k}`
  fillKernels(form.elements.kernels, candidates)
  const boxes = devices.map((device, place) => {
    const box = html("input", { type: "checkbox", name: "device", value: device.name, checked: "" })
    return html("label", {}, box, deviceName(place, fullName(device)))
  })
  $("devices").replaceChildren(...boxes)
}

function fillKernels(select, candidates) {
  const tables = Object.values(candidates).flatMap((kind) => Object.values(kind))
  const families = new Set(tables.flatMap((groups) => Object.keys(groups)))
  const own = [...families].filter(
    (family) => !family.includes(":") && !family.startsWith("cublas"),
  )
  const choices = [new Option("library", "library")]
  for (const family of own) choices.push(new Option(`${family} default`, family))
  select.replaceChildren(...choices)
}

/** Say which model it is, and how wrong. */
export function describe({ contract, model }) {
  $("coverage").textContent = `${100 * contract.coverage} %`
  const { runtime_us, energy_mj } = model.errors
  const errors = [
    ["time", runtime_us],
    ["energy", energy_mj],
  ].filter(([, error]) => error)
  const medians = errors.map(([what, error]) => `${what} ${error.toFixed(1)} %`).join(", ")
  const wrong = medians ? ` Median error on shapes that it never saw: ${medians}.` : ""
  $("about").textContent = `Model ${model.version}, trained ${model.created_at}.${wrong}`
}
