"""Multi-head latent attention (DeepSeek V2 and V3): its products as vLLM and SGLang run them.

Keys and values of a token are one latent vector of kv_lora_rank, from which kv_b makes those of
each head. While decoding, engines do not make them: they multiply queries by the keys' half of kv_b
and outputs by the values' half ("absorbed"), a small product for each head, in bf16 whatever the
weights are stored in. Prompts run kv_b as it is. q_a and kv_a are one product, and not divided.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmcast.language_models.fields import Fields
from gemmcast.language_models.products import Product, Ranks, output_projection


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Sizes on one GPU. [elements]"""

    hidden: int
    heads: int
    q_rank: int
    """Of the latent queries; 0 where queries are not compressed."""
    kv_rank: int
    nope: int
    """Of a head's query and key, the part without position."""
    rope: int
    """The part with position; of the keys, all heads share one."""
    value: int


def latent_attention(fields: Fields, ranks: Ranks) -> list[Product]:
    """The projections, absorbed ones for decoding and kv_b for prompts."""
    heads = ranks.share("num_attention_heads", fields.whole("num_attention_heads"))
    sizes = _Sizes(
        hidden=fields.whole("hidden_size"),
        heads=heads,
        q_rank=fields.count("q_lora_rank"),
        kv_rank=fields.whole("kv_lora_rank"),
        nope=fields.whole("qk_nope_head_dim"),
        rope=fields.whole("qk_rope_head_dim"),
        value=fields.whole("v_head_dim"),
    )
    output = output_projection(sizes.hidden, heads * sizes.value)
    return [*_inputs(sizes), *_absorbed(sizes), _expanded(sizes), output]


def _inputs(sizes: _Sizes) -> list[Product]:
    """From the hidden state to queries and latent keys and values."""
    kv_a = sizes.kv_rank + sizes.rope
    queries = sizes.heads * (sizes.nope + sizes.rope)
    kv_a_module = "self_attn.kv_a_proj_with_mqa"
    if not sizes.q_rank:
        q = Product(name="q", n=queries, k=sizes.hidden, modules=("self_attn.q_proj",), divided="n")
        return [q, Product(name="kv_a", n=kv_a, k=sizes.hidden, modules=(kv_a_module,))]
    q_and_kv = Product(
        name="q_a+kv_a",
        n=sizes.q_rank + kv_a,
        k=sizes.hidden,
        modules=("self_attn.q_a_proj", kv_a_module),
        parts=(sizes.q_rank, kv_a),
    )
    q_b = Product(
        name="q_b", n=queries, k=sizes.q_rank, modules=("self_attn.q_b_proj",), divided="n"
    )
    return [q_and_kv, q_b]


def _absorbed(sizes: _Sizes) -> list[Product]:
    """One small product for each head, in each of which kv_b is stored as it is multiplied."""
    keys = Product(
        name="kv_b keys, absorbed",
        n=sizes.kv_rank,
        k=sizes.nope,
        heads=sizes.heads,
        phase="decoding",
    )
    values = Product(
        name="kv_b values, absorbed",
        n=sizes.value,
        k=sizes.kv_rank,
        heads=sizes.heads,
        layout="nn",
        phase="decoding",
    )
    return [keys, values]


def _expanded(sizes: _Sizes) -> Product:
    return Product(
        name="kv_b",
        n=sizes.heads * (sizes.nope + sizes.value),
        k=sizes.kv_rank,
        modules=("self_attn.kv_b_proj",),
        divided="n",
        phase="prompt",
    )
