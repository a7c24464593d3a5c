"""Which layers each architecture has, from the fields of its configuration.

The field `architectures` decides, as it does for engines; without it, `model_type` does. Of a
multimodal model the language model is listed (`text_config`), not what encodes images or sound.
Multi-token prediction (`num_nextn_predict_layers`) is not listed. Knows no quantization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gemmcast.errors import InputError
from gemmcast.language_models.fields import Fields
from gemmcast.language_models.latent import latent_attention
from gemmcast.language_models.products import (
    Layer,
    Product,
    Ranks,
    attention,
    gated_mlp,
    mixture,
)

Layers = Callable[[Fields, Ranks], list[Layer]]
_GEMMA: Final = {"tie_word_embeddings": True}
_GEMMA3: Final = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262_208,
    **_GEMMA,
}
"""transformers' defaults, which Google's configurations leave out."""
_CHATGLM: Final = {
    "num_layers": "num_hidden_layers",
    "ffn_hidden_size": "intermediate_size",
    "kv_channels": "head_dim",
    "multi_query_group_num": "num_key_value_heads",
    "padded_vocab_size": "vocab_size",
}
"""Names of the configurations that come with code of their own -> those of transformers."""


def text_fields(config: Mapping[str, object]) -> Fields:
    """The fields of the language model: the configuration, or its `text_config`.

    Raises:
        InputError: `text_config` is no object.
    """
    text = config.get("text_config")
    if text is None:
        return _renamed(config)
    if not isinstance(text, Mapping):
        raise InputError("text_config", text, "must be an object", "correct the configuration")
    # What is said of the whole model holds for this part, too.
    shared = ("quantization_config", "tie_word_embeddings")
    outer = {name: config[name] for name in shared if name in config}
    return Fields({**outer, **text})


def architecture_of(fields: Fields) -> str:
    """The name of the architecture: one of ARCHITECTURES.

    Raises:
        InputError: it is unknown, or not named.
    """
    names = fields.values.get("architectures")
    known = ", ".join(ARCHITECTURES)
    if names:
        name = names[0] if isinstance(names, list) else names
        if isinstance(name, str) and name in ARCHITECTURES:
            return name
        raise InputError("architectures", names, "is not known here", f"known are {known}")
    model_type = fields.values.get("model_type")
    if isinstance(model_type, str) and model_type in MODEL_TYPES:
        return MODEL_TYPES[model_type]
    known = ", ".join(MODEL_TYPES)
    rule = "is not known here" if model_type else "is not in the configuration"
    raise InputError("model_type", model_type, rule, f"known are {known}")


def layers_of(architecture: str, fields: Fields, tp: int) -> list[Layer]:
    """The layers, first to last.

    Raises:
        InputError: a field is absent or wrong, or a size that `tp` GPUs can't share.
    """
    return ARCHITECTURES[architecture](fields, Ranks(tp))


def with_defaults(architecture: str, fields: Fields) -> Fields:
    """The fields, with what transformers takes for those that are absent."""
    return Fields({**DEFAULTS.get(architecture, {}), **fields.values})


def _renamed(config: Mapping[str, object]) -> Fields:
    if config.get("model_type") != "chatglm":
        return Fields(config)
    renamed = {_CHATGLM.get(name, name): value for name, value in config.items()}
    return Fields(renamed)


def _attention(
    fields: Fields, ranks: Ranks, modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
) -> list[Product]:
    heads = fields.whole("num_attention_heads")
    hidden = fields.whole("hidden_size")
    if "head_dim" not in fields.values and hidden % heads:
        rule = f"can't be divided among num_attention_heads = {heads}"
        raise InputError("hidden_size", hidden, rule, "give head_dim")
    kv_heads = fields.whole("num_key_value_heads", default=heads)
    if heads % kv_heads:
        rule = f"can't share num_attention_heads = {heads} evenly"
        raise InputError("num_key_value_heads", kv_heads, rule, "correct the configuration")
    return attention(
        ranks,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=fields.whole("head_dim", default=hidden // heads),
        modules=modules,
    )


def _mlp(fields: Fields, ranks: Ranks) -> list[Product]:
    hidden = fields.whole("hidden_size")
    return gated_mlp(ranks, hidden=hidden, intermediate=fields.whole("intermediate_size"))


def _same_layers(fields: Fields, products: list[Product]) -> list[Layer]:
    return [Layer("layer", tuple(products))] * fields.layers()


def _dense(fields: Fields, ranks: Ranks) -> list[Layer]:
    """Llama and most others: attention with a gated MLP."""
    return _same_layers(fields, _attention(fields, ranks) + _mlp(fields, ranks))


def _phi3(fields: Fields, ranks: Ranks) -> list[Layer]:
    """Llama's layers; the checkpoint's weights are fused already."""
    projections = _attention(fields, ranks, ("qkv_proj",))
    mlp = gated_mlp(
        ranks,
        hidden=fields.whole("hidden_size"),
        intermediate=fields.whole("intermediate_size"),
        modules=("gate_up_proj",),
    )
    return _same_layers(fields, projections + mlp)


def _mixtral(fields: Fields, ranks: Ranks) -> list[Layer]:
    """Mixtral and PhiMoE."""
    experts = mixture(
        ranks,
        hidden=fields.whole("hidden_size"),
        intermediate=fields.whole("intermediate_size"),
        field="intermediate_size",
        experts=fields.whole("num_local_experts"),
        top_k=fields.whole("num_experts_per_tok"),
        gate_up_modules=("w1", "w3"),
        down_module="w2",
        parent="block_sparse_moe",
    )
    return _same_layers(fields, _attention(fields, ranks) + experts)


def _gpt_oss(fields: Fields, ranks: Ranks) -> list[Layer]:
    experts = mixture(
        ranks,
        hidden=fields.whole("hidden_size"),
        intermediate=fields.whole("intermediate_size"),
        field="intermediate_size",
        experts=fields.whole("num_local_experts"),
        top_k=fields.whole("num_experts_per_tok"),
    )
    return _same_layers(fields, _attention(fields, ranks) + experts)


def _qwen_moe(fields: Fields, ranks: Ranks) -> list[Layer]:
    """Qwen2-MoE, which has shared experts behind a gate of their own, and Qwen3-MoE."""
    attention_products = _attention(fields, ranks)
    experts = _experts(fields, ranks, fields.whole("num_experts"))
    shared_width = fields.count("shared_expert_intermediate_size")
    hidden = fields.whole("hidden_size")
    if shared_width:
        experts.append(Product(name="shared.gate", n=1, k=hidden))
        experts += _shared(
            ranks, hidden, shared_width, "shared_expert_intermediate_size", "mlp.shared_expert"
        )
    step = fields.whole("decoder_sparse_step", default=1)
    dense_only = set(fields.whole_list("mlp_only_layers"))
    sparse = [
        (index + 1) % step == 0 and index not in dense_only for index in range(fields.layers())
    ]
    return _mixed(fields, ranks, attention_products, experts, sparse)


def _deepseek(fields: Fields, ranks: Ranks) -> list[Layer]:
    """DeepSeek V2 and V3, and Kimi K2."""
    return _shared_experts_after_dense(fields, ranks, latent_attention(fields, ranks))


def _glm4_moe(fields: Fields, ranks: Ranks) -> list[Layer]:
    """GLM-4.5 and later: DeepSeek's experts with grouped-query attention."""
    return _shared_experts_after_dense(fields, ranks, _attention(fields, ranks))


def _shared_experts_after_dense(
    fields: Fields, ranks: Ranks, attention_products: list[Product]
) -> list[Layer]:
    """The first layers are dense; the others have experts, some of which see every token."""
    layers = fields.layers()
    routed = fields.count("n_routed_experts")
    if not routed:
        return _same_layers(fields, attention_products + _mlp(fields, ranks))
    experts = _experts(fields, ranks, routed)
    shared = fields.count("n_shared_experts")
    if shared:
        width = shared * fields.whole("moe_intermediate_size")
        hidden = fields.whole("hidden_size")
        field = "n_shared_experts · moe_intermediate_size"
        experts += _shared(ranks, hidden, width, field, "mlp.shared_experts")
    first = fields.count("first_k_dense_replace")
    step = fields.whole("moe_layer_freq", default=1)
    sparse = [index >= first and index % step == 0 for index in range(layers)]
    return _mixed(fields, ranks, attention_products, experts, sparse)


def _experts(fields: Fields, ranks: Ranks, experts: int) -> list[Product]:
    return mixture(
        ranks,
        hidden=fields.whole("hidden_size"),
        intermediate=fields.whole("moe_intermediate_size"),
        experts=experts,
        top_k=fields.whole("num_experts_per_tok"),
    )


def _shared(ranks: Ranks, hidden: int, width: int, field: str, parent: str) -> list[Product]:
    """Shared experts are one MLP that every token goes through."""
    return gated_mlp(
        ranks, hidden=hidden, intermediate=width, field=field, prefix="shared.", parent=parent
    )


def _mixed(
    fields: Fields,
    ranks: Ranks,
    attention_products: list[Product],
    experts: list[Product],
    sparse: list[bool],
) -> list[Layer]:
    """`sparse` says of each layer whether it has the experts, or a dense MLP."""
    expert_layer = Layer("expert layer", (*attention_products, *experts))
    if all(sparse):
        return [Layer("layer", expert_layer.products)] * len(sparse)
    dense_layer = Layer("dense layer", (*attention_products, *_mlp(fields, ranks)))
    return [expert_layer if has_experts else dense_layer for has_experts in sparse]


ARCHITECTURES: Final[Mapping[str, Layers]] = {
    "LlamaForCausalLM": _dense,
    "MistralForCausalLM": _dense,
    "MixtralForCausalLM": _mixtral,
    "Qwen2ForCausalLM": _dense,
    "Qwen2MoeForCausalLM": _qwen_moe,
    "Qwen2_5_VLForConditionalGeneration": _dense,
    "Qwen3ForCausalLM": _dense,
    "Qwen3MoeForCausalLM": _qwen_moe,
    "GemmaForCausalLM": _dense,
    "Gemma2ForCausalLM": _dense,
    "Gemma3ForCausalLM": _dense,
    "Phi3ForCausalLM": _phi3,
    "PhiMoEForCausalLM": _mixtral,
    "GptOssForCausalLM": _gpt_oss,
    "DeepseekV2ForCausalLM": _deepseek,
    "DeepseekV3ForCausalLM": _deepseek,
    "ChatGLMModel": _dense,
    "ChatGLMForConditionalGeneration": _dense,
    "GlmForCausalLM": _dense,
    "Glm4ForCausalLM": _dense,
    "Glm4MoeForCausalLM": _glm4_moe,
}
"""Name in the field `architectures` -> the layers of such a model."""
DEFAULTS: Final[Mapping[str, Mapping[str, object]]] = {
    "GemmaForCausalLM": _GEMMA,
    "Gemma2ForCausalLM": _GEMMA,
    "Gemma3ForCausalLM": _GEMMA3,
}
"""Architecture -> fields that configurations leave out."""
MODEL_TYPES: Final = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen2_5_vl_text": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_vl_text": "Qwen3ForCausalLM",
    "qwen3_vl_moe_text": "Qwen3MoeForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "phimoe": "PhiMoEForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
    "chatglm": "ChatGLMModel",
    "glm": "GlmForCausalLM",
    "glm4": "Glm4ForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "glm4v_moe_text": "Glm4MoeForCausalLM",
}
"""Name in the field `model_type` -> architecture; a `text_config` often has no other."""
