"""What `quantization_config` says: which products are stored and multiplied in 8 bits.

Read are fp8 with a scale for each 128 x 128 weights (DeepSeek, Qwen) or for each tensor or channel,
compressed-tensors with 8 bits on both sides, and mxfp4 (GPT-OSS): its experts are unpacked in the
kernel and multiplied in bf16, so they are listed in bf16 and say so. Others are refused. Knows
modules by the last part of their name; which layers a list of exceptions names is honoured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final

from gemmcast.errors import InputError
from gemmcast.gemm import DTYPES
from gemmcast.language_models.fields import Fields
from gemmcast.language_models.products import Layer, Product

BLOCK: Final = 128
"""Weights that share a scale, along n and along k."""
SCALED_BLOCK: Final = "scaled_block"
"""Triton's kernel for them."""
PLAIN_DTYPE: Final = "bf16"
"""Of what is not quantized, where the caller's dtype has 8 bits."""
_FP8: Final = "fp8_e4m3"
_MXFP4_BITS: Final = 4.25
"""4 bits, and a scale of 8 bits for each 32 weights."""
_WAY_OUT: Final = (
    "gemmcast lists fp8 (128 x 128 blocks, or a scale for each tensor or channel), "
    "compressed-tensors with 8 bits on both sides, and mxfp4; without quantization_config the "
    "GEMMs are listed unquantized"
)
_ONE_BYTE: Final = 1
_BITS_OF_BYTE: Final = 8
_EXPRESSION: Final = "re:"
"""What a regular expression starts with in an exception of compressed-tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How one model is quantized."""

    plain: str
    """dtype of what is not quantized."""
    quantized: str
    """dtype of what is; the same as `plain` for no quantization."""
    is_block: bool = False
    """Whether there is a scale for each BLOCK x BLOCK weights."""
    only_experts: bool = False
    """Whether only experts are quantized."""
    weight_bits: float | None = None
    """Storage of one weight where it is not that of the dtype. [bits]"""
    note: str = ""
    """What the name of a quantized product says."""
    remark: str = ""
    """What makes the costs of this model less certain, as a sentence."""
    exceptions: tuple[str, ...] = ()
    """Names of modules that are not quantized, with wildcards or regular expressions."""

    def layer(self, index: int, layer: Layer, tp: int) -> Layer:
        """The layer with the dtypes of its products.

        Raises:
            InputError: only some of the weights of one product are quantized, or a GPU's share
                of a product has no whole blocks.
        """
        products = [self._product(index, product, tp) for product in layer.products]
        return replace(layer, products=tuple(products))

    def plain_product(self, product: Product) -> Product:
        """A product that engines never quantize."""
        return replace(product, dtype=self.plain, weight_bits=_bits(self.plain))

    def _product(self, index: int, product: Product, tp: int) -> Product:
        if not self._quantizes(index, product):
            return self.plain_product(product)
        kernel = product.kernel
        if self.is_block:
            _check_blocks(product, tp)
            kernel = kernel or SCALED_BLOCK
        return replace(
            product,
            name=f"{product.name}{self.note}",
            dtype=self.quantized,
            kernel=kernel,
            weight_bits=self.weight_bits or _bits(self.quantized),
        )

    def _quantizes(self, index: int, product: Product) -> bool:
        if not product.modules or (self.only_experts and not product.experts):
            return False
        excepted = [self._excepts(f"{index}.{module}") for module in product.modules]
        if any(excepted) and not all(excepted):
            rule = f"excepts only some of the weights of {product.name} in layer {index}"
            way_out = "engines can't fuse them; except all of them or none"
            raise InputError("quantization_config", ", ".join(product.modules), rule, way_out)
        return not any(excepted)

    def _excepts(self, module: str) -> bool:
        """Whether an exception names this module (`INDEX.self_attn.q_proj`) or what it is in."""
        for exception in self.exceptions:
            if exception.startswith(_EXPRESSION):
                if re.match(exception.removeprefix(_EXPRESSION), f"model.layers.{module}"):
                    return True
            elif _is_within(exception, module):
                return True
        return False


def quantization_of(fields: Fields, dtype: str) -> Quantization:
    """What a configuration says, where `dtype` is what the caller says of it.

    Without `quantization_config`, a dtype of 8 bits is that of every product that engines
    quantize; with one, the dtype holds for the others.

    Raises:
        InputError: an unknown dtype, or a quantization that is not listed here.
    """
    if dtype not in DTYPES:
        raise InputError("dtype", dtype, "unknown dtype", f"use one of {', '.join(DTYPES)}")
    plain = PLAIN_DTYPE if DTYPES[dtype].in_bytes == _ONE_BYTE else dtype
    config = fields.values.get("quantization_config")
    if config is None:
        return Quantization(plain=plain, quantized=dtype)
    if not isinstance(config, Mapping):
        raise InputError("quantization_config", config, "must be an object", _WAY_OUT)
    method = config.get("quant_method")
    if method in ("fp8", "fbgemm_fp8"):
        return _fp8(config, plain)
    if method == "compressed-tensors":
        return _compressed(config, plain)
    if method == "mxfp4":
        return Quantization(
            plain=plain,
            quantized=plain,
            only_experts=True,
            weight_bits=_MXFP4_BITS,
            note=f" (mxfp4 as {plain})",
            remark=f"Experts are stored in mxfp4 and counted as if in {plain}: too high where "
            "reading weights bounds them.",
            exceptions=_exceptions(config, "modules_to_not_convert"),
        )
    raise InputError("quant_method", method, "is not listed here", _WAY_OUT)


def _fp8(config: Mapping[str, object], plain: str) -> Quantization:
    block = config.get("weight_block_size")
    if block not in (None, [BLOCK, BLOCK]):
        raise InputError("weight_block_size", block, "is not listed here", _WAY_OUT)
    return Quantization(
        plain=plain,
        quantized=_FP8,
        is_block=block is not None,
        exceptions=_exceptions(config, "modules_to_not_convert", "ignored_layers"),
    )


def _compressed(config: Mapping[str, object], plain: str) -> Quantization:
    """compressed-tensors: groups of modules, each with its numbers of weights and inputs."""
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1:
        raise InputError("config_groups", groups, "must be one group", _WAY_OUT)
    (group,) = groups.values()
    if not isinstance(group, Mapping) or group.get("targets") != ["Linear"]:
        raise InputError("config_groups", group, "must have the targets ['Linear']", _WAY_OUT)
    dtypes = {_number_format(group.get(side)) for side in ("weights", "input_activations")}
    if len(dtypes) > 1 or None in dtypes:
        raise InputError("config_groups", group, "is not listed here", _WAY_OUT)
    (dtype,) = dtypes
    return Quantization(
        plain=plain,
        quantized=str(dtype),
        is_block=_is_block(group["weights"]),
        exceptions=_exceptions(config, "ignore"),
    )


def _number_format(side: object) -> str | None:
    """dtype of weights or inputs; None for what is not listed."""
    if not isinstance(side, Mapping) or side.get("num_bits") != _BITS_OF_BYTE:
        return None
    return {"float": _FP8, "int": "int8"}.get(str(side.get("type")))


def _is_block(weights: Mapping[str, object]) -> bool:
    if weights.get("strategy") != "block":
        return False
    block = weights.get("block_structure")
    if block != [BLOCK, BLOCK]:
        raise InputError("block_structure", block, "is not listed here", _WAY_OUT)
    return True


def _exceptions(config: Mapping[str, object], *names: str) -> tuple[str, ...]:
    """The names in these lists. Raises InputError for what is no list of texts."""
    exceptions: list[str] = []
    for name in names:
        listed = config.get(name) or []
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise InputError(name, listed, "must be a list of names", "correct the configuration")
        exceptions += listed
    for exception in exceptions:
        _check_expression(exception)
    return tuple(exceptions)


def _check_expression(exception: str) -> None:
    if not exception.startswith(_EXPRESSION):
        return
    try:
        re.compile(exception.removeprefix(_EXPRESSION))
    except re.error as error:
        rule = f"is no regular expression ({error})"
        raise InputError("ignore", exception, rule, "correct the configuration") from None


def _is_within(exception: str, module: str) -> bool:
    """Whether the parts of an exception stand next to each other in a module's name.

    What is before the layer's number (`model.layers.`) differs between versions and is left out.
    """
    wanted = exception.rpartition("layers.")[2].split(".")
    parts = module.split(".")
    starts = range(len(parts) - len(wanted) + 1)
    return any(_fits(parts[start : start + len(wanted)], wanted) for start in starts)


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    return all(fnmatchcase(part, word) for part, word in zip(parts, wanted, strict=True))


def _check_blocks(product: Product, tp: int) -> None:
    """vLLM's rule: the matrices that are fused or divided have whole blocks."""
    columns = product.parts or (product.n,)
    is_divided = tp > 1 and product.divided == "n"
    if not is_divided:
        # The last of the fused matrices may end within a block.
        columns = columns[:-1]
    depth = (product.k,) if tp > 1 and product.divided == "k" else ()
    for size in (*columns, *depth):
        if size % BLOCK:
            rule = f"leaves {size} of {product.name}, no whole blocks of {BLOCK} weights"
            way_out = "use fewer GPUs, as engines refuse it, too"
            raise InputError("tp", tp, rule, way_out)


def _bits(dtype: str) -> float:
    return _BITS_OF_BYTE * DTYPES[dtype].in_bytes
