// Numbers as text: units, and the digits that an interval allows (gemmcast/cli_text.py).

const SCALES = {
  runtime_us: [
    ["µs", 1],
    ["ms", 1e3],
    ["s", 1e6],
  ],
  sustained_runtime_us: [
    ["µs", 1],
    ["ms", 1e3],
    ["s", 1e6],
  ],
  energy_mj: [
    ["mJ", 1],
    ["J", 1e3],
    ["kJ", 1e6],
  ],
  power_w: [["W", 1]],
  tflops: [["TFLOP/s", 1]],
  // in the currency of the price
  cost: [["", 1]],
  gco2e: [
    ["gCO2e", 1],
    ["kgCO2e", 1e3],
    ["tCO2e", 1e6],
  ],
}

/** Outside, powers of ten are read more easily. */
const [SMALLEST, LARGEST] = [1e-3, 1e6]

/** The unit in which a value is read best: [name, factor]. */
export function unitOf(target, value) {
  const fitting = SCALES[target].filter(([, factor]) => value >= factor)
  return fitting.at(-1) ?? SCALES[target][0]
}

/** {value, low, high} -> {value: "201 µs", interval: "192–211"}. */
export function shown(target, { value, low, high }) {
  const [unit, factor] = unitOf(target, value)
  const half = (high - low) / factor / 2
  const [middle, from, to] = [value, low, high].map((end) => rounded(end / factor, half))
  return { value: `${middle} ${unit}`.trim(), interval: `${from}–${to}` }
}

/** A gain as {value: "1.08", interval: "1.01–1.15"}. */
export function shownGain({ value, low, high }) {
  const [middle, from, to] = [value, low, high].map((ratio) => rounded(ratio, 0.1))
  return { value: middle, interval: `${from}–${to}` }
}

/** Half the interval keeps two digits, and so does each number. */
function rounded(number, half) {
  const isFar = number && (number < SMALLEST || number > LARGEST)
  if (isFar) return number.toExponential(1)
  const decimals = Math.max(decimalsOf(half), decimalsOf(number))
  const factor = 10 ** decimals
  const fraction = Math.max(0, decimals)
  const digits = { minimumFractionDigits: fraction, maximumFractionDigits: fraction }
  return (Math.round(number * factor) / factor).toLocaleString("en", digits)
}

/** Places behind the point that leave two digits; negative: before the point. */
function decimalsOf(number) {
  return number ? 1 - Math.floor(Math.log10(Math.abs(number))) : 0
}

/** "4.1 % less time (intervals overlap)", "3.2 times the energy". */
export function compared(what, from, to) {
  const ratio = to.value / from.value
  const isSure = to.low > from.high || to.high < from.low
  return `${changed(ratio, what)}${isSure ? "" : " (intervals overlap)"}`
}

function changed(ratio, what) {
  if (ratio >= 2) return `${+ratio.toPrecision(2)} times the ${what}`
  const percent = 100 * Math.abs(ratio - 1)
  return `${percent.toFixed(percent < 10 ? 1 : 0)} % ${ratio > 1 ? "more" : "less"} ${what}`
}

/** A number on an axis: "20k", "1370", "0.5". */
export function tick(number) {
  const [unit, factor] = number >= 1e6 ? ["M", 1e6] : number >= 1e4 ? ["k", 1e3] : ["", 1]
  return `${+(number / factor).toPrecision(number >= 1e3 ? 4 : 3)}${unit}`
}

/** `NVIDIA H100 80GB HBM3` -> `H100 80GB HBM3`. */
export const fullName = (device) => device.name.replace(/^NVIDIA /, "")

/** The first word of a device's name where no other device has it: `H100`. */
export function short(device, devices) {
  const [first] = fullName(device).split(" ")
  const alike = devices.filter((other) => fullName(other).split(" ")[0] === first)
  return alike.length > 1 ? fullName(device) : first
}
