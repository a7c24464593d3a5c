"""The matrix products of one layer on one GPU, as engines fuse and shard them.

Weights are stored n x k, so C[tokens, n] = A[tokens, k] · B is a GEMM in layout nt. What vLLM
computes in one launch is one product: q, k and v; gate and up; all experts. Tensor parallelism is
vLLM's: columns (n) of the first product of a block and rows (k) of the second are divided; heads of
keys and values are repeated where there are more GPUs than heads. Attention itself is no GEMM of
this list. Knows no architecture and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.gemm_list import ListedGemm

GROUPED: Final = "grouped"
"""Triton's kernel for a mixture of experts."""
_EIGHT_BITS: Final = 8
_VOCABULARY_BLOCK: Final = 64
"""vLLM pads the vocabulary to a multiple of it, then divides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product on one GPU, for any number of rows."""

    name: str
    """What it computes, in the words of engines."""
    n: int
    """Columns of C on this GPU. [elements]"""
    k: int
    """Depth on this GPU. [elements]"""
    heads: int = 1
    """Products of this shape in one launch, where each head has its own."""
    experts: int = 0
    """Experts on this GPU, of which each token goes to `top_k`; 0: no mixture of experts."""
    top_k: int = 0
    """Experts of one token."""
    layout: str = "nt"
    """Of its GEMM."""
    phase: Literal["", "decoding", "prompt"] = ""
    """The only phase that has it; empty: both."""
    modules: tuple[str, ...] = ()
    """Its weights, as a checkpoint names them below a layer; empty: weights that engines never
    quantize."""
    parts: tuple[int, ...] = ()
    """Columns of the matrices that are fused; empty: one matrix. [elements]"""
    divided: Literal["", "n", "k"] = ""
    """What tensor parallelism divides."""
    dtype: str = "bf16"
    """Of its operands."""
    kernel: str = ""
    """As in ListedGemm."""
    weight_bits: float = 16
    """Storage of one weight, with its share of the scales. [bits]"""

    @property
    def weight_bytes(self) -> float:
        """Memory of the weights, of all experts. [bytes]"""
        matrices = self.experts or self.heads
        return matrices * self.n * self.k * self.weight_bits / _EIGHT_BITS

    def listed(self, tokens: int) -> ListedGemm:
        """Its GEMM for this number of tokens.

        Of a mixture of experts, the rows are divided equally among the experts that get any
        (docs/triton.md): batch = min(experts, tokens · top_k), m = ceil(tokens · top_k / batch).
        """
        rows, batch = tokens, self.heads
        if self.experts:
            routed = tokens * self.top_k
            batch = min(self.experts, routed)
            rows = -(-routed // batch)
        gemm = Gemm(m=rows, n=self.n, k=self.k, batch=batch, dtype=self.dtype, layout=self.layout)
        return ListedGemm(gemm=gemm, name=self.name, kernel=self.kernel)


@dataclass(frozen=True, slots=True)
class Layer:
    """The products of one layer on one GPU."""

    name: str
    """Its kind: `layer`, or `dense layer` and `expert layer` in a model that has both."""
    products: tuple[Product, ...]
    """In the order in which they run."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The GPUs that share each layer."""

    tp: int
    """How many: tensor parallelism."""

    def share(self, field: str, total: int) -> int:
        """One GPU's share of a size. Raises InputError where it is no whole number."""
        if total % self.tp:
            rule = f"{field} = {total} can't be divided by it"
            raise InputError("tp", self.tp, rule, "use a number that divides it")
        return total // self.tp

    def share_of_heads(self, field: str, total: int) -> int:
        """The same for heads of keys and values, which are repeated where GPUs outnumber them."""
        if self.tp <= total:
            return self.share(field, total)
        if self.tp % total:
            rule = f"{field} = {total} can't be repeated on it"
            raise InputError(
                "tp", self.tp, rule, "use a multiple of it, or a number that divides it"
            )
        return 1


def attention(
    ranks: Ranks,
    *,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    modules: Sequence[str] = ("q_proj", "k_proj", "v_proj"),
) -> list[Product]:
    """The projections of multi-head or grouped-query attention."""
    q = ranks.share("num_attention_heads", heads) * head_dim
    kv = ranks.share_of_heads("num_key_value_heads", kv_heads) * head_dim
    qkv = Product(
        name="qkv",
        n=q + 2 * kv,
        k=hidden,
        modules=tuple(f"self_attn.{module}" for module in modules),
        parts=(q, kv, kv),
        divided="n",
    )
    return [qkv, output_projection(hidden, q)]


def output_projection(hidden: int, k: int) -> Product:
    """What follows attention; `k` is this GPU's share."""
    return Product(name="o", n=hidden, k=k, modules=("self_attn.o_proj",), divided="k")


def gated_mlp(
    ranks: Ranks,
    *,
    hidden: int,
    intermediate: int,
    field: str = "intermediate_size",
    prefix: str = "",
    modules: Sequence[str] = ("gate_proj", "up_proj"),
    parent: str = "mlp",
) -> list[Product]:
    """Gate and up in one product, then down.

    Args:
        intermediate: width of the whole model, whose name is `field`.
        prefix: of the products' names.
        modules: the weights of the first product.
        parent: the module that they and `down_proj` are in.
    """
    width = ranks.share(field, intermediate)
    gate_up = Product(
        name=f"{prefix}gate_up",
        n=2 * width,
        k=hidden,
        modules=tuple(f"{parent}.{module}" for module in modules),
        parts=(width, width),
        divided="n",
    )
    down = Product(
        name=f"{prefix}down",
        n=hidden,
        k=width,
        modules=(f"{parent}.down_proj",),
        divided="k",
    )
    return [gate_up, down]


def mixture(
    ranks: Ranks,
    *,
    hidden: int,
    intermediate: int,
    experts: int,
    top_k: int,
    field: str = "moe_intermediate_size",
    gate_up_modules: Sequence[str] = ("gate_proj", "up_proj"),
    down_module: str = "down_proj",
    parent: str = "mlp",
) -> list[Product]:
    """The router, then each expert's gate and up, and down: every GPU has a share of every expert.

    Args:
        intermediate: width of one expert in the whole model, whose name is `field`.
        parent: the module that `experts` is in.
    """
    if top_k > experts:
        rule = f"there are {experts} experts"
        raise InputError("num_experts_per_tok", top_k, rule, "correct the configuration")
    width = ranks.share(field, intermediate)
    # One expert stands for all: engines quantize all or none of a layer.
    first = f"{parent}.experts.0"
    gate_up = Product(
        name="experts.gate_up",
        n=2 * width,
        k=hidden,
        experts=experts,
        top_k=top_k,
        modules=tuple(f"{first}.{module}" for module in gate_up_modules),
        parts=(width, width),
        divided="n",
        kernel=GROUPED,
    )
    down = Product(
        name="experts.down",
        n=hidden,
        k=width,
        experts=experts,
        top_k=top_k,
        modules=(f"{first}.{down_module}",),
        divided="k",
        kernel=GROUPED,
    )
    return [Product(name="router", n=experts, k=hidden), gate_up, down]


def lm_head(ranks: Ranks, *, hidden: int, vocabulary: int) -> Product:
    """The logits; engines do not quantize it."""
    padded = -(-vocabulary // _VOCABULARY_BLOCK) * _VOCABULARY_BLOCK
    return Product(name="lm_head", n=ranks.share("vocab_size (padded)", padded), k=hidden)
