// The model in this process: ONNX Runtime Web on one thread, its WebAssembly inside this file, so
// that neither a server nor a network is needed. Used by the page and from Node alike.

import * as ort from "onnxruntime-web/wasm"
import runtimeGz from "../build/runtime.wasm.gz"
import { isImpossible } from "./choices.mjs"
import { encode } from "./query.mjs"

const ROWS_AT_ONCE = 256
const INTERVALS = ["low", "high"]

/** The bytes of a text in base64. */
async function bytesOf(base64, type = "application/octet-stream") {
  const answer = await fetch(`data:${type};base64,${base64}`)
  return new Uint8Array(await answer.arrayBuffer())
}

/** What gzip packed. */
export async function unpacked(base64) {
  const packed = new Blob([await bytesOf(base64)])
  const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"))
  return new Response(stream).arrayBuffer()
}

/**
 * Open a model.
 *
 * @param facts the content of ask.json: {contract, model, language_models}.
 */
export async function open(facts) {
  ort.env.wasm.numThreads = 1
  ort.env.wasm.wasmBinary ??= await unpacked(runtimeGz)
  const options = {
    executionProviders: ["wasm"],
    // 4 is "fatal only": whatever it would log is thrown as an error too
    logSeverityLevel: 4,
    // The graph is folded already: to look again delays the first answer and saves nothing later
    graphOptimizationLevel: "disabled",
  }
  const session = await ort.InferenceSession.create(await bytesOf(facts.model.onnx), options)
  return new Model(facts, session)
}

/** A model that answers. */
export class Model {
  constructor(facts, session) {
    this.contract = facts.contract
    this.about = facts.model
    this.devices = facts.model.devices
    this.languageModels = facts.language_models
    this.session = session
  }

  /** The first device whose name has all these words, in any case: `h200`, `h100 80gb`. */
  device(words) {
    const wanted = words.toLowerCase().split(/[\s-]+/)
    const found = this.devices.find(({ name }) =>
      wanted.every((word) => name.toLowerCase().includes(word)),
    )
    if (!found)
      throw new Error(
        `device "${words}": known are ${this.devices.map(({ name }) => name).join(", ")}`,
      )
    return found
  }

  /**
   * What GEMMs cost on a device, in their order.
   *
   * @param queries [{gemm, family, row}]: the problem, and a configuration (choices.mjs).
   * @param pause awaited between two parts of a long list.
   * @returns [{runtime_us: {value, low, high}, ..., extrapolating}]; null for an unknown value.
   */
  async predict(queries, device, { isWarm = false, pause = null } = {}) {
    const answers = []
    for (let start = 0; start < queries.length; start += ROWS_AT_ONCE) {
      if (start && pause) await pause()
      const part = queries.slice(start, start + ROWS_AT_ONCE)
      answers.push(...(await this.#answers(part, device, isWarm)))
    }
    return answers
  }

  async #answers(queries, device, isWarm) {
    const rows = queries.map(({ gemm, row }) => encode(this.contract, gemm, row, device, isWarm))
    const data = Float32Array.from(rows.flat())
    const question = new ort.Tensor("float32", data, [rows.length, this.contract.fields.length])
    const found = await this.session.run({ question })
    return queries.map((query, i) => this.#answer(found, i, query))
  }

  #answer(found, i, query) {
    const { outputs } = this.about
    const isDoubted = Boolean(found.extrapolating.data[i]) || isImpossible(this.contract, query)
    const answer = { extrapolating: isDoubted }
    outputs.forEach((name, column) => {
      const value = found[name].data[i]
      const [low, high] = INTERVALS.map((end) => found[end].data[i * outputs.length + column])
      answer[name] = Number.isNaN(value) ? null : { value, low, high }
    })
    return answer
  }
}
