"""What to do next, by plain rules over what was measured and how wrong the model is.

Each rule says one thing in words, with its figures and the command to type. The most pressing come
first: boards that are not well, then what a run left, then where the model is weak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from shlex import quote
from typing import Final

import numpy as np

from coordinator.report.analysis import ErrorSummary, HeldOutRows, flagged_rows, interval_coverage
from coordinator.report.page import Advice
from costmodel.dataset import TrainingSet

MOST: Final = 4
"""Pieces of advice on the first screen; the last says how to use the model."""
MIN_ROWS: Final = 10
"""Held-out rows of a kind of kernel, below which its error says little."""
WORSE: Final = 1.3
"""A kind is weak whose median error is so many times that of all rows."""
MIN_FLAGGED: Final = 0.05
"""Share of the held-out rows outside the training range that is worth a word."""
LOW_COVERAGE: Final = 80
"""Per cent within the 90 % intervals, below which these are too narrow."""
MANY_FAILED: Final = 0.1
"""Share of rows that failed which is worth a word."""
PREDICT: Final = "python -m gemmcast predict 4096 4096 4096"


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the workspace says besides its samples."""

    workspace: str = ""
    """Its path, as it is typed; empty: it is not known."""
    due: int = 0
    """Cells of the plan without an answer."""
    second_due: int = 0
    """Cells that wait for a second board."""
    sick: Mapping[str, str] = field(default_factory=dict)
    """UUID of a board -> what it has."""
    ask_page: str = ""
    """File beside the report that asks the model; empty: it was not written."""

    def command(self, verb: str, options: str = "") -> str:
        """`python -m coordinator VERB` for this workspace."""
        place = f" --workspace {quote(self.workspace)}" if self.workspace else ""
        return f"python -m coordinator {verb}{place}{options}"


def advice(
    data: TrainingSet, failed: int, held: HeldOutRows | None, around: Around
) -> list[Advice]:
    """At most MOST pieces, the most pressing first, and at the end how to use the model.

    Args:
        data: the usable rows.
        failed: rows that are not ok.
        held: the held-out rows; None without a model.
    """
    found = [*_sick(around), *_due(around), *_failed(len(data), failed, around)]
    if held is None:
        text = "There is no model yet. It needs samples with status ok."
        found.append(Advice(text=text, command=around.command("train")))
    else:
        found += [*_newer(held, around), *_weak_kinds(data, held), *_extrapolated(held)]
        found += _narrow(held)
    found += _unmetered(data)
    return [*found[: MOST - 1], _use_it(held, around, has_advice=bool(found))]


def _sick(around: Around) -> list[Advice]:
    found: list[Advice] = []
    for board, reason in around.sick.items():
        text = f"Board {board} is not well: {reason}. Check it again once it is mended."
        found.append(Advice(text=text, command=around.command("health")))
    return found


def _due(around: Around) -> list[Advice]:
    if not around.due and not around.second_due:
        return []
    parts = [f"{around.due:,} cells of the plan have no answer yet"] if around.due else []
    if around.second_due:
        parts.append(f"{around.second_due:,} wait for a second board")
    text = f"{', and '.join(parts)}. The same command again measures only these."
    return [Advice(text=text, command=around.command("run PLAN.toml"))]


def _failed(usable: int, failed: int, around: Around) -> list[Advice]:
    if failed <= MANY_FAILED * (usable + failed):
        return []
    share = 100 * failed / (usable + failed)
    text = f"{share:.0f} % of the rows failed. See which status they have."
    return [Advice(text=text, command=around.command("status"))]


def _newer(held: HeldOutRows, around: Around) -> list[Advice]:
    later = int(held.measured_later.sum())
    if not later:
        return []
    text = f"{later:,} rows of new shapes were measured after the model was made. Learn from them."
    return [Advice(text=text, command=around.command("train"))]


def _weak_kinds(data: TrainingSet, held: HeldOutRows) -> list[Advice]:
    """The kind of kernel with the largest median error, where it is far above that of all."""
    errors = held.errors("runtime_us")
    of_all = ErrorSummary.of(errors)
    kinds = held.data.keys("family", "dtype", "device")
    worst: tuple[float, tuple[str, ...], int] | None = None
    for kind in sorted(set(kinds)):
        members = np.array([one == kind for one in kinds], dtype=bool)
        error = ErrorSummary.of(errors[members])
        if error and error.rows >= MIN_ROWS and (worst is None or error.median > worst[0]):
            worst = (error.median, kind, error.rows)
    if of_all is None or worst is None or worst[0] < WORSE * of_all.median:
        return []
    median, (family, dtype, device), rows = worst
    measured = data.keys("family", "dtype", "device").count((family, dtype, device))
    text = (
        f"{family} in {dtype} on {device} has the largest error of runtime: {median:.1f} % at the "
        f"median of {rows:,} held-out rows, where all have {of_all.median:.1f} %. Only "
        f"{measured:,} of {len(data):,} rows are of this kind. Give it a sweep in the plan, with "
        "new shapes:"
    )
    return [Advice(text=text, command=f'[[sweep]]\nfamily = "{family}"\ndtypes = ["{dtype}"]')]


def _extrapolated(held: HeldOutRows) -> list[Advice]:
    flagged = flagged_rows(held)
    if not len(flagged) or flagged.mean() < MIN_FLAGGED:
        return []
    m, n, k = (held.data.column(name)[flagged] for name in ("m", "n", "k"))
    text = (
        f"{flagged.sum():,} of {len(flagged):,} held-out rows lie outside the training range "
        f"(m up to {m.max():,}, n up to {n.max():,}, k up to {k.max():,}). Don't trust answers "
        "there before the plan measures shapes of that kind."
    )
    return [Advice(text=text)]


def _narrow(held: HeldOutRows) -> list[Advice]:
    one = interval_coverage(held).get("runtime_us")
    if one is None or one.rows < MIN_ROWS or one.within >= LOW_COVERAGE:
        return []
    text = (
        f"Only {one.within:.0f} % of {one.rows:,} held-out runtimes lie within the 90 % intervals: "
        "take an interval as too narrow until a model was trained on more shapes."
    )
    return [Advice(text=text)]


def _unmetered(data: TrainingSet) -> list[Advice]:
    if not len(data) or not np.isnan(data.measured["power_w"]).all():
        return []
    if "cuda" not in data.column("device_kind"):
        return []
    text = "No power was measured, so energy is not known. Meter a share of the cells in the plan:"
    return [Advice(text=text, command="power_share = 0.3")]


def _use_it(held: HeldOutRows | None, around: Around, *, has_advice: bool) -> Advice:
    if held is None:
        text = "Until then, the model that comes with gemmcast answers:"
        return Advice(text=text, command=PREDICT)
    text = "Use the model:"
    if not has_advice:
        text = f"Nothing is due, and no kind of kernel stands out. {text}"
    model = f" --model {quote(around.workspace)}/node" if around.workspace else ""
    return Advice(text=text, command=f"{PREDICT}{model}")
