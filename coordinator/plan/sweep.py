"""The tables [[sweep]] and [sweep.shapes] of a plan: which problems, with which configurations.

    cells of a sweep = shapes x batch x dtypes x layouts x scalars x kernels x knobs

The docstring under a field is its entry in docs/plan.md. Does not know how a device measures a
cell, nor which configurations a device can run.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from coordinator.plan.device_types import check_type, fits
from gemmcast.config import FAMILIES, FIELD_KNOBS, KNOBS, TRITON_KERNELS
from gemmcast.gemm import DTYPES, LAYOUTS, MAX_DIM

Dim = Annotated[int, Field(ge=1, le=MAX_DIM)]
Dims = tuple[Dim, ...]
Knob = Annotated[int, Field(ge=0, lt=2**24)]
Knobs = Annotated[tuple[Knob, ...], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Scalars = tuple[Finite, Finite]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
KernelSet = Literal["paper", "default", "wide", "between", "usual", "short"]
TRITON_SETS = ("usual", "short")
"""Those of KernelSet that are configurations of Triton kernels."""

USUAL_KERNEL = ("",)
"""Value of `kernel` where no kernel is named."""


class PlanTable(BaseModel):
    """A table of the plan: frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Shapes(PlanTable):
    """A sample, a grid and a list; any of them together, without repeats."""

    sample: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Number of shapes drawn at random, log-uniformly between `min` and `max`."""
    min: Dim = 16
    """Smallest m, n and k of the sample."""
    max: Dim = 4096
    """Largest m, n and k of the sample."""
    multiple: Dim = 1
    """Sampled sizes are rounded to multiples of this. Tensor-core kernels need multiples of 8
    (fp16, bf16) or 16 (fp8, int8)."""
    max_gflop: Annotated[float, Field(gt=0)] | None = None
    """Sampled shapes with more arithmetic than this are drawn again."""
    seed: Seed | None = None
    """Seed of this sample. Without it the seed of the plan is used, so that sweeps share their
    shapes."""
    m: Dims = ()
    """A grid: every `m` with every `n` and every `k`."""
    n: Dims = ()
    """See `m`."""
    k: Dims = ()
    """See `m`."""
    nk: tuple[tuple[Dim, Dim], ...] = ()
    """List of `[n, k]`, the weights of layers: every `m` with every pair."""
    list: tuple[tuple[Dim, Dim, Dim], ...] = ()
    """List of `[m, n, k]`: single shapes."""

    @model_validator(mode="after")
    def _grid_is_complete(self) -> Self:
        has_pairs = bool(self.n or self.nk)
        if bool(self.n) != bool(self.k) or bool(self.m) != has_pairs:
            raise ValueError("a grid needs all of m, n and k, or m and nk")
        if not (self.sample or self.m or self.list):
            ways = "sample = NUMBER, or m, n and k, or list = [[m, n, k], ...]"
            raise ValueError(f"no shapes: give {ways}")
        return self

    @model_validator(mode="after")
    def _sample_has_room(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is above max = {self.max}")
        if not self.sample:
            return self
        smallest = -(-self.min // self.multiple) * self.multiple
        if smallest > self.max:
            bounds = f"min = {self.min} and max = {self.max}"
            raise ValueError(f"multiple = {self.multiple} leaves no size between {bounds}")
        smallest_gflop = 2e-9 * smallest**3
        if self.max_gflop is not None and smallest_gflop > self.max_gflop:
            rule = f"the smallest, min = {smallest}, has {smallest_gflop:.3g}"
            raise ValueError(f"max_gflop = {self.max_gflop:g} leaves no shape: {rule}")
        return self


class Sweep(PlanTable):
    """One kernel family over the product of shapes, batches, dtypes, layouts and knobs."""

    family: str
    """`"blas"` (CPU); `"tiled"`, `"cublas"`, `"cutlass"`, `"cublaslt"`, `"custom"`, `"triton"`
    (CUDA)."""
    devices: Names | None = None
    """List of types of devices that measure this sweep, such as `["h100", "*A100*"]` (see
    `budgets`); without it all do."""
    kernel: tuple[str, ...] = USUAL_KERNEL
    """The kernel's name within its family, or a list of names. blas: `"numpy"`, `"blocked"`.
    cublaslt: `"default"`, `"heuristic-1"`, ..., `"enumerated-0"`, ... custom: the path of a
    description (docs/custom-kernels.md). triton: `"matmul"`, `"scaled_block"`, `"grouped"`, or the
    path of a description (docs/triton.md). Empty: the family's usual kernel."""
    algorithms: Annotated[int, Field(ge=1, le=1000)] | None = None
    """cublaslt only, in place of `kernel`: this many algorithms, 1 to 1000. First the default, then
    the rest of the heuristic's list (8 in all), then enumerated ones."""
    kernel_set: KernelSet | None = None
    """cutlass, in place of `kernel`: `"paper"`, `"default"`, `"wide"` or `"between"`, the set of
    kernels (docs/cutlass.md) that was built for the architecture of the device. triton, in place of
    `knobs`: `"usual"` or `"short"`, the configurations of a kernel (docs/triton.md)."""
    dtypes: Names = ("fp32",)
    """List of `fp64`, `fp32`, `tf32`, `fp16`, `bf16`, `fp8_e4m3`, `int8`."""
    layouts: Names = ("nn",)
    """List of `nn`, `nt`, `tn`, `tt`: A, then B; `n` is row-major as written, `t` stored
    transposed."""
    batch: Annotated[Dims, Field(min_length=1)] = (1,)
    """List of batch sizes: independent products of one shape."""
    alpha: Finite = 1.0
    """C = alpha · A·B + beta · C."""
    beta: Finite = 0.0
    """See `alpha`."""
    scalars: Annotated[tuple[Scalars, ...], Field(min_length=1)] | None = None
    """List of `[alpha, beta]`, in place of `alpha` and `beta`."""
    shapes: Shapes
    """Table of problem sizes."""
    knobs: dict[str, Knobs] = Field(default_factory=dict)
    """Table of lists: knob to values. `tile` sets `tile_m`, `tile_n` and `tile_k` together. Others:
    `warp_m`, `warp_n`, `warp_k`, `stages`, `split_k`, `swizzle`, `cluster_m`, `cluster_n`,
    `algo_id`, `block_threads`, `cpu_threads`. triton: `group_m` is `swizzle`, and `warps` are 32
    `block_threads`."""
    per_shape: Annotated[int, Field(ge=1)] | None = None
    """At most this many configurations of each problem, chosen by a hash: the choice does not
    depend on the other shapes. The default of cublaslt is always among them, and of a set of Triton
    kernels the configuration that engines ship."""
    power_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the cells, 0 to 1, that are also metered for power and sustained runtime, on devices
    that have power. The same cells are metered in every run."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """How often each cell is measured, 1 to 100; each time gives a row."""

    def is_for(self, device: str) -> bool:
        """Whether a device of this name measures the sweep."""
        return self.devices is None or any(fits(name, device) for name in self.devices)

    @field_validator("family")
    @classmethod
    def _family_exists(cls, value: str) -> str:
        if value not in FAMILIES:
            raise ValueError(f"unknown kernel family; use one of {', '.join(FAMILIES)}")
        return value

    @field_validator("devices")
    @classmethod
    def _devices_are_known(cls, values: Names | None) -> Names | None:
        for value in values or ():
            check_type(value)
        return values

    @field_validator("kernel", mode="before")
    @classmethod
    def _kernel_as_list(cls, value: object) -> object:
        if value == []:
            raise ValueError("no kernel: leave the key out, or name some")
        return (value,) if isinstance(value, str) else value

    @field_validator("dtypes", "layouts")
    @classmethod
    def _names_exist(cls, values: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = tuple(DTYPES) if info.field_name == "dtypes" else LAYOUTS
        noun = str(info.field_name).removesuffix("s")
        for value in values:
            if value not in known:
                raise ValueError(f"unknown {noun} {value!r}; use one of {', '.join(known)}")
        return values

    @field_validator("knobs")
    @classmethod
    def _knobs_exist(cls, values: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        known = ("tile", *KNOBS, *FIELD_KNOBS)
        for name in values:
            if name not in known:
                raise ValueError(f"unknown knob {name!r}; use one of {', '.join(known)}")
        for word, (knob, _) in FIELD_KNOBS.items():
            if word in values and knob in values:
                raise ValueError(f"{word} and {knob} are one knob: give one of them")
        return values

    @model_validator(mode="after")
    def _kernels_are_named_once(self) -> Self:
        if self.algorithms is not None:
            self._names_kernels_itself("algorithms", family="cublaslt")
        if self.kernel_set is not None:
            self._has_the_set(self.kernel_set)
        return self

    def _has_the_set(self, kernel_set: str) -> None:
        if kernel_set in TRITON_SETS:
            self._is_of_our_triton_kernels()
        else:
            self._names_kernels_itself("kernel_set", family="cutlass")
        others = ", ".join(sorted(set(self.knobs) - {"split_k"}))
        if others:
            rule = "the kernels of a set differ in all knobs but split_k"
            raise ValueError(f"{rule}: leave {others} out of knobs")

    @model_validator(mode="after")
    def _scalars_are_given_once(self) -> Self:
        if self.scalars is not None and (self.alpha, self.beta) != (1.0, 0.0):
            raise ValueError("scalars replaces alpha and beta: give one or the other")
        return self

    def _is_of_our_triton_kernels(self) -> None:
        if self.family != "triton":
            names = " and ".join(TRITON_SETS)
            raise ValueError(f"the sets {names} are for family triton, not {self.family}")
        ours = ("", *TRITON_KERNELS)
        for kernel in self.kernel:
            if kernel not in ours:
                names = ", ".join(TRITON_KERNELS)
                raise ValueError(f"a set is of {names}: give knobs in place of kernel_set")

    def _names_kernels_itself(self, key: str, family: str) -> None:
        if self.family != family:
            raise ValueError(f"{key} is for family {family}, not {self.family}")
        if self.kernel != USUAL_KERNEL:
            raise ValueError(f"{key} names the kernels itself: leave kernel out")
