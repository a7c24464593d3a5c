"""`python -m coordinator tune`: the best configuration of each GEMM, on every type of device.

Reads options and prints results; the work is done elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.fleet.signals import leave_interrupted
from coordinator.options import (
    WORKSPACE,
    Address,
    AsJson,
    GramsPerKwh,
    KwhPrice,
    ModelDirectory,
    RegistryUri,
    StoreUri,
    WithoutToken,
    WorkspacePath,
)
from coordinator.tune.options import (
    DTYPE,
    TOKENS,
    TP,
    Again,
    BudgetText,
    DevicesText,
    FamilyNames,
    GemmFile,
    KernelSet,
    ModelConfig,
    ModelDType,
    ObjectiveText,
    Out,
    TensorParallel,
    Tokens,
    Top,
)
from gemmcast.carbon import Rates
from gemmcast.errors import InputError

if TYPE_CHECKING:
    from coordinator.fleet.interface import Progress, Show
    from coordinator.tune.result import TuneResult
    from costmodel.progress import Step
    from gemmcast.card import ModelCard
    from gemmcast.gemm_list import ListedGemm
    from gemmcast.tuned_entry import TunedEntry

TOP = 8


def tune(
    gemms: GemmFile = None,
    model: ModelConfig = None,
    tokens: Tokens = None,
    tp: TensorParallel = None,
    dtype: ModelDType = None,
    objective: ObjectiveText = "time",
    families: FamilyNames = None,
    kernel_set: KernelSet = None,
    top: Top = TOP,
    budget: BudgetText = None,
    devices: DevicesText = "auto",
    out: Out = None,
    again: Again = False,
    kwh_price: KwhPrice = None,
    gco2_per_kwh: GramsPerKwh = None,
    workspace: WorkspacePath = WORKSPACE,
    address: Address = None,
    without_token: WithoutToken = False,
    store: StoreUri = None,
    registry: RegistryUri = None,
    model_dir: ModelDirectory = None,
    json: AsJson = False,
) -> None:
    """Find the best kernel configuration of each GEMM of a list, by measuring a few."""
    from coordinator import terminal
    from coordinator.fleet.session import Places
    from coordinator.progress import stages
    from coordinator.tune.devices import parse_devices
    from coordinator.tune.families import parse_families
    from coordinator.tune.request import Request, parse_budget
    from coordinator.tune.session import TuneSession
    from coordinator.workspace import Workspace
    from gemmcast.objective import Objective

    rates = Rates(kwh_price=kwh_price, gco2_per_kwh=gco2_per_kwh)
    request = Request(
        gemms=listed_gemms(gemms, model, tokens, tp, dtype),
        objective=Objective.parse(objective),
        families=parse_families(families),
        kernel_set=kernel_set,
        top=top,
        budget_s=parse_budget(budget),
        devices=parse_devices(devices),
        again=again,
    )
    places = Places(store=store, registry=registry, model_dir=model_dir)
    with stages("tuning") as step:
        session = TuneSession(request, Workspace(workspace), places, TuneDisplay(step), out)
        result = session.run(address, without_token=without_token)
    values = result.to_json(rates)
    terminal.result(values, as_json=json, text=lambda: show(result, rates))
    if not result.complete:
        leave_interrupted()


def listed_gemms(
    gemms: Path | None,
    model: Path | None,
    tokens: str | None = None,
    tp: int | None = None,
    dtype: str | None = None,
) -> Sequence[ListedGemm]:
    """The list that the options name.

    Raises:
        InputError: neither of the two files is given, or both; an option that goes with the other
            one; or the file is refused.
    """
    if (gemms is None) == (model is None):
        given = "none" if gemms is None else "both"
        raise InputError("--gemms, --model", given, "give one of the two", "see --help")
    from gemmcast.gemm_list import read_gemms

    if gemms is not None:
        for name, value in {"--tokens": tokens, "--tp": tp, "--dtype": dtype}.items():
            if value is not None:
                way_out = "leave it out: each line of the list says its own m and dtype"
                raise InputError(name, str(value), "goes with --model, not with --gemms", way_out)
        return read_gemms(gemms)
    from gemmcast.language_models import gemms_of, read_config, whole_numbers

    assert model is not None
    rows = whole_numbers("--tokens", TOKENS if tokens is None else tokens)
    return gemms_of(
        read_config(model),
        tokens=rows,
        tp=TP if tp is None else tp,
        dtype=DTYPE if dtype is None else dtype,
    )


class TuneDisplay:
    """How far a round is, on the bar or in the lines of `stages`."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def show_model(self, card: ModelCard, version: str | None) -> None:
        """A tuning trains nothing."""

    @contextmanager
    def progress(self, label: str) -> Iterator[Show]:
        """Of one round."""
        from coordinator.progress import waiting_text

        def show_round(run: Progress) -> None:
            """Cells of the round; who waits for others to leave a device."""
            stage = f"{label}, {waiting_text(run.waiting)}" if run.waiting else label
            self._step(stage, run.done, run.cells)

        yield show_round


def show(result: TuneResult, rates: Rates) -> None:
    """Print a line for each GEMM on each type of device, and what the list gains."""
    from coordinator import terminal

    for one in result.types:
        terminal.show_line(one.table.key.device)
        for outcome in one.outcomes:
            terminal.show_line(f"  {entry_line(outcome.entry)}")
    for line in result.lines(rates):
        terminal.show_line(line)


def entry_line(entry: TunedEntry) -> str:
    """`64x4096x512 bf16 nt  1.83 (1.82 to 1.84)  9 of 1224  triton:...`"""
    from coordinator.tune.result import gain_text

    winner = "default" if entry.keeps_default else str(entry.winner)
    counts = f"{entry.measured} of {entry.possible}"
    return f"{entry.gemm!s:28} {gain_text(entry):>24}  {counts:>10}  {winner}"
