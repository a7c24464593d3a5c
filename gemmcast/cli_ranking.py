"""`gemmcast rank | pick`: for one GEMM or a list, of named configurations or of candidates.

gemmcast pick 16 4096 4096 --dtype bf16 --layout nt --device h100
gemmcast pick --gemms layers.csv --device h100 --families triton --objective energy
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from gemmcast.carbon import Interval, Rates, energy_of, energy_of_list
from gemmcast.cli_inputs import configs_of, device_of, gemm_of, open_model, rates_of
from gemmcast.cli_text import rounded, saved, show
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gain import Gain
from gemmcast.gemm_list import ListedGemm, read_gemms
from gemmcast.list_pick import (
    ListedChoice,
    ListedRanking,
    ListPick,
    Saving,
    pick_list,
    rank_list,
)
from gemmcast.objective import Objective
from gemmcast.prediction import Prediction
from gemmcast.ranking import Choice, RankedConfig

TOP_CANDIDATES: Final = 8
"""Of a ranking of candidates, where --top does not say how many."""

Shown = tuple[dict[str, Any], str]


def rank(args: argparse.Namespace) -> Shown:
    """The configurations of one GEMM, or of each of a list, in the order of their cost."""
    configs = configs_of(args)
    top = TOP_CANDIDATES if configs is None and args.top is None else args.top
    options = {"cache": args.cache, "families": args.families, "top": top}
    with open_model(args.model) as predictor:
        on = predictor.device(device_of(args.device))
        head = {"device": on.name, "objective": args.objective}
        if args.gemms is not None:
            gemms = _gemms(args)
            rankings = rank_list(predictor, gemms, configs, args.objective, on, **options)
            text = "\n".join(_listed_ranking(one, on, args.objective) for one in rankings)
            return {**head, "gemms": [asdict(one) for one in rankings]}, text
        gemm = gemm_of(args)
        ranking = predictor.rank(gemm, configs, args.objective, on, **options)
    values = {"gemm": asdict(gemm), **head, "ranking": [asdict(one) for one in ranking]}
    return values, _ranking_text(str(gemm), ranking, on, args.objective)


def pick(args: argparse.Namespace) -> Shown:
    """The configuration to take, of one GEMM or of each of a list."""
    configs = configs_of(args)
    default = None if args.default is None else KernelConfig.parse(args.default)
    options = {"cache": args.cache, "families": args.families, "bold": args.bold}
    rates = rates_of(args)
    with open_model(args.model) as predictor:
        on = predictor.device(device_of(args.device))
        if args.gemms is not None:
            gemms = _gemms(args)
            picked = pick_list(
                predictor, gemms, configs, args.objective, on, default=default, **options
            )
            values = {**_list_values(picked, on, args), **rates.values(_energy(picked))}
            lines = [_list_text(picked, on, args.objective), *_bill(picked, rates)]
            return values, "\n".join(lines)
        gemm = gemm_of(args)
        choice = predictor.pick(gemm, configs, args.objective, on, default=default, **options)
    values = {
        "gemm": asdict(gemm),
        "device": on.name,
        "objective": args.objective,
        **asdict(choice),
        **rates.values(energy_of(choice.prediction)),
    }
    first = f"{gemm} on {on.name}, lowest {args.objective}:  {choice.config}"
    gain = gain_lines(choice, args.objective)
    bill = rates.lines(energy_of(choice.prediction), "launches")
    lines = [first, *_ties(choice), show(choice.prediction), *gain, *bill]
    return values, "\n".join(lines)


def _energy(picked: ListPick) -> Interval | None:
    """Of the GEMMs with a choice, as chosen."""
    chosen = [(one.listed.weight, one.choice.prediction) for one in picked.choices if one.choice]
    return energy_of_list(chosen)


def _bill(picked: ListPick, rates: Rates) -> Iterator[str]:
    yield from rates.lines(_energy(picked), "lists")
    # Where every GEMM has a default: what the list costs without tuning.
    defaults: list[tuple[float, Prediction]] = []
    for one in picked.choices:
        if one.choice is not None and one.choice.default is not None:
            defaults.append((one.listed.weight, one.choice.default.prediction))
    if len(defaults) == sum(one.choice is not None for one in picked.choices):
        yield from rates.lines(energy_of_list(defaults), "lists with the defaults")


def _gemms(args: argparse.Namespace) -> list[ListedGemm]:
    return read_gemms(args.gemms, dtype=args.dtype, layout=args.layout)


def _listed_ranking(one: ListedRanking, device: Device, objective: str) -> str:
    if one.reason:
        return f"{one.listed} on {device.name}\n     no ranking: {one.reason}"
    return _ranking_text(str(one.listed), one.ranking, device, objective)


def _ranking_text(
    gemm: str, ranking: Sequence[RankedConfig], device: Device, objective: str
) -> str:
    lines = [f"{gemm} on {device.name}, lowest {objective} first:"]
    for place, ranked in enumerate(ranking, 1):
        lines += [f"{place:3}. {ranked.config}", *_ties(ranked), show(ranked.prediction)]
    return "\n".join(lines)


def _ties(ranked: RankedConfig) -> Iterator[str]:
    """One line per configuration that the model cannot tell from this one."""
    for other in ranked.tied:
        yield f"     the model cannot tell it from {other}"


def gain_lines(choice: Choice, objective: str) -> Iterator[str]:
    """What the choice gains over the default, or what might gain something."""
    if choice.default is None:
        return
    if not choice.keeps_default:
        draws = _too_much(choice.default, objective)
        yield f"     gain {_times(choice.gain)} over the default {choice.default.config}{draws}"
        return
    yield f"     the default, of {choice.possible} configurations"
    if choice.best != choice.config:
        gain = f"{_times(choice.best_gain)}{_beyond(choice)}"
        yield f"     not surely better: {choice.best}, {gain} (--bold takes it)"


def _beyond(choice: Choice) -> str:
    """Why a gain is refused whose interval is above 1: one of the two is extrapolating."""
    if choice.default is None or choice.best_gain.low <= 1:
        return ""
    which = "the default " if choice.default.prediction.extrapolating else ""
    return f", {which}outside the training range"


def _too_much(default: RankedConfig, objective: str) -> str:
    power_w = default.prediction.power_w
    if power_w is None or power_w <= Objective.parse(objective).most_watts:
        return ""
    return f", which draws {power_w:.0f} W"


def _times(gain: Gain) -> str:
    ratio, low, high = rounded(gain.ratio, gain.low, gain.high)
    return f"{ratio} times ({low} to {high})"


def _list_text(picked: ListPick, device: Device, objective: str) -> str:
    lines = [f"{len(picked.choices)} GEMMs on {device.name}, lowest {objective}:"]
    for one in picked.choices:
        lines += _listed_lines(one, objective)
    refused = sum(one.choice is None for one in picked.choices)
    if refused:
        lines.append(f"{refused} without a choice are in no sum")
    for name, saving, unit in (
        ("time", picked.time_us, "us"),
        ("energy", picked.energy_mj, "mJ"),
    ):
        if saving is not None:
            lines.append(f"{name} of the list, weighted: {_saving(saving, unit)}")
    return "\n".join(lines)


def _listed_lines(one: ListedChoice, objective: str) -> Iterator[str]:
    weight = "" if one.listed.weight == 1 else f", weight {one.listed.weight:g}"
    yield f"{one.listed}{weight}"
    choice = one.choice
    if choice is None:
        yield f"     no choice: {one.reason}"
        return
    yield f"     {choice.config}"
    yield from gain_lines(choice, objective)


def _saving(saving: Saving, unit: str) -> str:
    change = f"{saving.default:.4g} -> {saving.choice:.4g} {unit}"
    return f"{change}, {saved(saving.share)}"


def _list_values(picked: ListPick, device: Device, args: argparse.Namespace) -> dict[str, Any]:
    gemms: list[dict[str, Any]] = []
    for one in picked.choices:
        about = {"listed": asdict(one.listed), "reason": one.reason}
        gemms.append({**about, **(asdict(one.choice) if one.choice else {})})
    return {
        "device": device.name,
        "objective": args.objective,
        "gemms": gemms,
        "time_us": _saving_values(picked.time_us),
        "energy_mj": _saving_values(picked.energy_mj),
    }


def _saving_values(saving: Saving | None) -> dict[str, float] | None:
    return None if saving is None else {**asdict(saving), "share": saving.share}
