// Text to GEMMs: lines of `m n k [dtype] [layout] [batch]`, or a table with the header of
// docs/language-models.md, separated by commas, tabs or blanks. Rules and limits are those of gemmcast/gemm_list.py.

import { InputError } from "./query.mjs"

const LEAST = ["m", "n", "k"]
const SIZES = [...LEAST, "batch"]

/**
 * The GEMMs of a text, each once, with the sum of the weights.
 *
 * @param contract from `contract_facts`.
 * @param text what was typed.
 * @param absent {dtype, layout} of lines without them.
 * @returns [{gemm, weight, name, kernel}]
 * @throws InputError that names the line.
 */
export function readList(contract, text, absent) {
  const lines = text.split(/\r?\n|;/)
  const filled = lines.map((line, i) => [i + 1, line.trim()]).filter(([, line]) => line)
  if (!filled.length) throw new InputError("no GEMM: write one a line, such as 4096 4096 4096")
  const hasHeader = /[a-z_]/i.test(filled[0][1][0])
  const header = hasHeader ? readHeader(contract, filled.shift()) : null
  if (!filled.length) throw new InputError("no GEMM under the header: write one a line")
  const listed = filled.map(([number, line]) => {
    const values = header ? ofTable(header, number, line) : ofWords(contract, number, line)
    return checked(contract, number, { ...absent, ...values })
  })
  return summed(listed)
}

/** Each GEMM once, in the order of first appearance: weights added, names joined. */
export function summed(listed) {
  const groups = new Map()
  for (const one of listed) {
    const key = JSON.stringify([one.gemm, one.kernel])
    groups.set(key, [...(groups.get(key) ?? []), one])
  }
  return [...groups.values()].map((group) => {
    const weight = group.reduce((sum, one) => sum + one.weight, 0)
    const names = [...new Set(group.map((one) => one.name).filter(Boolean))]
    return { ...group[0], weight, name: names.join(" + ") }
  })
}

function readHeader(contract, [number, line]) {
  const header = cells(line)
  for (const column of header) {
    if (!contract.columns.includes(column)) {
      const known = contract.columns.join(", ")
      throw new InputError(`line ${number}: unknown column "${column}"; columns are ${known}`)
    }
  }
  for (const column of LEAST) {
    if (!header.includes(column)) throw new InputError(`line ${number}: has no column ${column}`)
  }
  return header
}

/** Cells of a line: of CSV, where quotes keep a comma, of a spreadsheet, or between blanks. */
function cells(line) {
  if (!line.includes(",")) return line.split(line.includes("\t") ? "\t" : /\s+/)
  const found = `${line},`.match(/\s*("([^"]|"")*"|[^,]*)\s*,/g)
  return found.map((cell) => {
    const word = cell.slice(0, -1).trim()
    return word.startsWith('"') ? word.slice(1, -1).replaceAll('""', '"') : word
  })
}

function ofTable(header, number, line) {
  const words = cells(line)
  if (words.length > header.length) {
    const rule = `has ${words.length} cells under ${header.length} columns`
    throw new InputError(`line ${number}: ${rule}; leave some out`)
  }
  const pairs = words.map((word, i) => [header[i], word])
  return Object.fromEntries(pairs.filter(([, word]) => word !== ""))
}

/** Words in any order behind m, n and k: a dtype, a layout, a batch. */
function ofWords(contract, number, line) {
  const [m, n, k, ...others] = line.split(/[\s,x×]+/).filter(Boolean)
  const values = { m, n, k }
  for (const word of others) {
    const field = fieldOf(contract, word)
    if (!field || field in values) {
      const known = [...Object.keys(contract.dtypes), ...contract.layouts].join(", ")
      const wayOut = `behind m n k: one batch, one of ${known}`
      throw new InputError(`line ${number}: can't read "${word}"; ${wayOut}`)
    }
    values[field] = word
  }
  return values
}

/** What a word behind m, n and k says; undefined for an unknown one. */
function fieldOf(contract, word) {
  if (Object.hasOwn(contract.dtypes, word)) return "dtype"
  if (contract.layouts.includes(word)) return "layout"
  return /^\d+$/.test(word) ? "batch" : undefined
}

function checked(contract, number, values) {
  const gemm = { batch: 1, beta: 0, ...values }
  for (const size of SIZES) {
    const value = gemm[size]
    const isWhole = /^\d{1,8}$/.test(`${value ?? ""}`)
    if (!isWhole || +value < 1 || +value > contract.max_dim) {
      const rule = `${size} = "${value ?? ""}" must be a whole number from 1 to ${contract.max_dim}`
      throw new InputError(`line ${number}: ${rule}`)
    }
    gemm[size] = +value
  }
  mustBeOneOf(number, "dtype", gemm.dtype, Object.keys(contract.dtypes))
  mustBeOneOf(number, "layout", gemm.layout, contract.layouts)
  mustBeOneOf(number, "kernel", gemm.kernel ?? "", contract.listed_kernels)
  const weight = finite(number, "weight", values.weight ?? 1)
  if (weight <= 0) throw new InputError(`line ${number}: weight = ${weight} must be above 0`)
  const { m, n, k, batch, dtype, layout } = gemm
  const problem = { m, n, k, batch, dtype, layout, beta: finite(number, "beta", gemm.beta) }
  return { gemm: problem, weight, name: values.name ?? "", kernel: values.kernel ?? "" }
}

function mustBeOneOf(number, field, value, known) {
  if (known.includes(value)) return
  throw new InputError(
    `line ${number}: unknown ${field} "${value}"; use one of ${known.join(", ")}`,
  )
}

function finite(number, field, value) {
  if (value === "" || !Number.isFinite(+value)) {
    throw new InputError(`line ${number}: ${field} = "${value}" must be a number`)
  }
  return +value
}
