// The question as a form, and the form as the part of the address behind `#`: a link is a question.

const OF_LIST = ["gemms", "dtype", "layout"]
const OF_MODEL = ["lm", "tokens", "sequences", "tp", "lmdtype"]
/** Fields that a small screen folds away, and what stands in them on a new page. */
const FOLDED = { kernels: "library", cache: "cold", kwh_price: "", gco2_per_kwh: "" }
const OF_BOTH = [...Object.keys(FOLDED), "device", "shown"]

/** What stands in the form: {source, gemms, ..., device: [names]}. */
export function question(form) {
  const data = new FormData(form)
  return { ...Object.fromEntries(data), device: data.getAll("device") }
}

/** The form as the part of an address behind `#`. */
export function toHash(form) {
  const data = new FormData(form)
  const isModel = data.get("source") === "model"
  const hash = new URLSearchParams()
  for (const name of [...(isModel ? OF_MODEL : OF_LIST), ...OF_BOTH]) {
    for (const value of data.getAll(name)) {
      // a line break takes three letters in an address, a semicolon is one as well
      if (value !== "") hash.append(name, value.trim().replace(/\s*\n\s*/g, ";"))
    }
  }
  return hash.toString()
}

/** Fill the form from an address; what it does not say, or says wrongly, is as on a new page. */
export function fromHash(form, text) {
  const hash = new URLSearchParams(text)
  form.reset()
  form.elements.shown.value = 0
  form.elements.source.value = hash.has("lm") ? "model" : "list"
  if (hash.has("gemms")) form.elements.gemms.value = hash.get("gemms").replaceAll(";", "\n")
  for (const name of [...OF_LIST, ...OF_MODEL, ...OF_BOTH]) {
    if (name !== "gemms" && name !== "device" && hash.has(name))
      fill(form.elements[name], hash.get(name))
  }
  const devices = hash.getAll("device")
  const boxes = [...form.querySelectorAll("[name=device]")]
  const isKnown = boxes.some(({ value }) => devices.includes(value))
  for (const box of boxes) if (isKnown) box.checked = devices.includes(box.value)
  const isOther = ([name, usual]) => form.elements[name].value !== usual
  if (Object.entries(FOLDED).some(isOther)) form.querySelector("details").open = true
}

function fill(field, value) {
  const isChoice = field.tagName === "SELECT"
  const has = !isChoice || [...field.options].some((option) => option.value === value)
  if (has) field.value = value
}

/** Show the fields of the chosen source. */
export function showSource(form) {
  const { source } = question(form)
  for (const part of form.querySelectorAll("[data-source]")) {
    part.hidden = part.dataset.source !== source
    for (const field of part.querySelectorAll("input, select, textarea"))
      field.disabled = part.hidden
  }
}
