"""Mixtures of experts: what the fused MoE kernels of vLLM and SGLang look up.

    E=256,N=256,device_name=NVIDIA_H200,dtype=fp8_w8a8.json

E is the number of experts on the device, N the columns of an expert's down projection there. vLLM
looks in $VLLM_TUNED_CONFIG_FOLDER first; SGLang in $SGLANG_MOE_CONFIG_DIR/configs/triton_3_6_0/.
A layer's two products (gate_up: n = 2N; down: k = N) share the file, so where they disagree it has
the default, or what the product that decides has.

A Gemm says a mixture as experts with rows and rows of each (docs/triton.md): T tokens to top-k of E
experts are batch = min(E, T·top-k) and m = ceil(T·top-k / batch), from which T is read back here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from gemmcast.errors import InputError
from gemmcast.exports.export import Export, ExportOptions, LeftOut, chosen, device_words
from gemmcast.exports.token_counts import (
    TOKEN_COUNTS,
    by_tokens,
    disputed,
    engine_json,
    unsayable,
)
from gemmcast.gemm import Gemm
from gemmcast.tuned_entry import TunedEntry
from gemmcast.tuned_table import TunedTable

KERNEL: Final = "grouped"
"""Our kernel that computes what the engines' do."""
DTYPES: Final = {"bf16": "", "fp16": "", "fp8_e4m3": "fp8_w8a8"}
"""dtype -> the word for it in the name of a file; 16 bits have none."""
PRODUCTS: Final = ("gate_up", "down")
DECIDES: Final = ("both", *PRODUCTS)
_Layer = dict[int, list[TunedEntry]]
"""Token count -> the entries of its products, gate_up first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """One layer of experts, as it is on one device."""

    experts: int
    top_k: int
    """Experts that each token goes to."""
    intermediate: int
    """Columns of an expert's down projection. [elements]"""

    def product(self, gemm: Gemm) -> str | None:
        """Which of the layer's two products a Gemm is; None: of another layer."""
        if gemm.n == 2 * self.intermediate:
            return "gate_up"
        return "down" if gemm.k == self.intermediate else None

    def token_counts(self, gemm: Gemm) -> list[int]:
        """The usual token counts that a Gemm stands for; else the largest other one; or none."""
        usual = [tokens for tokens in TOKEN_COUNTS if self._has(gemm, tokens)]
        largest = gemm.m * gemm.batch // self.top_k
        if usual or not self._has(gemm, largest):
            return usual
        return [largest]

    def _has(self, gemm: Gemm, tokens: int) -> bool:
        """Whether so many tokens are this Gemm."""
        rows = tokens * self.top_k
        batch = min(self.experts, rows)
        return batch > 0 and (gemm.batch, gemm.m) == (batch, -(-rows // batch))


def vllm_moe(table: TunedTable, options: ExportOptions) -> Export:
    """The file of vLLM, with the version of Triton inside."""
    layer, notes = _layer(table, options)
    device = device_words(table.key.device)
    # The whole family has one name in vLLM
    if "H200" in device.split("_"):
        device = "NVIDIA_H200"
    name = _file_name(layer, options, device, separator=",")
    text = engine_json(by_tokens(layer), table.key.triton)
    return Export(files={name: text}, notes=notes)


def sglang_moe(table: TunedTable, options: ExportOptions) -> Export:
    """The file of SGLang, in the folder of its release of Triton.

    SGLang finds it with any other Triton too, since it looks through all folders. It takes every
    part of their names for a number, so what follows the release is left out.
    """
    version = table.key.triton
    release = re.match(r"\d+(\.\d+)*", version or "")
    if release is None:
        rule = "SGLang looks in a folder of the Triton version, which the table does not have"
        raise InputError("triton", version, rule, "tune with the family triton")
    layer, notes = _layer(table, options)
    name = _file_name(layer, options, device_words(table.key.device), separator=", ")
    folder = f"configs/triton_{release[0].replace('.', '_')}"
    return Export(files={f"{folder}/{name}": engine_json(by_tokens(layer))}, notes=notes)


def _layer(table: TunedTable, options: ExportOptions) -> tuple[_Layer, tuple[str, ...]]:
    """The entries of the layer by token count, and notes."""
    mixture = _mixture(options)
    left_out = LeftOut()
    layer: _Layer = defaultdict(list)
    products = set()
    # `gate_up` comes before `down`: its default stands where they disagree
    for entry in sorted(table.entries, key=lambda entry: mixture.product(entry.gemm) == "down"):
        reason = _why_not(entry, mixture, options)
        if reason:
            left_out.reasons[reason] += 1
            continue
        products.add(mixture.product(entry.gemm))
        for tokens in mixture.token_counts(entry.gemm):
            layer[tokens].append(entry)
    if not layer:
        way_out = f"tune layers with triton:kernel={KERNEL}, and check E, N and top-k"
        raise left_out.nothing_left(table, way_out)
    _check_dtypes(layer)
    return layer, (*left_out.notes(), *_shared_notes(layer, products, table))


def _why_not(entry: TunedEntry, mixture: Mixture, options: ExportOptions) -> str | None:
    """Why the file can't say an entry; None where it can."""
    reason = unsayable(entry, options.kernel or KERNEL, DTYPES)
    if reason:
        return reason
    product = mixture.product(entry.gemm)
    if product is None:
        return f"neither n = {2 * mixture.intermediate} nor k = {mixture.intermediate}"
    if options.decides not in ("both", product):
        return f"it is {product}, and {options.decides} decides"
    if options.block_shape:
        for config in (entry.default, chosen(entry)):
            if options.block_shape[1] % config.tile_k:
                return f"tile_k = {config.tile_k} does not divide a block of scales"
    if not mixture.token_counts(entry.gemm):
        return f"no token count gives it with {mixture.top_k} of {mixture.experts} experts"
    return None


def _file_name(layer: _Layer, options: ExportOptions, device: str, separator: str) -> str:
    (dtype,) = {entry.gemm.dtype for entries in layer.values() for entry in entries}
    word = DTYPES[dtype]
    name = f"E={options.experts},N={options.intermediate},device_name={device}"
    if word:
        name += f",dtype={word}"
    if options.block_shape:
        n, k = options.block_shape
        name += f",block_shape=[{n}{separator}{k}]"
    return f"{name}.json"


def _mixture(options: ExportOptions) -> Mixture:
    """What the options say of the layer.

    Raises:
        InputError: one is missing, or they contradict each other.
    """
    if options.decides not in DECIDES:
        way_out = f"use one of {', '.join(DECIDES)}"
        raise InputError("--decides", options.decides, "no such product", way_out)
    if options.block_shape and (options.kernel or KERNEL) == KERNEL:
        rule = f"our kernel {KERNEL} has no block scales, so its entries are not for such a file"
        way_out = "measure the engine's own kernel (docs/triton.md), and name it with --kernel"
        raise InputError("--block-shape", options.block_shape, rule, way_out)
    return Mixture(
        experts=_needed("--experts", options.experts),
        top_k=_needed("--top-k", options.top_k),
        intermediate=_needed("--intermediate", options.intermediate),
    )


def _needed(option: str, value: int | None) -> int:
    if value is None or value < 1:
        way_out = "give it as the engine has it on one device"
        raise InputError(option, value, "a fused MoE file needs it, 1 or more", way_out)
    return value


def _check_dtypes(layer: _Layer) -> None:
    dtypes = sorted({entry.gemm.dtype for entries in layer.values() for entry in entries})
    if len(dtypes) > 1:
        rule = "the table has the layer in several dtypes, and one file would serve them all"
        raise InputError("dtype", ", ".join(dtypes), rule, "export a table of one dtype")


def _shared_notes(layer: _Layer, products: set[str | None], table: TunedTable) -> list[str]:
    """What the user should know of a file that serves two products."""
    notes = []
    counts = disputed(layer)
    if counts:
        shown = ", ".join(map(str, sorted(counts)))
        notes.append(
            f"the default stands at {shown} tokens: gate_up and down have different winners there "
            "(--decides names the one that decides)"
        )
    for product in PRODUCTS:
        if product not in products:
            notes.append(f"the engine uses the file for {product} too, which is not in it")
    if table.key.triton is None:
        notes.append("triton_version is left out: the table does not have it")
    return notes
