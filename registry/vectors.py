"""Queries and a model's answers to them, as JSON: what an embedder in any language tests with.

    {"queries": [[34 numbers], ...], "answers": {"runtime_us": [...], "low": [[...], ...], ...}}

The queries are about each device and dtype of the file: small and large GEMMs, with the library's
choice and some configurations of each family; some have no power limit, or lie outside the training
range. The answers are ONNX Runtime's. null is NaN. Does not know how a model is exported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, Final

import numpy as np

from gemmcast import query
from gemmcast.candidates import candidates
from gemmcast.config import KernelConfig, library_config
from gemmcast.contracts import device_for
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.modeldir import sha256
from gemmcast.modelfile import LoadedModel

RELATIVE: Final = {"values": 1e-5, "ends": 1e-4}
"""How far an embedder's answers may be from these: the values, and the ends of intervals, in which
few digits of two networks' difference are stretched (docs/onnx.md). `extrapolating` is equal."""
SIZES: Final = ((1, 1024, 1024), (17, 4096, 4096), (512, 1000, 333), (4096, 4096, 8192))
"""m, n, k."""
LAYOUTS: Final = ("nn", "nt", "tn", "nt")
PER_FAMILY: Final = 2
"""Configurations of each family for one GEMM."""


def vectors(model: bytes, source: str) -> str:
    """The test vectors of a model file.

    Args:
        model: the bytes of the file.
        source: what it is, for messages.

    Raises:
        ModelFileError: the file is damaged, or of a contract that is not served.
    """
    loaded = LoadedModel(model, source, sha256(model)[:12])
    rows = np.array(list(_rows(loaded)), dtype=np.float32)
    answers = loaded.run(rows)
    values = {
        "contract": loaded.contract,
        "sha256": sha256(model),
        "fields": query.FIELDS,
        "outputs": loaded.outputs,
        "relative_tolerance": RELATIVE,
        "queries": _numbers(rows),
        "answers": {name: _numbers(array) for name, array in answers.items()},
    }
    return json.dumps(values) + "\n"


def _rows(loaded: LoadedModel) -> Iterator[query.Query]:
    for device in loaded.devices:
        described = device_for(device, loaded.contract)
        for gemm, cache in product(_gemms(described), query.CACHES):
            for config in _configs(gemm, described):
                yield query.encode(gemm, config, described, cache=cache)
        unlimited = replace(described, power_limit_w=None)
        gemm = next(_gemms(described))
        yield query.encode(gemm, library_config(gemm.dtype, device.kind), unlimited)


def _gemms(device: Device) -> Iterator[Gemm]:
    for dtype in device.peak_tflops:
        for (m, n, k), layout in zip(SIZES, LAYOUTS, strict=True):
            yield Gemm(m=m, n=n, k=k, dtype=dtype, layout=layout)


def _configs(gemm: Gemm, device: Device) -> Iterator[KernelConfig]:
    yield library_config(gemm.dtype, device.kind)
    by_family: dict[str, list[KernelConfig]] = {}
    for config in candidates(gemm, device):
        by_family.setdefault(config.family, []).append(config)
    for configs in by_family.values():
        yield from configs[:: max(1, len(configs) // PER_FAMILY)][:PER_FAMILY]


def _numbers(array: Any) -> Any:
    """Nested lists of the shortest numbers that are these float32; None for NaN."""
    if array.ndim > 1:
        return [_numbers(row) for row in array]
    if array.dtype == np.bool_:
        return array.tolist()
    return [None if np.isnan(value) else float(str(value)) for value in array]
