// The page: fills the form, and answers whenever the question changes.

import { answered, listedOf, weighed } from "./answers.mjs"
import { ratesOf } from "./carbon.mjs"
import { paretoChart, roofline } from "./charts.mjs"
import { $, deviceName, html } from "./dom.mjs"
import { describe, fillForm } from "./form.mjs"
import { open, unpacked } from "./model.mjs"
import { InputError, nameOf, operandBytes } from "./query.mjs"
import { fromHash, question, showSource, toHash } from "./state.mjs"
import { tick } from "./text.mjs"
import { cards, comparison, frontTable, gemmTable, roofText, spoken } from "./view.mjs"

const TYPING_MS = 300
/** From this width on the question stands beside the answer (ask.css). */
const WIDE_PX = 900

/** Start the page. */
export async function show() {
  try {
    const facts = await embeddedFacts()
    const form = $("ask")
    fillForm(form, facts)
    $("more").open = innerWidth >= WIDE_PX
    fromHash(form, location.hash.slice(1))
    showSource(form)
    describe(facts)
    new Page(form, await open(facts)).start()
  } catch (error) {
    $("status").textContent = `The model can't be opened in this browser: ${error.message}`
    throw error
  }
}

async function embeddedFacts() {
  const [shared, model] = await Promise.all(
    ["facts", "model"].map((id) => unpacked($(id).textContent)),
  )
  const [facts, about] = [shared, model].map((bytes) => JSON.parse(new TextDecoder().decode(bytes)))
  return { ...facts, model: about }
}

/** The form and its answer. */
class Page {
  constructor(form, model) {
    this.form = form
    this.model = model
    /** Counts questions: an answer to an older one is dropped. */
    this.asked = 0
  }

  start() {
    let timer
    this.form.addEventListener("input", (event) => {
      showSource(this.form)
      if (event.target.name !== "shown") this.form.elements.shown.value = 0
      clearTimeout(timer)
      timer = setTimeout(() => this.answer(), TYPING_MS)
    })
    this.form.addEventListener("submit", (event) => {
      event.preventDefault()
      clearTimeout(timer)
      this.answer(() => this.reveal())
    })
    addEventListener("hashchange", () => {
      if (location.hash.slice(1) === toHash(this.form)) return
      fromHash(this.form, location.hash.slice(1))
      showSource(this.form)
      this.answer()
    })
    let width = innerWidth
    addEventListener("resize", () => {
      if (innerWidth === width) return
      width = innerWidth
      this.draw()
    })
    $("share").addEventListener("click", () => this.share())
    this.answer()
  }

  /** Answer the question of the form; `then` is called when the answer is shown. */
  async answer(then = () => {}) {
    const asked = ++this.asked
    this.say("")
    try {
      const posed = question(this.form)
      const about = { ...listedOf(this.model, posed), rates: ratesOf(posed) }
      const results = await answered(this.model, posed, about)
      if (asked !== this.asked) return
      history.replaceState(null, "", `#${toHash(this.form)}`)
      this.shown = {
        posed,
        about,
        results,
        place: Math.min(+posed.shown || 0, about.listed.length - 1),
        series: null,
      }
      this.showAnswers()
      then()
      await this.weigh(asked)
    } catch (error) {
      if (!(error instanceof InputError)) throw error
      if (asked !== this.asked) return
      this.say(error.message)
    }
  }

  /** Scroll to the answer if it is below the screen. */
  reveal() {
    const results = $("results")
    if (results.getBoundingClientRect().top > innerHeight / 2) results.scrollIntoView()
  }

  /** Say what is wrong with the question; an empty text: nothing is. */
  say(message) {
    $("error").textContent = message
    this.form.elements.gemms.setAttribute("aria-invalid", `${Boolean(message)}`)
  }

  showAnswers() {
    const { about, results, place } = this.shown
    const { listed, title, remark } = about
    $("answer").textContent =
      title ||
      (listed.length > 1 ? `${listed.length} GEMMs, one after the other` : nameOf(listed[0].gemm))
    $("status").textContent = remark
    $("cards").replaceChildren(...cards(this.model.contract, results, about))
    $("compared").textContent = comparison(results)
    $("spoken").textContent = spoken($("answer").textContent, results)
    const isDoubtful = results.some(({ answers }) =>
      answers?.some(({ extrapolating }) => extrapolating),
    )
    $("extrapolating").hidden = !isDoubtful
    $("extrapolating").textContent = this.model.contract.extrapolating.replace(/^e(.*)$/, "E$1.")
    $("each").hidden = listed.length === 1 && !title
    $("table").replaceChildren(gemmTable(results, listed, place, (i) => this.choose(i)))
    this.draw()
  }

  /** Show another GEMM of the list in the charts. */
  choose(i) {
    this.form.elements.shown.value = i
    this.answer().then(() => $("table").querySelectorAll("button")[i]?.focus())
  }

  /** Score every configuration of the GEMM that is shown. */
  async weigh(asked) {
    const { posed, about, results, place } = this.shown
    const one = about.listed[place]
    $("pareto").setAttribute("aria-busy", "true")
    $("pareto-text").textContent = `Weighing the configurations of ${nameOf(one.gemm)} …`
    const pause = () => new Promise((resume) => setTimeout(resume))
    const series = []
    for (const result of results.filter(({ refusal }) => !refusal)) {
      await pause()
      const found = await weighed(this.model, posed, result.device, one, pause)
      if (asked !== this.asked) return
      if (found) series.push({ place: result.place, label: result.label, ...found })
    }
    this.shown.series = series
    $("pareto").setAttribute("aria-busy", "false")
    this.draw()
  }

  /** Both charts, in the width that there is. */
  draw() {
    if (!this.shown) return
    this.drawRoofline()
    this.drawPareto()
  }

  drawRoofline() {
    const { about, results, place } = this.shown
    const { gemm } = about.listed[place]
    const answering = results.filter(({ refusal }) => !refusal)
    $("roofline").replaceChildren()
    if (!answering.length) return
    const roofs = answering.map((one) => ({
      place: one.place,
      peak_tflops: one.device.peak_tflops[gemm.dtype],
      gbps: one.device.dram_gbps,
    }))
    const points = answering.flatMap((result) => {
      return about.listed.map((one, i) => this.point(result, one.gemm, i, i === place))
    })
    const alike = points.filter(({ dtype }) => dtype === gemm.dtype)
    const intensity = alike.find(({ isShown }) => isShown).intensity
    const texts = answering.map((result) => roofText(result, gemm, place, intensity))
    $("roofline-legend").replaceChildren(
      ...answering.map((one) => deviceName(one.place, one.label)),
    )
    const label = `Roofline of ${gemm.dtype}. ${texts.join(". ")}.`
    $("roofline").replaceChildren(roofline($("roofline").clientWidth, roofs, alike, label))
    $("roofline-text").textContent =
      `${nameOf(gemm)}, ${tick(intensity)} FLOP per byte. ${texts.join("; ")}.`
  }

  point(result, gemm, i, isShown) {
    const { tflops } = result.answers[i]
    const intensity =
      (2 * gemm.m * gemm.n * gemm.k * gemm.batch) / operandBytes(this.model.contract, gemm)
    const title = `${result.label}: ${nameOf(gemm)}, ${tflops.value.toPrecision(3)} TFLOP/s`
    return { place: result.place, intensity, tflops, isShown, title, dtype: gemm.dtype }
  }

  drawPareto() {
    const { about, results, place, series } = this.shown
    $("front").hidden = !series?.length
    $("pareto").replaceChildren()
    if (!series) return
    if (!series.length) {
      const isAnswered = results.some(({ refusal }) => !refusal)
      $("pareto-text").textContent = isAnswered ? "This model does not predict energy here." : ""
      return
    }
    const name = nameOf(about.listed[place].gemm)
    const counts = series.map(
      ({ label, all, front }) => `${label}: ${front.length} of ${all.length} configurations`,
    )
    const title = `Time against energy of ${name}. On the front: ${counts.join("; ")}.`
    const legend = series.map((one) => deviceName(one.place, one.label))
    $("pareto-legend").replaceChildren(...legend, html("span", {}, "◯ what the library takes"))
    $("pareto").replaceChildren(paretoChart($("pareto").clientWidth, series, title))
    $("pareto-text").textContent =
      `${name}. No other beats these in time and energy: ${counts.join("; ")}.`
    $("front-table").replaceChildren(frontTable(this.model.contract, series))
  }

  async share() {
    history.replaceState(null, "", `#${toHash(this.form)}`)
    try {
      await navigator.clipboard.writeText(location.href)
      $("shared").textContent = "Copied."
    } catch {
      $("shared").textContent = "Copy the address from the address bar: it is the question."
    }
  }
}
