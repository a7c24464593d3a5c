"""fp8 layers with block scales: what vLLM's and SGLang's w8a8 block kernels look up.

    N=4096,K=7168,device_name=NVIDIA_H200,dtype=fp8_w8a8,block_shape=[128,128].json    vLLM
    N=4096,K=7168,device_name=NVIDIA_H200,dtype=fp8_w8a8,block_shape=[128, 128].json   SGLang

One file a layer, its keys token counts alone. Both engines look in a folder of their own package:

    vllm/model_executor/layers/quantization/utils/configs/
    sglang/srt/layers/quantization/configs/
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from gemmcast.exports.export import Export, ExportOptions, LeftOut, chosen, device_words
from gemmcast.exports.token_counts import by_tokens, engine_json, unsayable
from gemmcast.tuned_entry import TunedEntry
from gemmcast.tuned_table import TunedTable

KERNEL: Final = "scaled_block"
"""Our kernel that computes what the engines' do."""
BLOCK: Final = 128
"""Elements along n and along k that share a scale."""
DTYPES: Final = {"fp8_e4m3": "fp8_w8a8"}
_Layer = tuple[int, int]
"""n and k."""


def vllm_block(table: TunedTable, options: ExportOptions) -> Export:
    """The files of vLLM."""
    return _export(table, options, f"[{BLOCK},{BLOCK}]")


def sglang_block(table: TunedTable, options: ExportOptions) -> Export:
    """The files of SGLang."""
    return _export(table, options, f"[{BLOCK}, {BLOCK}]")


def _export(table: TunedTable, options: ExportOptions, block_shape: str) -> Export:
    kernel = options.kernel or KERNEL
    left_out = LeftOut()
    layers: dict[_Layer, dict[int, list[TunedEntry]]] = defaultdict(dict)
    for entry in table.entries:
        reason = _why_not(entry, kernel)
        if reason:
            left_out.reasons[reason] += 1
            continue
        gemm = entry.gemm
        layers[gemm.n, gemm.k][gemm.m] = [entry]
    if not layers:
        raise left_out.nothing_left(table, f"tune fp8_e4m3 nt layers with triton:kernel={KERNEL}")
    device = device_words(table.key.device)
    files = {}
    for (n, k), entries in layers.items():
        name = f"N={n},K={k},device_name={device},dtype=fp8_w8a8,block_shape={block_shape}.json"
        files[name] = engine_json(by_tokens(entries))
    return Export(files=files, notes=tuple(left_out.notes()))


def _why_not(entry: TunedEntry, kernel: str) -> str | None:
    """Why no file can say the entry."""
    reason = unsayable(entry, kernel, DTYPES)
    if reason:
        return reason
    if entry.gemm.batch > 1:
        return "the engine's kernel multiplies one matrix"
    for config in (entry.default, chosen(entry)):
        if BLOCK % config.tile_k:
            return f"tile_k = {config.tile_k} does not divide a block of {BLOCK}"
    return None
