"""What a tuning came to: a table for each type of device, and the note about it.

As JSON for programs, as lines for people, as Markdown beside the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from coordinator.tune.outcome import Outcome, Saving, energy_mj, mean_gain, saving, time_us
from coordinator.tune.problem import Problem
from gemmcast.carbon import NO_RATES, Rates
from gemmcast.cli_text import saved
from gemmcast.tuned_entry import TunedEntry
from gemmcast.tuned_table import TunedTable

SHOWN_REASON = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeResult:
    """One type of device."""

    table: TunedTable
    outcomes: Sequence[Outcome]
    """In the order of the list."""
    refused: Sequence[Problem]
    """Lines that no kernel computes there; they are not in the table."""
    path: Path
    """Where the table is."""
    spent_s: float
    """Time that its boards have measured; 0 for a recording. [s]"""

    @property
    def kept(self) -> int:
        """Entries that keep the default."""
        return sum(outcome.entry.keeps_default for outcome in self.outcomes)

    @property
    def uncertain(self) -> int:
        """Entries that were cut short."""
        return sum(not outcome.is_certain for outcome in self.outcomes)

    def energy(self) -> tuple[Saving | None, bool]:
        """Energy of the whole list, and whether it was measured; else it is predicted."""
        measured = saving(self.outcomes, energy_mj)
        if measured is not None:
            return measured, True
        return saving(self.outcomes, energy_mj, predicted=True), False

    def to_json(self, rates: Rates = NO_RATES) -> dict[str, object]:
        """Plain values."""
        energy, is_measured = self.energy()
        time = saving(self._measured(), time_us)
        return {
            "device": self.table.key.device,
            "table": str(self.path),
            "gemms": len(self.outcomes) + len(self.refused),
            "kept_default": self.kept,
            "uncertain": self.uncertain,
            "mean_gain": mean_gain(self.outcomes),
            "time_us": None if time is None else asdict(time),
            "energy_mj": None if energy is None else asdict(energy),
            "energy_is_measured": is_measured,
            **rates.change_values(_change(energy)),
            "spent_s": self.spent_s,
            "entries": [_entry_json(outcome) for outcome in self.outcomes],
            "refused": {str(one.listed): one.reason for one in self.refused},
        }

    def lines(self, rates: Rates = NO_RATES) -> Iterator[str]:
        """For people: what the list gains, and what is missing."""
        key = self.table.key
        gain = mean_gain(self.outcomes)
        yield f"{key.device}: {len(self.outcomes)} GEMMs, {self.kept} keep the default"
        yield f"  gain {gain:.3f} (geometric mean), in {key.objective}"
        time = saving(self._measured(), time_us)
        if time is not None:
            shown = f"{time.default:,.0f} -> {time.tuned:,.0f} us"
            yield f"  time of the list, weighted: {shown}, {saved(time.share)}"
        energy, is_measured = self.energy()
        if energy is not None:
            how = "" if is_measured else ", as predicted"
            shown = f"{energy.default:,.1f} -> {energy.tuned:,.1f} mJ"
            yield f"  energy, weighted: {shown}, {saved(energy.share)}{how}"
        for line in rates.change_lines(_change(energy), "lists"):
            yield f"  {line}"
        if self.uncertain:
            yield f"  {self.uncertain} GEMMs were cut short: start it again to go on"
        for problem in self.refused:
            yield f"  no kernel for {problem.listed}: {problem.reason}"
        if self.spent_s:
            yield f"  measured for {self.spent_s:.0f} s"
        yield f"  table {self.path}"

    def _measured(self) -> list[Outcome]:
        """Those of which default and winner were measured."""
        return [one for one in self.outcomes if time_us(one.entry.default_measured) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """A whole tuning."""

    types: Sequence[TypeResult]
    complete: bool
    """False: it was stopped."""
    measurements: int
    """Cells that were measured, now or before."""
    saved_measurements: int
    """Readings of rivals that another type's readings made needless."""

    def to_json(self, rates: Rates = NO_RATES) -> dict[str, object]:
        """Plain values."""
        return {
            "complete": self.complete,
            "measurements": self.measurements,
            "saved_measurements": self.saved_measurements,
            "devices": [one.to_json(rates) for one in self.types],
        }

    def lines(self, rates: Rates = NO_RATES) -> Iterator[str]:
        """For people."""
        for one in self.types:
            yield from one.lines(rates)
        yield f"{self.measurements} measurements{self._saved_text()}"
        if not self.complete:
            yield "stopped: what was certain is in the table; start it again to go on"

    def _saved_text(self) -> str:
        if not self.saved_measurements:
            return ""
        what = "at least, since types of device rank for each other"
        return f"; {self.saved_measurements} fewer {what}"


def gain_text(entry: TunedEntry) -> str:
    """`1.831 (1.822 to 1.840)`; of a default that stays a dash."""
    if entry.gain == entry.gain_low == entry.gain_high:
        return "-"
    return f"{entry.gain:.3f} ({entry.gain_low:.3f} to {entry.gain_high:.3f})"


def why_left_out(outcome: Outcome) -> str:
    """Counts by reason: `5 behind, 1 incorrect: the result differs ...`."""
    counts = Counter(map(_kind_of, outcome.left_out.values()))
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def note(result: TypeResult) -> str:
    """The Markdown file beside a table."""
    lines = [f"# Tuned for {result.table.key.device}", "", *result.lines(), ""]
    for outcome in result.outcomes:
        entry = outcome.entry
        lines += [
            f"## {entry.gemm}{f' ({entry.name})' if entry.name else ''}",
            "",
            f"- default `{entry.default}`",
            f"- winner `{entry.winner}`",
            f"- gain {gain_text(entry)}: {entry.reason}",
            f"- measured {entry.measured} of {entry.possible} possible",
        ]
        lines += [f"- left out `{config}`: {why}" for config, why in outcome.left_out.items()]
        lines.append("")
    return "\n".join(lines)


def _change(energy: Saving | None) -> tuple[float, float] | None:
    """Energy of the list with the defaults and with the winners. [mJ]"""
    return None if energy is None else (energy.default, energy.tuned)


def _kind_of(reason: str) -> str:
    """A reason without its numbers, so that equal ones can be counted."""
    for kind in ("behind", "no better", "not among the best"):
        if kind in reason:
            return kind
    return reason[:SHOWN_REASON]


def _entry_json(outcome: Outcome) -> dict[str, object]:
    entry = outcome.entry
    return {
        "gemm": asdict(entry.gemm),
        "name": entry.name,
        "weight": outcome.weight,
        "default": str(entry.default),
        "winner": str(entry.winner),
        "gain": entry.gain,
        "gain_low": entry.gain_low,
        "gain_high": entry.gain_high,
        "verified": entry.verified,
        "certain": outcome.is_certain,
        "measured": entry.measured,
        "possible": entry.possible,
        "reason": entry.reason,
        "left_out": outcome.left_out,
        "default_measured": asdict(entry.default_measured),
        "winner_measured": asdict(entry.winner_measured),
    }
