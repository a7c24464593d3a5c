"""Pick a configuration for each GEMM of a list, and say what that saves all together; or rank.

    pick_list(predictor, read_gemms("layers.csv"), device="h100", families=["triton"])
    rank_list(predictor, read_gemms("layers.csv"), device="h100", top=8)

A GEMM that no configuration can run has a reason in place of an answer, and does not stop the
others. Totals are weighted sums of predictions, of the GEMMs that have a choice and a default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemmcast import feasible
from gemmcast.candidates import named_families
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm_list import ListedGemm
from gemmcast.objective import Objective
from gemmcast.prediction import Prediction
from gemmcast.ranking import Choice, RankedConfig

if TYPE_CHECKING:
    from gemmcast.predictor import Predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedChoice:
    """What is chosen for one GEMM of a list."""

    listed: ListedGemm
    choice: Choice | None = None
    """None where nothing can run it."""
    reason: str = ""
    """Why there is no choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRanking:
    """The configurations of one GEMM of a list, cheapest first."""

    listed: ListedGemm
    ranking: tuple[RankedConfig, ...] = ()
    """Empty where nothing can run it."""
    reason: str = ""
    """Why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """A weighted sum over a list, with the defaults and with the choices."""

    default: float
    choice: float

    @property
    def share(self) -> float:
        """What is saved of the default's sum, 0.2 is a fifth."""
        return 1.0 - self.choice / self.default


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPick:
    """The choices for a list of GEMMs, in its order."""

    choices: tuple[ListedChoice, ...]
    time_us: Saving | None
    """Of runtime_us. [us] None where no GEMM has a default."""
    energy_mj: Saving | None
    """Of energy_mj. [mJ] None also where the model does not predict one of the energies."""


def pick_list(
    predictor: Predictor,
    gemms: Sequence[ListedGemm],
    configs: Sequence[KernelConfig] | None = None,
    objective: str = "time",
    device: Device | str | None = None,
    *,
    cache: str = "cold",
    families: Sequence[str] | None = None,
    default: KernelConfig | None = None,
    bold: bool = False,
) -> ListPick:
    """`Predictor.pick` for each GEMM.

    Of named configurations those that cannot run a GEMM are left out for it. A GEMM that is listed
    with a Triton kernel gets candidates of that kernel, and of no other unless families are named.

    Raises:
        InputError: no GEMM has a choice, with the first reason; or what concerns all of them.
    """
    Objective.parse(objective)
    on = predictor.device(device)
    named_families(on, families)
    choices: list[ListedChoice] = []
    for listed in gemms:
        try:
            choice = predictor.pick(
                listed.gemm,
                possible_of(listed, configs, on),
                objective,
                on,
                cache=cache,
                families=families_of(listed, families) if configs is None else families,
                default=default,
                bold=bold,
            )
        except InputError as error:
            choices.append(ListedChoice(listed=listed, reason=str(error)))
            continue
        choices.append(ListedChoice(listed=listed, choice=choice))
    if not any(one.choice for one in choices):
        raise _nothing_at_all([one.reason for one in choices])
    return ListPick(
        choices=tuple(choices),
        time_us=_saving(choices, "runtime_us"),
        energy_mj=_saving(choices, "energy_mj"),
    )


def rank_list(
    predictor: Predictor,
    gemms: Sequence[ListedGemm],
    configs: Sequence[KernelConfig] | None = None,
    objective: str = "time",
    device: Device | str | None = None,
    *,
    cache: str = "cold",
    families: Sequence[str] | None = None,
    top: int | None = None,
) -> list[ListedRanking]:
    """`Predictor.rank` for each GEMM, of what `pick_list` chooses from. Raises as it does."""
    Objective.parse(objective)
    on = predictor.device(device)
    named_families(on, families)
    rankings: list[ListedRanking] = []
    for listed in gemms:
        try:
            ranking = predictor.rank(
                listed.gemm,
                possible_of(listed, configs, on),
                objective,
                on,
                cache=cache,
                top=top,
                families=families_of(listed, families) if configs is None else families,
            )
        except InputError as error:
            rankings.append(ListedRanking(listed=listed, reason=str(error)))
            continue
        rankings.append(ListedRanking(listed=listed, ranking=tuple(ranking)))
    if not any(one.ranking for one in rankings):
        raise _nothing_at_all([one.reason for one in rankings])
    return rankings


def families_of(listed: ListedGemm, families: Sequence[str] | None) -> Sequence[str] | None:
    """The families that compute what is meant: of Triton the kernel that the list names."""
    if not listed.kernel:
        return families
    named = f"triton:{listed.kernel}"
    if families is None:
        return [named]
    return [named if family == "triton" else family for family in families]


def possible_of(
    listed: ListedGemm, configs: Sequence[KernelConfig] | None, device: Device
) -> Sequence[KernelConfig] | None:
    """Of named configurations those that can run a GEMM.

    Raises:
        InputError: none can, with the reason of the first.
    """
    if not configs:
        return configs
    reasons: list[str] = []
    possible: list[KernelConfig] = []
    for config in configs:
        reason = feasible.impossible(listed.gemm, config, device.arch)
        if reason is None:
            possible.append(config)
        else:
            reasons.append(f"{config}: {reason}")
    if not possible:
        rule = f"no configuration can run it ({reasons[0]})"
        raise InputError("gemm", str(listed.gemm), rule, "name another configuration")
    return possible


def _nothing_at_all(reasons: Sequence[str]) -> InputError:
    if not reasons:
        return InputError("gemms", [], "is empty", "name at least one GEMM")
    rule = f"no configuration for any of them; for the first: {reasons[0]}"
    return InputError("gemms", len(reasons), rule)


def _saving(choices: Sequence[ListedChoice], output: str) -> Saving | None:
    """None where one of the costs is not known, or there is no default at all."""
    of_defaults, of_choices = 0.0, 0.0
    for one in choices:
        if one.choice is None or one.choice.default is None:
            continue
        default = _cost(one.choice.default, output)
        chosen = _cost(one.choice, output)
        if default is None or chosen is None:
            return None
        of_defaults += one.listed.weight * default
        of_choices += one.listed.weight * chosen
    return Saving(default=of_defaults, choice=of_choices) if of_defaults else None


def _cost(ranked: RankedConfig, output: str) -> float | None:
    prediction: Prediction = ranked.prediction
    cost: float | None = getattr(prediction, output)
    return cost
