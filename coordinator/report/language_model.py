"""Sections of the report about a language model: cost on each device, gain and tile by shape.

All of it is predicted by one model. Where the model knows no kernel with tiles at this dtype, the
section says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from coordinator.report import language_figures
from coordinator.report.model_sections import ABSENT
from coordinator.report.page import PageTable, Picture, Section
from coordinator.report.winning_tiles import (
    ShapeGains,
    TileMap,
    known_family,
    shape_gains,
    tile_map,
)
from gemmcast.carbon import NO_RATES, Rates, energy_of
from gemmcast.cli_llm import cost_text, named_devices, note_on
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.forward_pass import Cost, LayerCost, PassCost, by_tokens, costs_on_devices, pareto
from gemmcast.gemm import Gemm
from gemmcast.language_models import LanguageModel, Step, read_config, whole_numbers
from gemmcast.predictor import Predictor

COLUMNS = (
    "tokens",
    "device",
    "GPUs",
    "layer, ms",
    "layer, J",
    "pass, ms",
    "pass sustained, ms",
    "pass, J",
)
FRONT = "on the front"
PASSES = "passes"
MAX_DEVICES = 3
"""Devices of the figures by shape; the table has all."""
_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModelCase:
    """What is to be shown."""

    config: Mapping[str, object]
    """Fields of a Hugging Face config.json."""
    tokens: Sequence[int] = (1, 16, 256, 4096)
    """Rows of the forward passes."""
    tps: Sequence[int] = (1,)
    """GPUs that share each layer."""
    rates: Rates = NO_RATES
    """What a kilowatt-hour costs and emits."""

    @staticmethod
    def read(path: Path, tokens: str, tp: str, rates: Rates = NO_RATES) -> LanguageModelCase:
        """From a config.json and numbers with commas between them.

        Raises:
            InputError: the file or the numbers can't be read, or its GEMMs can't be listed.
        """
        case = LanguageModelCase(
            config=read_config(path),
            tokens=whole_numbers("--tokens", tokens),
            tps=whole_numbers("--tp", tp),
            rates=rates,
        )
        case.models()
        case.steps()
        return case

    def models(self) -> list[LanguageModel]:
        """One for each number of GPUs. Raises InputError as LanguageModel.of does."""
        return [LanguageModel.of(self.config, tp=tp) for tp in self.tps]

    def steps(self) -> list[Step]:
        """One for each number of tokens. Raises InputError for a number below 1."""
        return [Step(tokens) for tokens in self.tokens]


def language_model_sections(case: LanguageModelCase, model: bytes | None) -> list[Section]:
    """What it costs, and what tuning would gain.

    Args:
        case: the language model, and how it runs.
        model: the .onnx file that predicts. The one that comes with gemmcast does where it is None,
            or where none of its devices was measured at a dtype of the language model, as on CPUs.

    Raises:
        InputError: the configuration can't be listed, or no device was measured at its dtype.
    """
    if model is not None:
        try:
            return _sections_by(model, case)
        except InputError:
            # The shipped model has the last word.
            pass
    with Predictor() as predictor:
        return _sections(predictor, case)


def _sections_by(model: bytes, case: LanguageModelCase) -> list[Section]:
    with TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(model)
        with Predictor(source) as predictor:
            return _sections(predictor, case)


def _sections(predictor: Predictor, case: LanguageModelCase) -> list[Section]:
    devices = named_devices(predictor)
    models = case.models()
    steps = case.steps()
    passes, reasons = costs_on_devices(predictor, devices, models, steps)
    costs = _costs(models[0], passes, reasons, predictor.version, case.rates)
    return [costs, _by_shape(predictor, devices, models[0], steps)]


def _costs(
    model: LanguageModel,
    passes: Sequence[PassCost],
    reasons: Mapping[str, str],
    version: str,
    rates: Rates,
) -> Section:
    layers = sum(model.layers.values())
    texts = [
        f"{model.architecture}, {layers} layers, predicted by model {version}. {note_on(model)} "
        "The 90 % intervals of sums assume that all GEMMs err alike, which is the widest. A layer "
        "is one of the most frequent kind. The front is what no other device and number of GPUs "
        "beats in sustained time and energy, if the weights fit."
    ]
    for name, reason in reasons.items():
        texts.append(f"Left out: {name}: {reason}")
    amounts = [rates.title(name, PASSES) for name in rates.per_kwh]
    if amounts:
        texts.append(_rates_text(rates))
    header = [*COLUMNS, *amounts, FRONT]
    table = PageTable(header=header, rows=_rows(passes, rates), text_columns=2)
    pictures: list[Picture] = []
    if any(one.total.energy_mj for one in passes):
        figure = language_figures.time_and_energy(passes)
        alt = "Time against energy of each device; the number is that of GPUs"
        pictures.append(Picture.of(alt, figure))
    return Section(title="A language model", texts=texts, tables=[table], pictures=pictures)


def _rates_text(rates: Rates) -> str:
    """At which rates the amounts were computed."""
    shown: list[str] = []
    if rates.kwh_price is not None:
        shown.append(f"a price of {rates.kwh_price:g} a kWh")
    if rates.gco2_per_kwh is not None:
        shown.append(f"{rates.gco2_per_kwh:g} gCO2e a kWh")
    return (
        f"At {' and '.join(shown)}, of the energy of the boards alone: no host, no cooling, "
        "nothing that is idle. A cost has the currency of the price. Intervals are those of the "
        "energy."
    )


def _rows(passes: Sequence[PassCost], rates: Rates) -> list[list[str]]:
    rows: list[list[str]] = []
    for group in by_tokens(passes).values():
        front = set(map(id, pareto(group)))
        for one in group:
            rows.append(_row(one, rates, is_on_front=id(one) in front))
    return rows


def _row(one: PassCost, rates: Rates, *, is_on_front: bool) -> list[str]:
    layer = max(one.layers, key=_count_of).cost
    place = "yes" if is_on_front else ""
    if not one.fits:
        gib = one.weight_bytes / _GIB
        place = f"does not fit ({gib:.0f} GiB)"
    amounts = rates.amounts(energy_of(one.total)).values()
    return [
        str(one.tokens),
        one.device,
        str(one.tp),
        _text(layer, "runtime_us"),
        _text(layer, "energy_mj"),
        _text(one.total, "runtime_us"),
        _text(one.total, "sustained_runtime_us"),
        _text(one.total, "energy_mj"),
        *(amount.text if amount else ABSENT for amount in amounts),
        place,
    ]


def _text(cost: Cost, name: str) -> str:
    return cost_text(cost, name) or ABSENT


def _count_of(layer: LayerCost) -> int:
    return layer.count


def _by_shape(
    predictor: Predictor, devices: Sequence[Device], model: LanguageModel, steps: Sequence[Step]
) -> Section:
    """Gain and winning tile of the first number of GPUs."""
    title = "What the model would choose, by shape"
    first = model.gemms(steps[0])[0].gemm
    gains: list[ShapeGains] = []
    maps: list[TileMap] = []
    for device in devices:
        family = known_family(predictor, device, first)
        if family is None or len(maps) == MAX_DEVICES:
            continue
        gains.append(shape_gains(predictor, device, model, steps, family))
        maps.append(tile_map(predictor, device, first, family))
    if not maps:
        text = f"The model has seen no kernel with a tile to choose at {first.dtype}."
        return Section(title=title, texts=[text])
    return Section(title=title, texts=[_shape_text(first)], pictures=_shape_pictures(gains, maps))


def _shape_text(gemm: Gemm) -> str:
    return (
        "By the model's own ranking, nothing was measured for it. First: the predicted time of the "
        "family's default over that of the configuration that the model puts first, for the GEMMs "
        "of the model. Many candidates make an optimist, so a gain counts once it is measured "
        f"(coordinator tune). Second: the tile that it puts first at k = {gemm.k} in {gemm.dtype}. "
        "Left out is what lies outside the training range."
    )


def _shape_pictures(gains: Sequence[ShapeGains], maps: Sequence[TileMap]) -> list[Picture]:
    by_shape = language_figures.gains_by_shape(gains)
    tiles = language_figures.winning_tiles(maps)
    return [
        Picture.whole("Predicted gain over the default, by GEMM and tokens", by_shape),
        Picture.of("The tile that the model puts first, by m and n", tiles),
    ]
