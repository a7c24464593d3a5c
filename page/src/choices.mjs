// Which configurations a GEMM can take on a device, and which of them no other one beats.
// What families make and refuse was found out by coordinator/report/ask_candidates.py.

/** Whether FAMILY or FAMILY:KERNEL computes the plain product; of Triton, what is meant. */
function isMeant(written, kernel) {
  const [family, named = ""] = written.split(":")
  return family === "triton" ? named === kernel : !named
}

function groups(model, device, gemm) {
  return model.candidates[device.makes][`${gemm.dtype} ${gemm.layout}`] ?? {}
}

function accepts(group, gemm) {
  const isWhole = ["m", "n", "k"].every((size) => gemm[size] % group.multiples[size] === 0)
  return isWhole && gemm.batch <= group.max_batch && (!gemm.beta || group.with_beta)
}

/**
 * Every configuration that can run the GEMM there: [{name, family, row}]. The default of a family is
 * its first.
 *
 * @param families which; null for all of the plain product, or of the GEMM's kernel.
 */
export function candidates(model, device, { gemm, kernel = "" }, families = null) {
  const chosen = []
  for (const [family, group] of Object.entries(groups(model, device, gemm))) {
    const isWanted = families ? families.includes(family) : isMeant(family, kernel)
    if (!isWanted || !accepts(group, gemm)) continue
    group.rows.forEach((row, i) => {
      const fits = gemm.k >= group.min_k[i] && gemm.m <= group.max_m[i]
      if (fits) chosen.push({ name: group.names[i], family, row })
    })
  }
  return chosen
}

/**
 * What computes a GEMM: the default of a family where it can, else what the vendor's library takes.
 *
 * @param family "library", or the name of a family.
 */
export function usual(model, device, listed, family) {
  if (family !== "library") {
    const wanted = family === "triton" && listed.kernel ? `triton:${listed.kernel}` : family
    const [first] = candidates(model, device, listed, [wanted])
    if (first) return first
  }
  const { name, row } = device.library[listed.gemm.dtype]
  return { name, family: name.split(":")[0], row }
}

/**
 * Whether cuBLASLt does not multiply the GEMM, of the dtypes with 8 bits (gemmcast/feasible.py).
 * Other families have no default then, and no candidate.
 */
export function isImpossible(contract, { gemm, family }) {
  const multiple = contract.lt_multiples[gemm.dtype]
  if (family !== "cublaslt" || !multiple) return false
  return gemm.layout !== "nt" || gemm.n % multiple !== 0 || gemm.k % multiple !== 0
}

/** Those that no other beats in sustained time and energy, fastest first. */
export function pareto(scored) {
  const comparable = scored.filter(({ answer }) => answer.energy_mj && answer.sustained_runtime_us)
  const time = ({ answer }) => answer.sustained_runtime_us.value
  const energy = ({ answer }) => answer.energy_mj.value
  const sorted = comparable.sort((a, b) => time(a) - time(b) || energy(a) - energy(b))
  const front = []
  for (const one of sorted) {
    if (!front.length || energy(one) < energy(front.at(-1))) front.push(one)
  }
  return front
}

/**
 * Cost of the default over the cost of another configuration, with its interval (gemmcast/gain.py):
 * the errors of two predictions on one device are partly the same and cancel, the more the closer
 * they are.
 */
export function gain(contract, byDefault, other, target) {
  const [from, to] = [byDefault.answer[target], other.answer[target]]
  const ratio = Math.log(from.value / to.value)
  const halfWidths = [from, to].map(({ value, high }) => Math.log(high / value))
  const { near, far, apart } = contract.gain
  const left = near + (far - near) * Math.min(1, Math.abs(ratio) / apart)
  const half = byDefault === other ? 0 : left * Math.hypot(...halfWidths)
  return { value: Math.exp(ratio), low: Math.exp(ratio - half), high: Math.exp(ratio + half) }
}
