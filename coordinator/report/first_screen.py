"""The first screen: how good the model is, what was measured, and what to do next."""

from __future__ import annotations

from coordinator.report.advice import Around, advice
from coordinator.report.analysis import ErrorSummary, HeldOutRows, interval_coverage
from coordinator.report.drawing import TARGET_NAMES
from coordinator.report.model_sections import SHOWN_TARGETS
from coordinator.report.page import Answers, Headline
from costmodel.dataset import TrainingSet
from gemmcast.card import ModelCard

HOW_GOOD = "How good is the model?"
WHAT_MEASURED = "What did I measure?"
WHAT_NEXT = "What to do next"


def first_screen(
    data: TrainingSet,
    failed: int,
    held: HeldOutRows | None,
    card: ModelCard | None,
    around: Around,
) -> list[Answers]:
    """The three answers.

    Args:
        data: the usable rows.
        failed: rows that are not ok.
        held, card: of the model; None where there is none.
    """
    return [
        _how_good(held, card, around),
        _what_measured(data, failed),
        Answers(title=WHAT_NEXT, advice=advice(data, failed, held, around)),
    ]


def _how_good(held: HeldOutRows | None, card: ModelCard | None, around: Around) -> Answers:
    if held is None or card is None:
        return Answers(title=HOW_GOOD, text="No model yet.")
    if not len(held.data):
        text = "Not known here: the model was trained on the shape of every row."
        return Answers(title=HOW_GOOD, text=text, link=around.ask_page)
    text = (
        f"Median error of what it predicts for {len(held.data):,} GEMMs of "
        f"{len(set(held.data.shapes)):,} shapes that it has never seen:"
    )
    errors = [_error_headline(held, target) for target in SHOWN_TARGETS]
    headlines = [one for one in errors if one]
    headlines += [*_nearest(card, held), *_coverage(held)]
    return Answers(title=HOW_GOOD, text=text, headlines=headlines, link=around.ask_page)


def _error_headline(held: HeldOutRows, target: str) -> Headline | None:
    if target not in held.targets:
        return None
    error = ErrorSummary.of(held.errors(target))
    if not error:
        return None
    text = f"{TARGET_NAMES[target]} ({error.rows:,} measured)"
    return Headline(number=f"{error.median:.1f} %", text=text)


def _nearest(card: ModelCard, held: HeldOutRows) -> list[Headline]:
    """Of the same rows as the errors; none where rows have come since the model was made."""
    nearest = card.scores.get("runtime_us", {}).get("lookup")
    if not nearest or held.measured_later.any():
        return []
    text = "runtime, had the nearest measured shape been taken instead"
    return [Headline(number=f"{nearest['median_ape']:.1f} %", text=text)]


def _coverage(held: HeldOutRows) -> list[Headline]:
    one = interval_coverage(held).get("runtime_us")
    if one is None:
        return []
    text = "of these runtimes lie within their 90 % intervals"
    return [Headline(number=f"{one.within:.0f} %", text=text)]


def _what_measured(data: TrainingSet, failed: int) -> Answers:
    if not len(data):
        return Answers(title=WHAT_MEASURED, text="Nothing with status ok yet.")
    devices = sorted(set(data.column("device").tolist()))
    families = sorted(set(data.column("family").tolist()))
    where = devices[0] if len(devices) == 1 else f"{len(devices)} types of device"
    headlines = [
        Headline(number=f"{len(data):,}", text=f"GEMMs measured on {where}; {failed:,} failed"),
        Headline(number=f"{len(set(data.shapes)):,}", text="shapes"),
        Headline(number=f"{len(families)}", text=f"kernel families: {', '.join(families)}"),
    ]
    return Answers(title=WHAT_MEASURED, headlines=headlines)
