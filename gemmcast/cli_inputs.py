"""What the words of a command line stand for: a model, a GEMM, a device, configurations."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gemmcast.carbon import Rates
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm

if TYPE_CHECKING:
    from gemmcast.predictor import Predictor


def open_model(model: Path | None) -> Predictor:
    """The predictor of --model."""
    # ONNX Runtime takes a while to import; --help needs none of it.
    from gemmcast.predictor import Predictor

    return Predictor(model)


def gemm_of(args: argparse.Namespace) -> Gemm:
    """The problem of M, N, K and the options about it."""
    return Gemm(
        m=args.m,
        n=args.n,
        k=args.k,
        batch=args.batch,
        dtype=args.dtype,
        layout=args.layout,
        beta=args.beta,
    )


def rates_of(args: argparse.Namespace) -> Rates:
    """What a kilowatt-hour costs and emits, by the options."""
    return Rates(kwh_price=args.kwh_price, gco2_per_kwh=args.gco2_per_kwh)


def device_of(text: str | None) -> Device | str | None:
    """A description, if `text` names a file; else the name itself."""
    if text is None or not Path(text).is_file():
        return text
    return Device.read(Path(text))


def configs_of(args: argparse.Namespace) -> list[KernelConfig] | None:
    """The configurations that were named; None where the families are to make some."""
    if not args.configs and args.configs_file is None:
        return None
    configs = [KernelConfig.parse(text) for text in args.configs]
    if args.configs_file is not None:
        configs += _read_configs(args.configs_file)
    return configs


def _read_configs(path: Path) -> list[KernelConfig]:
    try:
        return [KernelConfig(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except InputError:
        raise
    except OSError as error:
        rule = f"can't be read ({error.strerror})"
        way_out = "name a JSON list of configurations"
        raise InputError("--configs-file", str(path), rule, way_out) from None
    except (ValueError, TypeError, RecursionError) as error:
        rule = f"not a JSON list of configurations ({error})"
        way_out = f"knobs are {', '.join(KNOBS)}"
        raise InputError("--configs-file", str(path), rule, way_out) from None
