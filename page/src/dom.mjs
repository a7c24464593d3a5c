// Elements without markup in strings, so that whatever a model or a user names stays text.

const SVG = "http://www.w3.org/2000/svg"
const MARKERS = [
  // circle, square, triangle, diamond: shapes as well as colours tell devices apart
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  (r) => `M${-r} ${-r}H${r}V${r}H${-r}Z`,
  (r) => `M0 ${-1.2 * r}L${1.2 * r} ${r}H${-1.2 * r}Z`,
  (r) => `M0 ${-1.4 * r}L${1.4 * r} 0L0 ${1.4 * r}L${-1.4 * r} 0Z`,
]

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children.filter((child) => child !== null))
  return element
}

/** The element of the page with this id. */
export const $ = (id) => document.getElementById(id)

/** An HTML element. */
export const html = (tag, attributes = {}, ...children) =>
  filled(document.createElement(tag), attributes, children)

/** An SVG element. */
export const svg = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children)

/** The colour of the device at this place among the model's. */
export const colour = (place) => `var(--device-${place % MARKERS.length})`

/** The mark of a device in a chart. */
export function mark(place, x, y, radius, attributes = {}) {
  const shape = MARKERS[place % MARKERS.length](radius)
  return svg("path", {
    d: shape,
    transform: `translate(${x} ${y})`,
    fill: colour(place),
    ...attributes,
  })
}

/** The mark of a device in a text. */
export function badge(place) {
  const picture = svg("svg", {
    width: 16,
    height: 16,
    viewBox: "-8 -8 16 16",
    "aria-hidden": "true",
  })
  picture.append(mark(place, 0, 0, 5.5))
  return picture
}

/** A device's mark and name. */
export const deviceName = (place, name) => html("span", { class: "device" }, badge(place), name)
