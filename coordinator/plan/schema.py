"""A plan: what to measure, how, and when to train. Written in TOML, validated by pydantic.

Every table refuses unknown keys, and every error names the key, the value and the way out. The
docstring under a field is its entry in docs/plan.md. Does not know which cells a plan comes to
(coordinator/plan/cells.py).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from coordinator.plan.budget import RULE, Budget
from coordinator.plan.device_types import check_type, closest
from coordinator.plan.politeness import Politeness
from coordinator.plan.renames import current_plan
from coordinator.plan.sweep import PlanTable, Seed, Shapes, Sweep
from costmodel.settings import TrainSettings
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.draw import is_drawn
from gemmcast.errors import InputError
from gemmcast.procedure import Procedure

__all__ = [
    "Devices",
    "Measure",
    "Plan",
    "Politeness",
    "Recorded",
    "Shapes",
    "Sweep",
    "Train",
    "parse_plan",
    "read_plan",
]

PROCEDURE = Procedure()
TRAIN_SETTINGS = TrainSettings()
PAGE = "docs/plan.md"
SHIPPED, NO_BASE = "shipped", "none"
"""What `train.base` may be besides a list of files."""


class Recorded(NamedTuple):
    """What an agent of kind `replay` answers from."""

    dataset: str
    device_name: str | None


class Devices(PlanTable):
    """Which devices measure."""

    kind: Literal["auto", "cuda", "cpu", "replay"] = "auto"
    """`"cuda"`: GPUs. `"cpu"`: CPUs. `"auto"`: the GPUs of every node that has some, else its CPU.
    `"replay"`: a recorded dataset answers."""
    dataset: str | tuple[str, ...] | None = None
    """replay only, and required there: a Parquet file of samples, beneath the plan's folder or the
    current directory; a list of files for a fleet of several types."""
    device_name: str | None = None
    """replay only: which device, if the dataset holds several; its name or words of it, such as
    `"h100-sxm"`."""
    agents: Annotated[int, Field(ge=1, le=64)] = 1
    """replay only: how many agents, 1 to 64, share each dataset."""
    labels: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """Table: label of Ray's nodes to the value, or a list of values, of which a node must have one:
    `"ray.io/accelerator-type" = "H100"`, or a label of yours (`ray start --labels`). `"!VALUE"`: a
    node must not have that. Only nodes that fit all labels take part; without the table all do."""
    replicate: Literal["per_type", "per_gpu"] = "per_type"
    """`"per_type"`: each cell once per type of device, so that equal GPUs divide the work.
    `"per_gpu"`: each cell once on every single GPU, to compare them."""

    second_board: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Share of the cells, 0 to 1, that are measured on a second device of the same type too, where
    there is one; 0: none. The same cells in every run. Not with `"per_gpu"`, where every device
    measures all, nor with `"replay"`."""

    @model_validator(mode="after")
    def _dataset_for_replay(self) -> Self:
        if (self.kind == "replay") != bool(self.datasets()):
            raise ValueError('kind = "replay" and dataset = "FILE.parquet" go together')
        return self

    def recordings(self) -> tuple[Recorded, ...]:
        """What each agent of a replay answers from."""
        datasets = self.datasets()
        return tuple(
            Recorded(one, self.device_name) for one in datasets for _ in range(self.agents)
        )

    def datasets(self) -> tuple[str, ...]:
        """The files of a replay; none of other kinds."""
        if self.dataset is None:
            return ()
        return (self.dataset,) if isinstance(self.dataset, str) else self.dataset

    def key_of(self, device: Device) -> str:
        """What the cells of a device carry as `device_key`: its UUID or the name of its type."""
        return device.uuid if self.replicate == "per_gpu" else device.name

    def has_second_board(self, cell: Cell) -> bool:
        """Whether two devices of a type measure the cell."""
        if self.kind == "replay" or self.replicate == "per_gpu":
            return False
        return is_drawn(f"second board {cell.cell_id}", self.second_board)


class Measure(PlanTable):
    """How cells are measured."""

    cache: Literal["cold", "warm"] = "cold"
    """`"cold"`: operand sets rotate beyond three times the last-level cache. `"warm"`: one set."""
    target_rse: Annotated[float, Field(gt=0, lt=1)] = PROCEDURE.target_rse
    """Launches repeat until the relative standard error of the median runtime is below this, 0
    to 1."""
    burst_s: Annotated[float, Field(gt=0, le=60)] = PROCEDURE.burst_s
    """Launches also stop after this many seconds, up to 60."""
    min_burst_s: Annotated[float, Field(ge=0, le=60)] = PROCEDURE.min_burst_s
    """Launches never stop before this many seconds of GPU time, up to 60: the host prepares the
    next cell meanwhile, so they cost nothing."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = PROCEDURE.timeout_s
    """A cell that runs longer than this many seconds, up to 3600, is killed and becomes a row
    `timeout`. Time in a queue does not count."""
    settle_s: Annotated[float, Field(ge=0, le=60)] = PROCEDURE.settle_s
    """Seconds of load before a power window opens, up to 60."""
    power_steps: Annotated[int, Field(ge=2, le=100)] = PROCEDURE.power_steps
    """Steps of the energy counter in a power window, 2 to 100; a step is 100 ms on recent GPUs.
    At the power cap the window is longer."""
    budget: int | float | str | None = None
    """How much of the plan is measured, for each type of device: a number of cells (`500`), a share
    of them (`0.1`), or a time of one device (`"90s"`, `"10m"`, `"2h"`, by the estimates of `plan`).
    Cells that have an answer count. The cells that say most of the others are chosen. Without it
    every cell is measured."""
    budgets: dict[str, int | float | str] = Field(default_factory=dict)
    """Table: type of device to its budget, in place of `budget`: `h100 = 2000`. A type is a short
    name, such as `h100` (every H100) or `h100-pcie`, or a pattern for whole names, such as
    `"*A100*"`. Of several that fit, the one with the most words counts. Types that none fits have
    `budget`."""
    target_interval: Annotated[float, Field(gt=0, lt=1)] | None = None
    """With `budget`: cells are not measured of whose runtime the newest model's 90 % interval is
    within this of the value, `0.05` is 5 %. A run ends when no others are left."""

    @field_validator("budget", mode="before")
    @classmethod
    def _is_budget(cls, value: object) -> object:
        return value if value is None else _checked_budget(value)

    @field_validator("budgets", mode="before")
    @classmethod
    def _are_budgets(cls, values: object) -> object:
        if isinstance(values, dict):
            for name, value in values.items():
                check_type(name)
                _checked_budget(value)
        return values

    @model_validator(mode="after")
    def _target_has_budget(self) -> Self:
        if self.target_interval is not None and self.budget is None and not self.budgets:
            raise ValueError("target_interval ends a budget earlier: give budget too")
        return self

    def budget_of(self, device: Device) -> int | float | str | None:
        """That of a device's type; None: all of its cells are measured."""
        name = closest(self.budgets, device.name)
        return self.budget if name is None else self.budgets[name]

    def procedure(self) -> Procedure:
        """The same bounds as a value, for agents."""
        others = {"cache", "budget", "budgets", "target_interval"}
        return Procedure(**self.model_dump(exclude=others))


class Train(PlanTable):
    """When and on what models are trained."""

    every: Annotated[int, Field(ge=1)] = 500
    """A training starts after this many new rows with status ok, while measuring continues."""
    min_rows: Annotated[int, Field(ge=20)] = TRAIN_SETTINGS.min_rows
    """Rows with status ok before the first training, from 20."""
    holdout: Annotated[float, Field(gt=0, lt=0.9)] = TRAIN_SETTINGS.holdout
    """Share of the shapes, above 0 and below 0.9, that no version is ever trained on. Errors are
    reported on these shapes."""
    at_end: bool = True
    """Train once more when the last cell is committed."""
    base: str | tuple[str, ...] = SHIPPED
    """What models start from: `"shipped"`, the model that comes with gemmcast; a list of model
    files beneath the plan's folder or the current directory, of which the one that contains the
    type of device is taken, else the first that contains its kind; `"none"`. The base is version 1
    from the first second, and later versions correct it. A device of a kind that no base contains,
    such as a CPU, starts from nothing."""

    @model_validator(mode="before")
    @classmethod
    def _known_base(cls, values: dict[str, object]) -> dict[str, object]:
        base = values.get("base", SHIPPED)
        is_list = isinstance(base, list | tuple) and base and all(isinstance(x, str) for x in base)
        if base not in (SHIPPED, NO_BASE) and not is_list:
            raise ValueError('base must be "shipped", "none" or a list of model files')
        return values

    def settings(self) -> TrainSettings:
        """What the cost model needs of this table."""
        return TrainSettings(min_rows=self.min_rows, holdout=self.holdout)


class Plan(PlanTable):
    """A whole plan."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Letters, digits, `.`, `_` and `-`, at most 64."""
    seed: Seed = 0
    """Seed of the sampled shapes, from 0. The same seed gives the same shapes."""
    devices: Devices = Devices()
    """Table: which devices measure."""
    politeness: Politeness = Politeness()
    """Table: what is left to others."""
    measure: Measure = Measure()
    """Table: how cells are measured."""
    train: Train = Train()
    """Table: when and on what models are trained."""
    sweep: Annotated[tuple[Sweep, ...], Field(min_length=1)]
    """List of tables, at least one: what is measured."""


def read_plan(path: Path) -> Plan:
    """Read a TOML file.

    Raises:
        InputError: the file can't be read or parsed, or is no valid plan.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        way_out = "name a plan in TOML, such as examples/demo.toml"
        raise InputError("PLAN", str(path), f"can't be read ({error})", way_out) from None
    # ValueError, too: a number of thousands of digits. RecursionError: thousands of brackets.
    except (ValueError, RecursionError) as error:
        raise InputError("PLAN", str(path), f"not TOML ({error})", "correct that line") from None
    plan = parse_plan(values)
    changes: dict[str, PlanTable] = {}
    if plan.devices.dataset is not None:
        named = plan.devices.datasets()
        datasets = tuple(str(_beneath(path, "devices.dataset", one)) for one in named)
        dataset = datasets[0] if len(datasets) == 1 else datasets
        changes["devices"] = plan.devices.model_copy(update={"dataset": dataset})
    if not isinstance(plan.train.base, str):
        base = tuple(str(_beneath(path, "train.base", file)) for file in plan.train.base)
        changes["train"] = plan.train.model_copy(update={"base": base})
    return plan.model_copy(update=changes)


def parse_plan(values: Mapping[str, object]) -> Plan:
    """A plan from plain values, with keys of this version or an earlier one.

    Raises:
        InputError: the first error that validation reports.
    """
    try:
        return Plan.model_validate(current_plan(values))
    except ValidationError as error:
        raise _input_error(error.errors()[0]) from None


def _checked_budget(value: object) -> object:
    """The value itself. Raises ValueError with the rule, if it is no budget."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(RULE)
    Budget.of(value, cells=1)
    return value


def _input_error(details: ErrorDetails) -> InputError:
    field = ".".join(str(part) for part in details["loc"]) or "plan"
    if details["type"] == "extra_forbidden":
        way_out = f"remove it or correct its spelling ({PAGE})"
        return InputError(field, details["input"], "unknown key", way_out)
    if details["type"] == "missing":
        return InputError(field, None, "missing", f"add it ({PAGE})")
    rule = details["msg"].removeprefix("Value error, ")
    rule = rule[0].lower() + rule[1:]
    return InputError(field, details["input"], rule, f"correct the plan ({PAGE})")


def _beneath(plan: Path, field: str, name: str) -> Path:
    """A file that a plan names, which must lie beneath its folder or the current directory.

    Plans are passed from hand to hand, so they must not reach other files.
    """
    for root in (plan.resolve().parent, Path.cwd().resolve()):
        path = (root / name).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    if Path(name).is_absolute() or ".." in Path(name).parts:
        rule = "leads out of the plan's folder and of the project"
        raise InputError(field, name, rule, "give a path beneath one of them")
    rule = "no such file beneath the plan's folder or the project"
    raise InputError(field, name, rule, "correct the path")
