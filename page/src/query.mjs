// One query as the 34 numbers of docs/onnx.md. The codes, the order of the fields and the constants
// are gemmcast's own (coordinator/report/ask_model.py); only the rules for unknowns stand here too.

/** What was asked breaks a rule; the message names field, value and way out. */
export class InputError extends Error {}

/** The kernel's numbers by name; 0 is unknown. */
const named = (contract, row) => {
  return Object.fromEntries(contract.kernel_fields.map((field, i) => [field, row[i]]))
}

/**
 * One row of a query.
 *
 * @param contract from `contract_facts`.
 * @param gemm {m, n, k, batch, dtype, layout, beta}.
 * @param row the kernel's numbers, in the order of contract.kernel_fields.
 * @param device one of the model's devices.
 * @param isWarm whether the operands are in the L2 cache.
 * @throws InputError where the device was not measured at the dtype.
 */
export function encode(contract, gemm, row, device, isWarm = false) {
  if (!device.peak_tflops[gemm.dtype])
    throw new InputError(`dtype = "${gemm.dtype}": ${unmeasured(device)}`)
  const kernel = named(contract, row)
  const dtype = contract.dtypes[gemm.dtype]
  const computing = activeUnits(kernel, device)
  const values = {
    ...kernel,
    m: gemm.m,
    n: gemm.n,
    k: gemm.k,
    tile_m: kernel.tile_m || gemm.m,
    tile_n: kernel.tile_n || gemm.n,
    tile_k: kernel.tile_k || gemm.k,
    batch: gemm.batch,
    in_bytes: dtype.in_bytes,
    out_bytes: dtype.out_bytes,
    beta: gemm.beta ? 1 : 0,
    dtype: dtype.code,
    trans_a: gemm.layout[0] === "t" ? 1 : 0,
    trans_b: gemm.layout[1] === "t" ? 1 : 0,
    split_k: kernel.split_k || 1,
    warm: isWarm ? 1 : 0,
    active_units: computing,
    peak_tflops: device.peak_tflops[gemm.dtype] * (computing / device.compute_units),
    dram_gbps: device.dram_gbps,
    l2_bytes: device.l2_bytes,
    clock_max_mhz: device.clock_max_mhz || 0,
    empty_kernel_us: device.empty_kernel_us || contract.empty_kernel_us,
    power_limit_w: device.power_limit_w || 0,
    idle_power_w: device.idle_power_w || 0,
    l2_gbps: device.l2_gbps || contract.l2_over_dram * device.dram_gbps,
  }
  return contract.fields.map((field) => values[field])
}

/** What a device was measured at, for one that is wanted at something else. */
export function unmeasured(device) {
  const measured = Object.keys(device.peak_tflops).join(", ")
  return `no measured peak on ${device.name} (measured: ${measured})`
}

/** Cores that compute on a CPU; all units of a GPU. */
function activeUnits(kernel, device) {
  const isAll = device.kind !== "cpu" || !kernel.threads
  return isAll ? device.compute_units : Math.min(kernel.threads, device.compute_units)
}

/** Multiplications and additions. */
export const flops = (gemm) => 2 * gemm.m * gemm.n * gemm.k * gemm.batch

/** Bytes of A, B and C, each once. */
export function operandBytes(contract, gemm) {
  const { in_bytes, out_bytes } = contract.dtypes[gemm.dtype]
  const aAndB = (gemm.m * gemm.k + gemm.k * gemm.n) * in_bytes
  return gemm.batch * (aAndB + gemm.m * gemm.n * out_bytes)
}

/** `4096x4096x4096 bf16 nt`, as gemmcast writes a GEMM. */
export function nameOf(gemm) {
  const batch = gemm.batch > 1 ? `${gemm.batch}x ` : ""
  return `${batch}${gemm.m}x${gemm.n}x${gemm.k} ${gemm.dtype} ${gemm.layout}`
}
