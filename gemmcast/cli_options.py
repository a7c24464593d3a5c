"""What each command of `gemmcast` takes: one function a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from gemmcast.config import FAMILIES
from gemmcast.gemm import DTYPES, LAYOUTS
from gemmcast.objective import OBJECTIVES

_CONFIG: Final = "FAMILY[:KNOB=VALUE,...]"
_FAMILIES: Final = (
    f"families: {', '.join(FAMILIES)} [default: what cuBLAS, or the CPU's BLAS, chooses]"
)
_MODEL: Final = (
    "an .onnx file, or a node's model directory [default: the model that comes with gemmcast]"
)
SIZES: Final = ("m", "n", "k")
_GEMMS: Final = (
    "a CSV or JSON file of GEMMs in place of M N K: m, n, k, and if you like batch, dtype, layout, "
    "weight, name; --dtype and --layout are what a GEMM without one has"
)
_CANDIDATES: Final = (
    "without configurations: the families that make candidates, such as triton or "
    "triton:scaled_block [default: all of the device's kind]"
)
_WORDS: Final = "sizes, then configurations; without any the families make candidates"
_DEFAULT: Final = (
    "what one gets without tuning; another choice must be surely better "
    "[default: the library's or the engine's]"
)
_TOP: Final = "print only the first TOP, 8 where candidates are made [default: all]"
_TABLE: Final = "a tuned table, or a node's model directory"
_OPERATION: Final = (
    "what is computed, where the table has several for a layer: grouped, scaled_block, or '' for a "
    "plain GEMM"
)
_HERE: Final = (
    "the device that runs the kernels: words of its name, or a file with its description in JSON "
    "[default: the devices of the node's directory, or the NVIDIA GPUs of this machine]"
)
_STALE: Final = "take a table that was tuned on another device, or with other versions"
EXPORT_FORMATS: Final = (
    *("vllm-moe", "vllm-block", "sglang-moe", "sglang-block"),
    *("t4", "c-header", "cublaslt", "cutlass-profiler"),
)
"""As gemmcast/exports/formats.py has them, which --help does not load."""


class Command(NamedTuple):
    """One command."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]


def _predict(command: argparse.ArgumentParser) -> None:
    _add_model(command)
    _add_sizes(command)
    _add_gemm(command)
    _add_device(command)
    command.add_argument("--config", metavar=_CONFIG, help=_FAMILIES)
    _add_rates(command)


def _rank(command: argparse.ArgumentParser) -> None:
    _add_model(command)
    _add_gemm(command)
    _add_device(command)
    _add_choice(command)
    command.add_argument("--top", type=int, help=_TOP)


def _pick(command: argparse.ArgumentParser) -> None:
    _add_model(command)
    _add_gemm(command)
    _add_device(command)
    _add_choice(command)
    _add_default(command)
    _add_rates(command)


def _lookup(command: argparse.ArgumentParser) -> None:
    _add_model(command)
    command.add_argument("table", type=Path, metavar="TABLE", help=_TABLE)
    _add_sizes(command)
    _add_gemm(command)
    _add_table(command)


def _models(_command: argparse.ArgumentParser) -> None:
    """No option."""


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=Path, help=_MODEL)


def _add_sizes(command: argparse.ArgumentParser) -> None:
    for size in SIZES:
        command.add_argument(size, type=int)


def _add_gemm(command: argparse.ArgumentParser) -> None:
    _add(command, "--dtype", "fp32", ", ".join(DTYPES))
    _add(command, "--layout", "nn", f"{', '.join(LAYOUTS)}: A, then B; t is stored transposed")
    _add(command, "--batch", 1, "independent products of one shape")
    _add(command, "--beta", 0.0, "C = A·B + beta · C")


def _add_device(command: argparse.ArgumentParser) -> None:
    device = (
        "a device of the model by name or words of it, such as h100 or h100-sxm, or a file with a "
        "device description in JSON"
    )
    command.add_argument("--device", help=f"{device} [default: the model's only device]")
    _add(command, "--cache", "cold", "cold, warm: whether the operands are in the L2 cache")


def _add_table(command: argparse.ArgumentParser) -> None:
    command.add_argument("--operation", help=_OPERATION)
    _add(command, "--objective", "time", "of the table, where TABLE is a directory")
    command.add_argument("--device", help=_HERE)
    command.add_argument("--allow-stale", action="store_true", help=_STALE)


def _add_choice(command: argparse.ArgumentParser) -> None:
    _add(command, "--objective", "time", ", ".join(OBJECTIVES))
    command.add_argument("--gemms", type=Path, metavar="FILE", help=_GEMMS)
    command.add_argument("--families", type=_words, metavar="FAMILY,...", help=_CANDIDATES)
    command.add_argument("--configs-file", type=Path, help="a JSON list of configurations")
    command.add_argument("words", nargs="*", metavar=f"M N K [{_CONFIG} ...]", help=_WORDS)


def _add_default(command: argparse.ArgumentParser) -> None:
    command.add_argument("--default", metavar=_CONFIG, help=_DEFAULT)
    command.add_argument(
        "--bold", action="store_true", help="take the cheapest, however sure that is"
    )


def _add_rates(command: argparse.ArgumentParser) -> None:
    price = "price of a kilowatt-hour, in any currency: adds what the boards' energy costs"
    command.add_argument("--kwh-price", type=float, metavar="PRICE", help=price)
    grams = "gCO2e of a kilowatt-hour of the grid: adds what the boards' energy emits"
    command.add_argument("--gco2-per-kwh", type=float, metavar="GRAMS", help=grams)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _llm(command: argparse.ArgumentParser) -> None:
    _add_model(command)
    command.add_argument("config", type=Path, help="a Hugging Face config.json, or its folder")
    _add(command, "--tokens", "1,16,256,4096", "rows of a forward pass, one or several numbers")
    _add(command, "--tp", "1", "GPUs that share each layer, one or several numbers")
    sequences = (
        "sequences that the tokens belong to; fewer than tokens are prompts [default: one for each "
        "token, as while decoding]"
    )
    command.add_argument("--sequences", type=int, help=sequences)
    _add(command, "--dtype", "bf16", "of what the configuration does not quantize")
    family = (
        "whose default computes the GEMMs that it can run [default: what the vendor's library "
        "chooses]"
    )
    command.add_argument("--family", help=family)
    device = "as for predict; may be repeated [default: every device of the model]"
    command.add_argument("--device", action="append", help=device)
    list_ = "print the GEMMs as CSV instead of their cost"
    command.add_argument("--list", action="store_true", help=list_)
    _add_rates(command)


def _export(command: argparse.ArgumentParser) -> None:
    command.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="a tuned table")
    formats = ", ".join(EXPORT_FORMATS)
    command.add_argument("--format", required=True, help=f"{formats} (docs/exports.md)")
    command.add_argument("--out", type=Path, required=True, help="folder for the files")
    command.add_argument("--kernel", help="Triton kernel whose entries an engine's file gets")
    mixture = command.add_argument_group("of a fused MoE layer, as it is on one device")
    mixture.add_argument("--experts", type=int, help="number of experts")
    mixture.add_argument("--top-k", type=int, help="experts that each token goes to")
    mixture.add_argument("--intermediate", type=int, help="columns of an expert's down projection")
    decides = "gate_up, down: the product that decides; both: what both agree on, else the default"
    mixture.add_argument("--decides", default="both", help=f"{decides} [default: %(default)s]")
    mixture.add_argument("--block-shape", metavar="N,K", help="elements that share a scale")


def _add(command: argparse.ArgumentParser, name: str, default: str | float, help_: str) -> None:
    """An option whose help shows its default."""
    text = f"{help_} [default: %(default)s]"
    command.add_argument(name, default=default, type=type(default), help=text)


COMMANDS: Final = {
    "predict": Command("the cost of one GEMM with one configuration", _predict),
    "rank": Command("configurations in the order of their cost", _rank),
    "pick": Command("the configuration to take, for one GEMM or a list", _pick),
    "llm": Command(
        "what the GEMMs of a language model cost: a layer and a forward pass, on each device", _llm
    ),
    "lookup": Command("what a tuned table says to run", _lookup),
    "export": Command("tuned tables as the files that runtimes read", _export),
    "info": Command("what a model is, and the devices that can be named", _add_model),
    "models": Command(
        "the models that come with gemmcast: what they may be asked, how wrong they are", _models
    ),
}
"""Command -> what it is, and its options."""
