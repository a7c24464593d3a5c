"""Which tile a model puts first, and what it gains over the family's default, by shape.

All of it is predicted: candidates come from the kernel family, their order from the model. Nothing
was measured for it. Of the families whose kernels have tiles the first is taken that the model has
seen on the device. Knows nothing of figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gemmcast.candidates import candidates, default_config, refusal
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.gemm_list import ListedGemm
from gemmcast.language_models import LanguageModel, Step
from gemmcast.predictor import Predictor, RankedConfig

TILED_FAMILIES = ("triton", "cutlass", "tiled")
"""Families with tiles to choose from: engines' kernels first."""
MAP_ROWS = (1, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""m of a map."""
MAP_COLUMNS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
"""n of a map."""


class Tile(NamedTuple):
    """The part of C that one thread block computes. [elements]"""

    m: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeGains:
    """Predicted time of the default over that of the first of the ranking."""

    device: str
    family: str
    tokens: Sequence[int]
    gains: Mapping[str, Sequence[float | None]]
    """Name of a GEMM -> [n_tokens]; None where the family can't run it, or not as trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileMap:
    """The tile of the first of the ranking, over m and n."""

    device: str
    family: str
    rows: Sequence[int]
    """m"""
    columns: Sequence[int]
    """n"""
    tiles: Sequence[Sequence[Tile | None]]
    """[n_rows][n_columns]; None as above."""


def known_family(predictor: Predictor, device: Device, gemm: Gemm) -> str | None:
    """The first of TILED_FAMILIES that runs the GEMM within the model's training range."""
    for family in TILED_FAMILIES:
        if _winner(predictor, device, gemm, family):
            return family
    return None


def shape_gains(
    predictor: Predictor,
    device: Device,
    model: LanguageModel,
    steps: Sequence[Step],
    family: str,
) -> ShapeGains:
    """The gain of each GEMM of a language model at each step."""
    gains: dict[str, list[float | None]] = {}
    for place, step in enumerate(steps):
        for listed in model.gemms(step):
            of_gemm = gains.setdefault(listed.name, [None] * len(steps))
            of_gemm[place] = _gain(predictor, device, listed, family)
    shown = {name: values for name, values in gains.items() if any(values)}
    tokens = [step.tokens for step in steps]
    return ShapeGains(device=device.name, family=family, tokens=tokens, gains=shown)


def tile_map(
    predictor: Predictor,
    device: Device,
    gemm: Gemm,
    family: str,
    *,
    rows: Sequence[int] = MAP_ROWS,
    columns: Sequence[int] = MAP_COLUMNS,
) -> TileMap:
    """The winning tile at the GEMM's k and dtype, over m (`rows`) and n (`columns`)."""
    tiles: list[list[Tile | None]] = []
    for m in rows:
        row: list[Tile | None] = []
        for n in columns:
            row.append(_winning_tile(predictor, device, replace(gemm, m=m, n=n), family))
        tiles.append(row)
    return TileMap(device=device.name, family=family, rows=rows, columns=columns, tiles=tiles)


def _winning_tile(predictor: Predictor, device: Device, gemm: Gemm, family: str) -> Tile | None:
    winner = _winner(predictor, device, gemm, family)
    if winner is None:
        return None
    return Tile(winner.config.tile_m, winner.config.tile_n)


def _gain(predictor: Predictor, device: Device, listed: ListedGemm, family: str) -> float | None:
    written = f"{family}:{listed.kernel}" if family == "triton" and listed.kernel else family
    winner = _winner(predictor, device, listed.gemm, written)
    if winner is None:
        return None
    default = default_config(written, listed.gemm, device)
    before_us = predictor.predict(listed.gemm, default, device).runtime_us
    # The prefilter may have left out the default, which a tuner never does.
    return max(1.0, before_us / winner.prediction.runtime_us)


def _winner(predictor: Predictor, device: Device, gemm: Gemm, family: str) -> RankedConfig | None:
    """The first of the ranking; None where there is none, or it is outside the training range."""
    if gemm.dtype not in device.peak_tflops or device.kind != "cuda":
        return None
    if refusal(family, gemm, device) is not None:
        return None
    configs = candidates(gemm, device, [family])
    (winner,) = predictor.rank(gemm, configs, "time", device, top=1)
    return None if winner.prediction.extrapolating else winner
