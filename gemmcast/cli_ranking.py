"""`gemmcast rank | pick`: for one GEMM or a list, of named configurations or of candidates.

gemmcast pick 16 4096 4096 --dtype bf16 --layout nt --device h100
gemmcast pick --gemms layers.csv --device h100 --families triton --objective energy
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from gemmcast.cli_inputs import configs_of, device_of, gemm_of, open_model
from gemmcast.cli_text import rounded, show
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gain import Gain
from gemmcast.gemm_list import ListedGemm, read_gemms
from gemmcast.list_pick import ListedChoice, ListPick, Saving, families_of, pick_list, possible_of
from gemmcast.objective import Objective
from gemmcast.predictor import Predictor
from gemmcast.ranking import Choice, RankedConfig

TOP_CANDIDATES: Final = 8
"""Of a ranking of candidates, where --top does not say how many."""
PERCENT: Final = 100

Shown = tuple[dict[str, Any], str]


def rank(args: argparse.Namespace) -> Shown:
    """The configurations of one GEMM, or of each of a list, in the order of their cost."""
    configs = configs_of(args)
    with open_model(args.model) as predictor:
        device = predictor.device(device_of(args.device))
        rankings: list[tuple[ListedGemm, list[RankedConfig]]] = []
        for listed in _gemms(args):
            ranking = _ranking(predictor, listed, configs, device, args)
            rankings.append((listed, ranking))
    texts: list[str] = []
    values: list[dict[str, Any]] = []
    for listed, ranking in rankings:
        texts.append(_ranking_text(listed, ranking, device, args.objective))
        values.append({**_about(listed, args), "ranking": [asdict(ranked) for ranked in ranking]})
    head = {"device": device.name, "objective": args.objective}
    if args.gemms is None:
        return {**values[0], **head}, texts[0]
    return {**head, "gemms": values}, "\n".join(texts)


def pick(args: argparse.Namespace) -> Shown:
    """The configuration to take, of one GEMM or of each of a list."""
    configs = configs_of(args)
    default = None if args.default is None else KernelConfig.parse(args.default)
    options = {"cache": args.cache, "families": args.families, "bold": args.bold}
    with open_model(args.model) as predictor:
        on = predictor.device(device_of(args.device))
        if args.gemms is not None:
            gemms = _gemms(args)
            picked = pick_list(
                predictor, gemms, configs, args.objective, on, default=default, **options
            )
            return _list_values(picked, on, args), _list_text(picked, on, args.objective)
        gemm = gemm_of(args)
        choice = predictor.pick(gemm, configs, args.objective, on, default=default, **options)
    values = {
        "gemm": asdict(gemm),
        "device": on.name,
        "objective": args.objective,
        **asdict(choice),
    }
    first = f"{gemm} on {on.name}, lowest {args.objective}:  {choice.config}"
    gain = _gain_lines(choice, args.objective)
    lines = [first, *_ties(choice), show(choice.prediction), *gain]
    return values, "\n".join(lines)


def _gemms(args: argparse.Namespace) -> list[ListedGemm]:
    if args.gemms is None:
        return [ListedGemm(gemm=gemm_of(args))]
    return read_gemms(args.gemms, dtype=args.dtype, layout=args.layout)


def _ranking(
    predictor: Predictor,
    listed: ListedGemm,
    configs: Sequence[KernelConfig] | None,
    device: Device,
    args: argparse.Namespace,
) -> list[RankedConfig]:
    top, families = args.top, args.families
    if configs is None:
        top = TOP_CANDIDATES if top is None else top
        families = families_of(listed, families)
    elif args.gemms is not None:
        configs = possible_of(listed, configs, device)
    return predictor.rank(
        listed.gemm,
        configs,
        args.objective,
        device,
        cache=args.cache,
        top=top,
        families=families,
    )


def _ranking_text(
    listed: ListedGemm, ranking: Sequence[RankedConfig], device: Device, objective: str
) -> str:
    lines = [f"{listed} on {device.name}, lowest {objective} first:"]
    for place, ranked in enumerate(ranking, 1):
        lines += [f"{place:3}. {ranked.config}", *_ties(ranked), show(ranked.prediction)]
    return "\n".join(lines)


def _ties(ranked: RankedConfig) -> Iterator[str]:
    """One line per configuration that the model cannot tell from this one."""
    for other in ranked.tied:
        yield f"     the model cannot tell it from {other}"


def _gain_lines(choice: Choice, objective: str) -> Iterator[str]:
    """What the choice gains over the default, or what might gain something."""
    if choice.default is None:
        return
    if not choice.keeps_default:
        draws = _too_much(choice.default, objective)
        yield f"     gain {_times(choice.gain)} over the default {choice.default.config}{draws}"
        return
    yield f"     the default, of {choice.possible} configurations"
    if choice.best != choice.config:
        yield f"     not surely better: {choice.best}, {_times(choice.best_gain)} (--bold takes it)"


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
    yield from _gain_lines(choice, objective)


def _saving(saving: Saving, unit: str) -> str:
    change = f"{saving.default:.4g} -> {saving.choice:.4g} {unit}"
    return f"{change}, {PERCENT * saving.share:.1f} % saved"


def _list_values(picked: ListPick, device: Device, args: argparse.Namespace) -> dict[str, Any]:
    gemms: list[dict[str, Any]] = []
    for one in picked.choices:
        about = {**_about(one.listed, args), "reason": one.reason}
        gemms.append({**about, **(asdict(one.choice) if one.choice else {})})
    return {
        "device": device.name,
        "objective": args.objective,
        "gemms": gemms,
        "time_us": _saving_values(picked.time_us),
        "energy_mj": _saving_values(picked.energy_mj),
    }


def _about(listed: ListedGemm, args: argparse.Namespace) -> dict[str, Any]:
    """What a JSON object says of the problem."""
    values = asdict(listed)
    return values if args.gemms is not None else {"gemm": values["gemm"]}


def _saving_values(saving: Saving | None) -> dict[str, float] | None:
    return None if saving is None else {**asdict(saving), "share": saving.share}
