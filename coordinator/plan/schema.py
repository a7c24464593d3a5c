"""A plan: what to measure, how, and when to train. Written in TOML, checked by pydantic, printed resolved.

Every model refuses unknown keys, and every error names the key, the value and the way out.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gemmcast.config import FAMILIES, KNOBS
from gemmcast.errors import InputError
from gemmcast.gemm import DTYPES, LAYOUTS, MAX_DIM
from gemmcast.procedure import Procedure

Dim = Annotated[int, Field(ge=1, le=MAX_DIM)]
Knob = Annotated[int, Field(ge=0, lt=2**24)]
Seed = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
DEFAULT = Procedure()
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Table(BaseModel):
    """A table of the plan: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Devices(Table):
    """Which devices measure."""

    kind: Literal["auto", "cuda", "cpu", "replay"] = "auto"
    # auto: the GPUs of every node that has some, else its CPU
    dataset: str | None = None
    # replay: a Parquet file beneath the plan's folder or the project
    device_name: str | None = None
    # replay: which of the dataset's devices
    agents: Annotated[int, Field(ge=1, le=64)] = 1
    # replay: how many agents share the dataset
    spread: Literal["share", "each"] = "share"
    # share: a cell once per type of device; each: once on every GPU

    @model_validator(mode="after")
    def _dataset_for_replay(self) -> Self:
        if (self.kind == "replay") != (self.dataset is not None):
            raise ValueError('kind = "replay" and dataset = "FILE.parquet" go together')
        return self


class Measure(Table):
    """How cells are measured; see gemmcast/procedure.py for the meaning of the bounds."""

    cache: Literal["cold", "warm"] = "cold"
    target_rse: Annotated[float, Field(gt=0, lt=1)] = DEFAULT.target_rse
    burst_s: Annotated[float, Field(gt=0, le=60)] = DEFAULT.burst_s
    min_burst_s: Annotated[float, Field(ge=0, le=60)] = DEFAULT.min_burst_s
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = DEFAULT.timeout_s
    settle_s: Annotated[float, Field(ge=0, le=60)] = DEFAULT.settle_s
    power_steps: Annotated[int, Field(ge=2, le=100)] = DEFAULT.power_steps

    def procedure(self) -> Procedure:
        return Procedure(**self.model_dump(exclude={"cache"}))


class Shapes(Table):
    """Problem sizes: a log-uniform sample, a grid, or a list; any of them together."""

    sample: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    # shapes drawn log-uniformly between min and max
    min: Dim = 16
    max: Dim = 4096
    multiple: Dim = 1
    # sampled sizes are rounded to multiples of it: tensor-core kernels take multiples of 8 or 16 only
    max_gflop: Annotated[float, Field(gt=0)] | None = None
    # sampled shapes above it are drawn again
    seed: Seed | None = None
    # of the sample; the plan's by default, so that sweeps share their shapes
    m: tuple[Dim, ...] = ()
    n: tuple[Dim, ...] = ()
    k: tuple[Dim, ...] = ()
    # a grid: every m with every n and k
    nk: tuple[tuple[Dim, Dim], ...] = ()
    # weights of layers: every m with every pair of n and k
    list: tuple[tuple[Dim, Dim, Dim], ...] = ()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if bool(self.n) != bool(self.k) or bool(self.m) != bool(self.n or self.nk):
            raise ValueError("a grid needs all of m, n and k, or m and nk")
        if not (self.sample or self.m or self.list):
            raise ValueError("no shapes: give sample = NUMBER, or m, n and k, or list = [[m, n, k], ...]")
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is above max = {self.max}")
        if self.sample and self.max // self.multiple * self.multiple < self.min:
            raise ValueError(f"multiple = {self.multiple} leaves no size between min = {self.min} and max = {self.max}")
        smallest = -(-self.min // self.multiple) * self.multiple
        if self.sample and self.max_gflop is not None and 2e-9 * smallest**3 > self.max_gflop:
            raise ValueError(f"max_gflop = {self.max_gflop:g} leaves no shape: the smallest, min = {smallest}, has {2e-9 * smallest**3:.3g}")
        return self


class Sweep(Table):
    """One family over shapes, dtypes and configurations: their product."""

    family: str
    kernel: tuple[str, ...] = ("",)
    # one name or several, each a configuration; empty: the family's usual one
    candidates: Annotated[int, Field(ge=1, le=1000)] | None = None
    # cublaslt: its default, the rest of its heuristic's list, and others, so many in all
    kernel_set: Literal["paper", "default", "wide"] | None = None
    # cutlass: the kernels of a set that was built for the device's architecture
    dtypes: Annotated[tuple[str, ...], Field(min_length=1)] = ("fp32",)
    layouts: Annotated[tuple[str, ...], Field(min_length=1)] = ("nn",)
    batch: Annotated[tuple[Dim, ...], Field(min_length=1)] = (1,)
    alpha: Finite = 1.0
    beta: Finite = 0.0
    scalars: Annotated[tuple[tuple[Finite, Finite], ...], Field(min_length=1)] | None = None
    # pairs of alpha and beta, in place of the two
    shapes: Shapes
    knobs: dict[str, Annotated[tuple[Knob, ...], Field(min_length=1)]] = Field(default_factory=dict)
    # knob -> values; `tile` sets tile_m, tile_n and tile_k together
    per_shape: Annotated[int, Field(ge=1)] | None = None
    # only so many configurations of each problem, drawn by a hash; cublaslt's default is always among them
    power_share: Share = 0.0
    # of the cells that are metered for power too
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    # how often every cell is measured

    @field_validator("family")
    @classmethod
    def _family(cls, value: str) -> str:
        if value not in FAMILIES:
            raise ValueError(f"unknown kernel family; use one of {', '.join(FAMILIES)}")
        return value

    @field_validator("kernel", mode="before")
    @classmethod
    def _kernel(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("no kernel: leave the key out, or name some")
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_way_to_name_kernels(self) -> Self:
        named = self.kernel != ("",)
        for key, given, family in (("candidates", self.candidates is not None, "cublaslt"), ("kernel_set", self.kernel_set is not None, "cutlass")):
            if given and self.family != family:
                raise ValueError(f"{key} is for family {family}, not {self.family}")
            if given and named:
                raise ValueError(f"{key} names the kernels itself: leave kernel out")
        if self.kernel_set is not None and set(self.knobs) - {"split_k"}:
            raise ValueError(f"the kernels of a set differ in all knobs but split_k: leave {', '.join(set(self.knobs) - {'split_k'})} out of knobs")
        if self.scalars is not None and (self.alpha, self.beta) != (1.0, 0.0):
            raise ValueError("scalars takes the place of alpha and beta: give one or the other")
        return self

    @field_validator("dtypes", "layouts")
    @classmethod
    def _known(cls, values: tuple[str, ...], info: Any) -> tuple[str, ...]:
        known: Any = DTYPES if info.field_name == "dtypes" else LAYOUTS
        for value in values:
            if value not in known:
                raise ValueError(f"unknown {info.field_name.removesuffix('s')} {value!r}; use one of {', '.join(known)}")
        return values

    @field_validator("knobs")
    @classmethod
    def _knobs(cls, values: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        for name in values:
            if name not in (*KNOBS, "tile"):
                raise ValueError(f"unknown knob {name!r}; use one of tile, {', '.join(KNOBS)}")
        return values


class Train(Table):
    """When and on what models are trained."""

    every: Annotated[int, Field(ge=1)] = 500
    # new rows that start a training in the background
    min_rows: Annotated[int, Field(ge=20)] = 100
    # with status ok, before the first one
    holdout: Annotated[float, Field(gt=0, lt=0.9)] = 0.15
    # share of the shapes that no version is ever trained on
    at_end: bool = True
    # train once more when the last cell is in


class Plan(Table):
    """All of it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Seed = 0
    devices: Devices = Devices()
    measure: Measure = Measure()
    train: Train = Train()
    sweep: Annotated[tuple[Sweep, ...], Field(min_length=1)]


def read_plan(path: Path) -> Plan:
    """Raises InputError for what can't be read, parsed or accepted."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("PLAN", str(path), f"can't be read ({error})", "name a plan in TOML, such as examples/demo.toml") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError("PLAN", str(path), f"not TOML ({error})", "correct that line") from None
    plan = parse_plan(values)
    if plan.devices.dataset is None:
        return plan
    return plan.model_copy(update={"devices": plan.devices.model_copy(update={"dataset": str(_inside(path, plan.devices.dataset))})})


def parse_plan(values: dict[str, Any]) -> Plan:
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "plan"
        if first["type"] == "extra_forbidden":
            raise InputError(field, first["input"], "unknown key", "remove it or correct its spelling (docs/plan.md)") from None
        if first["type"] == "missing":
            raise InputError(field, None, "missing", "add it (docs/plan.md)") from None
        rule = first["msg"].removeprefix("Value error, ")
        raise InputError(field, first["input"], rule[0].lower() + rule[1:], "correct the plan (docs/plan.md)") from None


def _inside(plan: Path, dataset: str) -> Path:
    """A dataset must lie beneath the plan's folder or the directory we run in: plans are shipped around, and must not reach elsewhere."""
    roots = (plan.resolve().parent, Path.cwd().resolve())
    for root in roots:
        found = (root / dataset).resolve()
        if found.is_relative_to(root) and found.is_file():
            return found
    if Path(dataset).is_absolute() or ".." in Path(dataset).parts:
        raise InputError("devices.dataset", dataset, "leads out of the plan's folder and of the project", "give a path beneath one of them")
    raise InputError("devices.dataset", dataset, "no such file beneath the plan's folder or the project", "correct the path")
