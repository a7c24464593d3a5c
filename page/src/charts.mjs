// The two charts, as SVG in pixels of the screen, so that text is never below 12 px.
// Both axes are logarithmic.

import { colour, mark, svg } from "./dom.mjs"
import { tick } from "./text.mjs"

const HEIGHT = 300
const MARGIN = { left: 48, right: 12, top: 10, bottom: 42 }
const STEPS = [1, 2, 5, 10]
/** Configurations are shown up to this factor over the slowest of a front or a default. */
const NEAR = 1.25
const DASHES = ["", "7 4", "2 4", "9 3 2 3"]

/** A logarithmic scale from numbers to pixels, with its ticks. */
function scale(least, most, from, to) {
  const [low, high] = [Math.log10(least), Math.log10(most)]
  const place = (number) => from + ((Math.log10(number) - low) / (high - low)) * (to - from)
  return { place, ticks: most / least < 5 ? evenTicks(least, most) : decadeTicks(low, high) }
}

/** Round numbers that are equally far apart, for less than a decade. */
function evenTicks(least, most) {
  const rough = (most - least) / 4
  const decade = 10 ** Math.floor(Math.log10(rough))
  const step = decade * STEPS.find((one) => one * decade >= rough || one === STEPS.at(-1))
  const ticks = []
  for (let number = Math.ceil(least / step) * step; number <= most; number += step)
    ticks.push(number)
  return ticks
}

/** Powers of ten, with what lies between where few decades are shown. */
function decadeTicks(low, high) {
  const steps = high - low > 2 ? [1] : STEPS.slice(0, 3)
  const ticks = []
  for (let decade = Math.floor(low); decade <= high; decade++) {
    for (const step of steps) {
      const at = decade + Math.log10(step)
      if (at >= low && at <= high) ticks.push(+`${step}e${decade}`)
    }
  }
  return ticks
}

/** The frame of a chart: grid, ticks, names of the axes. */
function frame(width, { label, x, y, names }) {
  const chart = svg("svg", {
    width,
    height: HEIGHT,
    viewBox: `0 0 ${width} ${HEIGHT}`,
    role: "img",
    "aria-label": label,
  })
  const right = width - MARGIN.right
  const bottom = HEIGHT - MARGIN.bottom
  const line = { stroke: "var(--line)", "stroke-width": 1 }
  for (const number of x.ticks) {
    const at = x.place(number)
    chart.append(svg("line", { x1: at, x2: at, y1: MARGIN.top, y2: bottom, ...line }))
    chart.append(svg("text", { x: at, y: bottom + 16, "text-anchor": "middle" }, tick(number)))
  }
  for (const number of y.ticks) {
    const at = y.place(number)
    chart.append(svg("line", { x1: MARGIN.left, x2: right, y1: at, y2: at, ...line }))
    chart.append(svg("text", { x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" }, tick(number)))
  }
  chart.append(svg("text", { x: right, y: HEIGHT - 6, "text-anchor": "end" }, names[0]))
  chart.append(svg("text", { x: MARGIN.left + 5, y: MARGIN.top + 10 }, names[1]))
  return chart
}

function axes(width, xs, ys) {
  const x = scale(Math.min(...xs), Math.max(...xs), MARGIN.left, width - MARGIN.right)
  const y = scale(Math.min(...ys), Math.max(...ys), HEIGHT - MARGIN.bottom, MARGIN.top)
  return { x, y }
}

/**
 * Throughput against arithmetic intensity, under the roof of each device.
 *
 * @param roofs [{place, peak_tflops, gbps}]
 * @param points [{place, intensity, tflops: {value, low, high}, isShown, title}]
 */
export function roofline(width, roofs, points, label) {
  const intensities = points.map(({ intensity }) => intensity)
  const ridges = roofs.map(({ peak_tflops, gbps }) => (1e3 * peak_tflops) / gbps)
  const xs = [Math.min(...intensities, ...ridges) / 3, Math.max(...intensities, ...ridges) * 3]
  const tops = [
    ...roofs.map(({ peak_tflops }) => peak_tflops),
    ...points.map(({ tflops }) => tflops.high),
  ]
  const ys = [Math.min(...points.map(({ tflops }) => tflops.low)) / 2, 1.6 * Math.max(...tops)]
  const { x, y } = axes(width, xs, ys)
  const chart = frame(width, { label, x, y, names: ["FLOP per byte of A, B and C", "TFLOP/s"] })
  roofs.forEach((roof, i) => chart.append(roofLine(roof, ridges[i], xs, Math.min(...ys), x, y)))
  for (const point of points) chart.append(...measured(point, x, y))
  return chart
}

function roofLine({ place, peak_tflops, gbps }, ridge, [from, to], floor, x, y) {
  const slope = gbps / 1e3
  const start = Math.max(from, floor / slope)
  const corners = [
    [start, start * slope],
    [ridge, peak_tflops],
    [to, peak_tflops],
  ]
  const path = corners.map(([at, tflops]) => `${x.place(at)},${y.place(tflops)}`).join(" ")
  const dash = DASHES[place % DASHES.length]
  return svg("polyline", {
    points: path,
    fill: "none",
    stroke: colour(place),
    "stroke-width": 2,
    "stroke-dasharray": dash,
  })
}

function measured({ place, intensity, tflops, isShown, title }, x, y) {
  // side by side where devices agree
  const at = x.place(intensity) + 7 * (place - 0.5)
  const bar = {
    x1: at,
    x2: at,
    y1: y.place(tflops.low),
    y2: y.place(tflops.high),
    stroke: colour(place),
  }
  const point = mark(place, at, y.place(tflops.value), isShown ? 6 : 4, {
    opacity: isShown ? 1 : 0.6,
  })
  point.append(svg("title", {}, title))
  return [svg("line", { ...bar, "stroke-width": 2 }), point]
}

/**
 * Every configuration by sustained time and energy, and the front of each device.
 *
 * @param series [{place, all, front, byDefault}]; each configuration is {name, answer}.
 */
export function paretoChart(width, series, label) {
  const every = series.flatMap(({ all }) => all)
  const near = shownRange(series)
  const inside = every.filter((one) => timeOf(one) <= near.time && energyOf(one) <= near.energy)
  const [xs, ys] = [inside.map(timeOf), inside.map(energyOf)]
  const { x, y } = axes(width, padded(xs, 1.05), padded(ys, 1.05))
  const names = ["sustained time, µs", "energy, mJ"]
  const chart = frame(width, { label, x, y, names })
  for (const one of series) chart.append(...cloud(one, near, x, y))
  for (const one of series) chart.append(...front(one, x, y))
  return chart
}

const timeOf = ({ answer }) => answer.sustained_runtime_us.value
const energyOf = ({ answer }) => answer.energy_mj.value
const padded = (numbers, factor) => [Math.min(...numbers) / factor, Math.max(...numbers) * factor]

/** What is far behind the fronts and the defaults would flatten them. */
function shownRange(series) {
  const kept = series.flatMap(({ front, byDefault }) => [...front, byDefault])
  return {
    time: NEAR * Math.max(...kept.map(timeOf)),
    energy: NEAR * Math.max(...kept.map(energyOf)),
  }
}

/** All dots of a device as one path; the caps of its lines are the dots. */
function cloud({ place, all }, near, x, y) {
  const inside = all.filter((one) => timeOf(one) <= near.time && energyOf(one) <= near.energy)
  const dots = inside.map(
    (one) => `M${x.place(timeOf(one)).toFixed(1)} ${y.place(energyOf(one)).toFixed(1)}h.01`,
  )
  const cap = place % 2 ? "square" : "round"
  return [
    svg("path", {
      d: dots.join(""),
      stroke: colour(place),
      "stroke-width": 4,
      "stroke-linecap": cap,
      opacity: 0.3,
    }),
  ]
}

function front({ place, front: best, byDefault }, x, y) {
  const at = (one) => [x.place(timeOf(one)), y.place(energyOf(one))]
  const line = best.map((one) => at(one).join(",")).join(" ")
  const drawn = [
    svg("polyline", { points: line, fill: "none", stroke: colour(place), "stroke-width": 2 }),
  ]
  for (const one of best) {
    const point = mark(place, ...at(one), 5)
    point.append(svg("title", {}, one.name))
    drawn.push(point)
  }
  const [cx, cy] = at(byDefault)
  const ring = svg("circle", {
    cx,
    cy,
    r: 9,
    fill: "none",
    stroke: colour(place),
    "stroke-width": 2,
  })
  ring.append(svg("title", {}, `default: ${byDefault.name}`))
  return [...drawn, ring]
}
