"""The configurations of a sweep on one device: kernels times knobs, and for each problem a
choice of them.

With `per_shape` a hash of problem and configuration orders the configurations, and the first ones
are taken, so a choice depends on nothing but the seed, the problem and the names of the
configurations. Does not know shapes, nor whether the device has the family.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict

from coordinator.plan.schema import Plan
from gemmcast import triton_sets
from gemmcast.candidate_makers import HEURISTIC_ALGORITHMS
from gemmcast.config import FIELD_KNOBS, KernelConfig
from gemmcast.cutlass import sets as cutlass_sets
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.renames import first_config
from gemmcast.sample import digest

DESCRIBED = {"custom": "docs/custom-kernels.md", "triton": "docs/triton.md"}
"""Families of kernels that a project describes in TOML -> the page about it."""
TILE_KNOBS = ("tile_m", "tile_n", "tile_k")


class Configurations:
    """Those of sweep number `index` of a plan, on one device."""

    def __init__(self, plan: Plan, index: int, device: Device) -> None:
        self._plan = plan
        self._index = index
        self._sweep = plan.sweep[index]
        self._device = device
        self._products: dict[tuple[str, str], list[KernelConfig]] = {}
        self._defaults: dict[tuple[str, str], list[KernelConfig]] = {}
        self._names: dict[KernelConfig, str] = {}

    def of(self, gemm: Gemm) -> list[KernelConfig]:
        """The configurations that a problem is measured with."""
        key = (gemm.dtype, gemm.layout)
        if key not in self._products:
            product = list(self._product(gemm))
            self._products[key] = product
            self._defaults[key] = list(filter(self._is_default, product))
        return self._chosen(gemm, self._products[key], self._defaults[key])

    def _product(self, gemm: Gemm) -> Iterator[KernelConfig]:
        for kernel in self._kernels(gemm):
            for knobs in self._knobs():
                yield KernelConfig(**{**asdict(kernel), **knobs})

    def _kernels(self, gemm: Gemm) -> list[KernelConfig]:
        sweep = self._sweep
        if sweep.kernel_set is not None and self._device.arch is not None:
            return list(self._kernels_of_set(sweep.kernel_set, self._device.arch, gemm))
        names = list(sweep.kernel)
        if sweep.algorithms is not None:
            names = algorithm_names(sweep.algorithms)
        return [KernelConfig(family=sweep.family, kernel=self._pinned(name)) for name in names]

    def _kernels_of_set(self, kernel_set: str, arch: str, gemm: Gemm) -> Iterator[KernelConfig]:
        # An architecture may have no such set; another device of the fleet may have it.
        dtype, layout = gemm.dtype, gemm.layout
        with suppress(InputError):
            if self._sweep.family == "cutlass":
                yield from cutlass_sets.configs(kernel_set, arch, dtype, layout)
                return
            for kernel in self._sweep.kernel:
                yield from triton_sets.configs(kernel_set, arch, kernel, dtype, layout)

    def _pinned(self, kernel: str) -> str:
        """The name of a kernel of the project with a hash of its files, so that an edited kernel is
        a new cell.

        A replay keeps the name: the files may have changed since its dataset was recorded.
        """
        family = self._sweep.family
        if family not in DESCRIBED or self._plan.devices.kind == "replay":
            return kernel
        from agent.kernels.custom import read_custom
        from agent.kernels.triton import read_triton

        read = read_custom if family == "custom" else read_triton
        try:
            return read(kernel).name
        except InputError as error:
            field = f"sweep.{self._index}.kernel"
            way_out = f"correct the description ({DESCRIBED[family]})"
            raise InputError(field, kernel, str(error), way_out) from None

    def _knobs(self) -> Iterator[dict[str, int]]:
        names = list(self._sweep.knobs)
        for values in itertools.product(*self._sweep.knobs.values()):
            knobs = dict(zip(names, values, strict=True))
            for word, (knob, unit) in FIELD_KNOBS.items():
                if word in knobs:
                    knobs[knob] = unit * knobs.pop(word)
            tile = knobs.pop("tile", None)
            if tile is not None:
                knobs = {**dict.fromkeys(TILE_KNOBS, tile), **knobs}
            yield knobs

    def _chosen(
        self, gemm: Gemm, configs: list[KernelConfig], defaults: list[KernelConfig]
    ) -> list[KernelConfig]:
        """At most `per_shape` of them, in their order; the library's default always."""
        most = self._sweep.per_shape
        if most is None or most >= len(configs):
            return configs
        others = [config for config in configs if config not in defaults]
        others.sort(key=lambda config: self._draw(gemm, config))
        chosen = set((defaults + others)[:most])
        return [config for config in configs if config in chosen]

    def _is_default(self, config: KernelConfig) -> bool:
        if self._sweep.family != "triton" or self._sweep.kernel_set is None:
            return config.kernel == "default"
        return triton_sets.is_default(config)

    def _draw(self, gemm: Gemm, config: KernelConfig) -> str:
        if config not in self._names:
            self._names[config] = _draw_name(config)
        name = self._names[config]
        return digest({"seed": self._plan.seed, "gemm": str(gemm), "config": name})


def algorithm_names(count: int) -> list[str]:
    """Names of cuBLASLt's algorithms, as agent/kernels/cublaslt has them."""
    names = ["default"]
    names += [f"heuristic-{i}" for i in range(1, HEURISTIC_ALGORITHMS)]
    names += [f"enumerated-{i}" for i in range(count - len(names))]
    return names[:count]


def _draw_name(config: KernelConfig) -> str:
    """The name of a configuration in draws: its text in schema 1, so that a choice never changes.

    A custom kernel counts by its path alone: an edited one meets the same shapes.
    """
    values = first_config(asdict(config))
    family = str(values.pop("family"))
    kernel = str(values.pop("kernel")).partition("@")[0]
    words = [family, kernel]
    if config.tile_m and config.tile_m == config.tile_n == config.tile_k:
        words.append(f"tile={config.tile_m}")
        for knob in TILE_KNOBS:
            del values[knob]
    words += [f"{knob}={value}" for knob, value in values.items() if value]
    return " ".join(word for word in words if word)
