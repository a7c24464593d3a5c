"""What the page of questions has to know, as JSON: the contract, one model, language models.

    contract_facts()          codes, fields and rules of a query, from gemmcast/query.py
    model_facts(model, card)  its devices, their configurations, its bytes
    language_facts(configs)   the products of language models, by tensor parallelism and dtype

The names are those of gemmcast; page/src reads them. Does not know how the page looks.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from coordinator.report.ask_candidates import SIZE, Json, families_on, kernel_row
from gemmcast import carbon, query
from gemmcast.card import ModelCard
from gemmcast.cli_text import EXTRAPOLATING, UNITS
from gemmcast.config import library_config
from gemmcast.contracts import device_for
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.feasible import LT_MULTIPLES
from gemmcast.gain import APART, FAR, NEAR
from gemmcast.gemm import DTYPES, LAYOUTS, MAX_DIM, Gemm
from gemmcast.gemm_list import COLUMNS, KERNELS
from gemmcast.language_models import LanguageModel
from gemmcast.language_models.products import Product
from gemmcast.modelfile import LoadedModel
from gemmcast.query import DTYPE_CODES

TENSOR_PARALLEL: Final = (1, 2, 4, 8)
LANGUAGE_DTYPES: Final = ("bf16", "fp8_e4m3")
EXAMPLES: Final = (
    Gemm(m=SIZE, n=SIZE, k=SIZE, dtype="bf16", layout="nt"),
    Gemm(m=1024, n=1024, k=1024, dtype="fp32", layout="nn"),
)
"""What the page answers before anybody has typed: the first whose dtype every device has."""
_DESCRIPTORS: Final = (
    "name",
    "kind",
    "arch",
    "compute_units",
    "dram_gbps",
    "l2_bytes",
    "clock_max_mhz",
    "empty_kernel_us",
    "power_limit_w",
    "idle_power_w",
    "l2_gbps",
    "memory_bytes",
)
_PRODUCT: Final = (
    "name",
    "n",
    "k",
    "heads",
    "experts",
    "top_k",
    "layout",
    "phase",
    "dtype",
    "kernel",
)


def contract_facts() -> Json:
    """What every model of this contract has in common."""
    return {
        "fields": query.FIELDS,
        "kernel_fields": query.KernelColumns._fields,
        "dtypes": {name: _dtype(name) for name in DTYPES},
        "layouts": LAYOUTS,
        "max_dim": MAX_DIM,
        "columns": COLUMNS,
        "listed_kernels": KERNELS,
        "l2_over_dram": query.L2_OVER_DRAM,
        "empty_kernel_us": query.EMPTY_KERNEL_US,
        "coverage": query.COVERAGE,
        "units": UNITS,
        "extrapolating": EXTRAPOLATING,
        "lt_multiples": LT_MULTIPLES,
        "gain": {"near": NEAR, "far": FAR, "apart": APART},
        "mj_per_kwh": carbon.MJ_PER_KWH,
        "times": carbon.TIMES,
    }


def model_facts(model: bytes, card: ModelCard, version: str) -> Json:
    """One model: what it is, the devices that it can be asked about, and its file.

    Raises:
        ModelFileError: the file is damaged, foreign, or of a contract that is not served.
    """
    loaded = LoadedModel(model, "the model", version)
    devices = [device_for(device, loaded.contract) for device in loaded.named_devices]
    return {
        "version": version,
        "created_at": card.created_at[:10],
        "outputs": loaded.outputs,
        "errors": _errors(card),
        "example": _example(devices),
        "devices": [_device(device) for device in devices],
        "candidates": _candidates(devices),
        "onnx": base64.b64encode(model).decode(),
    }


def language_facts(configs: Mapping[str, Mapping[str, object]]) -> list[Json]:
    """Each language model, one part of it for each number of GPUs and dtype.

    Args:
        configs: name -> fields of its config.json.
    """
    return [{"name": name, "parts": list(_parts(config))} for name, config in configs.items()]


def _dtype(name: str) -> Json:
    stored = DTYPES[name]
    return {
        "code": DTYPE_CODES[name],
        "in_bytes": stored.in_bytes,
        "out_bytes": stored.out_bytes,
    }


def _errors(card: ModelCard) -> dict[str, float]:
    """Target -> median error on shapes that the model never saw. [%]"""
    errors: dict[str, float] = {}
    for target, by_method in card.scores.items():
        if "model" in by_method:
            errors[target] = by_method["model"]["median_ape"]
    return errors


def _example(devices: Sequence[Device]) -> Json:
    for gemm in EXAMPLES:
        if all(gemm.dtype in device.peak_tflops for device in devices):
            return asdict(gemm)
    return asdict(EXAMPLES[-1])


def _device(device: Device) -> Json:
    described: Json = {name: getattr(device, name) for name in _DESCRIPTORS}
    described["peak_tflops"] = dict(device.peak_tflops)
    described["library"] = {dtype: _library(dtype, device) for dtype in device.peak_tflops}
    described["makes"] = _kind(device)
    return described


def _candidates(devices: Sequence[Device]) -> dict[str, Json]:
    """Kind of device -> what the families make there; alike devices share it."""
    peaks: dict[str, dict[str, float]] = {}
    for device in devices:
        peaks.setdefault(_kind(device), {}).update(device.peak_tflops)
    made: dict[str, Json] = {}
    for device in devices:
        kind = _kind(device)
        if kind not in made:
            with_every_peak = replace(device, peak_tflops=peaks[kind])
            made[kind] = families_on(with_every_peak, peaks[kind])
    return made


def _kind(device: Device) -> str:
    """All that configurations of a device depend on."""
    return device.arch or f"{device.kind} {device.compute_units}"


def _library(dtype: str, device: Device) -> Json:
    """What the vendor's library launches by itself."""
    config = library_config(dtype, device.kind)
    gemm = Gemm(m=SIZE, n=SIZE, k=SIZE, dtype=dtype)
    return {"name": str(config), "row": kernel_row(config, gemm, device)}


def _parts(config: Mapping[str, object]) -> Iterator[Json]:
    for tp in TENSOR_PARALLEL:
        for dtype in LANGUAGE_DTYPES:
            try:
                model = LanguageModel.of(config, tp=tp, dtype=dtype)
            except InputError:
                # This many GPUs can't share it
                continue
            yield _part(model, dtype)


def _part(model: LanguageModel, dtype: str) -> Json:
    layers: list[Json] = []
    for layer, count in model.layers.items():
        products = [_product(product) for product in layer.products]
        layers.append({"name": layer.name, "count": count, "products": products})
    return {
        "tp": model.tp,
        "dtype": dtype,
        "layers": layers,
        "head": _product(model.head),
        "weight_bytes": model.weight_bytes,
        "remark": model.remark,
    }


def _product(product: Product) -> dict[str, Any]:
    return {name: getattr(product, name) for name in _PRODUCT}
