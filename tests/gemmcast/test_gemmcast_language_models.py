"""GEMMs of well-known models, derived by hand from their configurations and vLLM's layers."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemmcast import InputError
from gemmcast.language_models import LanguageModel, Step, gemms_of, read_config

CONFIGS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("language_model_configs.json").read_text()
)
BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128]}


def shapes(name: str, tokens: int = 16, **options: Any) -> dict[str, tuple[int, ...]]:
    """Name -> n, k, batch, launches."""
    listed = gemms_of(CONFIGS[name], tokens=tokens, **options)
    return {one.name: (one.gemm.n, one.gemm.k, one.gemm.batch, int(one.weight)) for one in listed}


def dtypes(config: dict[str, Any], **options: Any) -> dict[str, tuple[str, str]]:
    """Name -> dtype, kernel."""
    listed = gemms_of(config, tokens=16, **options)
    return {one.name: (one.gemm.dtype, one.kernel) for one in listed}


def changed(name: str, **fields: object) -> dict[str, Any]:
    return {**CONFIGS[name], **fields}


def test_llama_8b() -> None:
    assert shapes("llama-3.1-8b") == {
        "qkv": (6144, 4096, 1, 32),
        "o": (4096, 4096, 1, 32),
        "gate_up": (28672, 4096, 1, 32),
        "down": (4096, 14336, 1, 32),
        "lm_head": (128256, 4096, 1, 1),
    }
    for one in gemms_of(CONFIGS["llama-3.1-8b"], tokens=16):
        assert (one.gemm.m, one.gemm.dtype, one.gemm.layout, one.kernel) == (16, "bf16", "nt", "")


def test_llama_70b_on_eight_gpus() -> None:
    assert shapes("llama-3.1-70b", tp=8) == {
        "qkv": (1280, 8192, 1, 80),
        "o": (8192, 1024, 1, 80),
        "gate_up": (7168, 8192, 1, 80),
        "down": (8192, 3584, 1, 80),
        "lm_head": (16032, 8192, 1, 1),
    }


def test_heads_of_keys_are_repeated_on_more_gpus() -> None:
    # 4 heads of queries, and one of keys and of values, of 128 each.
    assert shapes("llama-3.1-70b", tp=16)["qkv"] == (768, 8192, 1, 80)


def test_qwen3_32b() -> None:
    assert shapes("qwen3-32b") == {
        "qkv": (10240, 5120, 1, 64),
        "o": (5120, 8192, 1, 64),
        "gate_up": (51200, 5120, 1, 64),
        "down": (5120, 25600, 1, 64),
        "lm_head": (151936, 5120, 1, 1),
    }


def test_qwen3_30b_a3b() -> None:
    assert shapes("qwen3-30b-a3b") == {
        "qkv": (5120, 2048, 1, 48),
        "o": (2048, 4096, 1, 48),
        "router": (128, 2048, 1, 48),
        "experts.gate_up": (1536, 2048, 128, 48),
        "experts.down": (2048, 768, 128, 48),
        "lm_head": (151936, 2048, 1, 1),
    }


@pytest.mark.parametrize(
    ("tokens", "batch", "rows"), [(1, 8, 1), (5, 40, 1), (20, 128, 2), (4096, 128, 256)]
)
def test_tokens_are_divided_among_the_experts(tokens: int, batch: int, rows: int) -> None:
    listed = {one.name: one for one in gemms_of(CONFIGS["qwen3-30b-a3b"], tokens=tokens)}
    experts = listed["experts.down"]
    assert (experts.gemm.batch, experts.gemm.m, experts.kernel) == (batch, rows, "grouped")
    assert (listed["router"].gemm.m, listed["router"].kernel) == (tokens, "")


def test_mixtral_on_two_gpus() -> None:
    assert shapes("mixtral-8x7b", tp=2) == {
        "qkv": (3072, 4096, 1, 32),
        "o": (4096, 2048, 1, 32),
        "router": (8, 4096, 1, 32),
        "experts.gate_up": (14336, 4096, 8, 32),
        "experts.down": (4096, 7168, 8, 32),
        "lm_head": (16000, 4096, 1, 1),
    }


def test_gemma_3_27b_is_the_text_part_with_defaults() -> None:
    assert shapes("gemma-3-27b") == {
        "qkv": (8192, 5376, 1, 62),
        "o": (5376, 4096, 1, 62),
        "gate_up": (43008, 5376, 1, 62),
        "down": (5376, 21504, 1, 62),
        "lm_head": (262208, 5376, 1, 1),
    }


def test_phi_4() -> None:
    assert shapes("phi-4") == {
        "qkv": (7680, 5120, 1, 40),
        "o": (5120, 5120, 1, 40),
        "gate_up": (35840, 5120, 1, 40),
        "down": (5120, 17920, 1, 40),
        "lm_head": (100352, 5120, 1, 1),
    }


def test_gpt_oss_120b_says_that_its_experts_are_unpacked() -> None:
    assert shapes("gpt-oss-120b") == {
        "qkv": (5120, 2880, 1, 36),
        "o": (2880, 4096, 1, 36),
        "router": (128, 2880, 1, 36),
        "experts.gate_up (mxfp4 as bf16)": (5760, 2880, 64, 36),
        "experts.down (mxfp4 as bf16)": (2880, 2880, 64, 36),
        "lm_head": (201088, 2880, 1, 1),
    }
    # Published as 60.8 GiB of checkpoint.
    weight_gib = LanguageModel.of(CONFIGS["gpt-oss-120b"]).weight_bytes / 2**30
    assert weight_gib == pytest.approx(60.8, abs=0.5)


def test_deepseek_v3_on_eight_gpus_while_decoding() -> None:
    assert shapes("deepseek-v3", tp=8) == {
        "q_a+kv_a": (2112, 7168, 1, 61),
        "q_b": (3072, 1536, 1, 61),
        "kv_b keys, absorbed": (512, 128, 16, 61),
        "kv_b values, absorbed": (128, 512, 16, 61),
        "o": (7168, 2048, 1, 61),
        "gate_up": (4608, 7168, 1, 3),
        "down": (7168, 2304, 1, 3),
        "router": (256, 7168, 1, 58),
        "experts.gate_up": (512, 7168, 128, 58),
        "experts.down": (7168, 256, 128, 58),
        "shared.gate_up": (512, 7168, 1, 58),
        "shared.down": (7168, 256, 1, 58),
        "lm_head": (16160, 7168, 1, 1),
    }


def test_deepseek_v3_s_absorbed_products_are_stored_as_they_are_multiplied() -> None:
    listed = {one.name: one.gemm.layout for one in gemms_of(CONFIGS["deepseek-v3"], tokens=1)}
    assert listed["kv_b keys, absorbed"] == "nt"
    assert listed["kv_b values, absorbed"] == "nn"
    assert listed["o"] == "nt"


def test_heads_whose_values_are_smaller_than_their_keys() -> None:
    config = changed("deepseek-v3", v_head_dim=96, quantization_config=None)
    listed = {one.name: one.gemm for one in gemms_of(config, tokens=4, sequences=1)}
    assert listed["o"].k == 128 * 96
    assert listed["kv_b"].n == 128 * (128 + 96)
    assert listed["q_b"].n == 128 * (128 + 64)


def test_the_vocabulary_is_padded_before_it_is_divided() -> None:
    config = changed("llama-3.1-8b", vocab_size=32001)
    listed = {one.name: one.gemm.n for one in gemms_of(config, tokens=1, tp=2)}
    assert listed["lm_head"] == 32064 / 2


def test_deepseek_v3_is_stored_in_blocks_of_fp8() -> None:
    block = ("fp8_e4m3", "scaled_block")
    by_name = dtypes(CONFIGS["deepseek-v3"])
    assert {name for name, how in by_name.items() if how == block} == {
        *("q_a+kv_a", "q_b", "o", "gate_up", "down", "shared.gate_up", "shared.down")
    }
    assert by_name["experts.down"] == ("fp8_e4m3", "grouped")
    plain = [name for name, how in by_name.items() if how == ("bf16", "")]
    assert plain == ["kv_b keys, absorbed", "kv_b values, absorbed", "router", "lm_head"]


def test_a_prompt_expands_keys_and_has_logits_for_its_last_token() -> None:
    listed = {
        one.name: one.gemm for one in gemms_of(CONFIGS["deepseek-v3"], tokens=4096, sequences=2)
    }
    assert (listed["kv_b"].n, listed["kv_b"].k, listed["kv_b"].m) == (32768, 512, 4096)
    assert "kv_b keys, absorbed" not in listed
    assert listed["lm_head"].m == 2
    assert listed["o"].m == 4096


def test_deepseek_without_compressed_queries() -> None:
    config = changed("deepseek-v3", q_lora_rank=None, quantization_config=None)
    listed = {one.name: one.gemm for one in gemms_of(config, tokens=1)}
    assert (listed["q"].n, listed["q"].k) == (24576, 7168)
    assert (listed["kv_a"].n, listed["kv_a"].k) == (576, 7168)


def test_glm_4_5_whose_output_projection_is_a_dense_layer_s_down() -> None:
    assert shapes("glm-4.5") == {
        "qkv": (14336, 5120, 1, 92),
        "o + down": (5120, 12288, 1, 92 + 3),
        "gate_up": (24576, 5120, 1, 3),
        "router": (160, 5120, 1, 89),
        "experts.gate_up": (3072, 5120, 128, 89),
        "experts.down": (5120, 1536, 128, 89),
        "shared.gate_up": (3072, 5120, 1, 89),
        "shared.down": (5120, 1536, 1, 89),
        "lm_head": (151552, 5120, 1, 1),
    }


def test_qwen2_moe_has_a_gate_before_its_shared_expert() -> None:
    listed = shapes("qwen2-57b-a14b")
    assert listed["shared.gate"] == (1, 3584, 1, 28)
    assert listed["shared.gate_up"] == (40960, 3584, 1, 28)
    assert listed["experts.gate_up"] == (5120, 3584, 64, 28)


def test_qwen_moe_with_dense_layers() -> None:
    config = changed("qwen3-30b-a3b", decoder_sparse_step=2, mlp_only_layers=[1, 3])
    listed = {one.name: one.weight for one in gemms_of(config, tokens=1)}
    assert (listed["qkv"], listed["experts.down"], listed["down"]) == (48, 22, 26)


def test_chatglm_has_names_of_its_own() -> None:
    assert shapes("glm-4-9b-chat") == {
        "qkv": (4608, 4096, 1, 40),
        "o": (4096, 4096, 1, 40),
        "gate_up": (27392, 4096, 1, 40),
        "down": (4096, 13696, 1, 40),
        "lm_head": (151552, 4096, 1, 1),
    }


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-3.1-8b", 8.03),
        ("llama-3.1-70b", 70.6),
        ("qwen3-32b", 32.8),
        ("qwen3-30b-a3b", 30.5),
        ("mixtral-8x7b", 46.7),
        ("gemma-3-27b", 27.0),
        ("phi-4", 14.7),
        ("glm-4.5", 353.0),
    ],
)
def test_parameters_are_as_published(name: str, billions: float) -> None:
    parameters = LanguageModel.of(CONFIGS[name]).weight_bytes / 2
    assert parameters / 1e9 == pytest.approx(billions, rel=0.01)


def test_several_passes_are_summed() -> None:
    config = CONFIGS["llama-3.1-8b"]
    both = gemms_of(config, tokens=[1, 16, 16])
    assert [(one.gemm.m, one.weight) for one in both if one.name == "qkv"] == [(1, 32), (16, 64)]


def test_layers_by_kind() -> None:
    model = LanguageModel.of(CONFIGS["deepseek-v3"])
    kinds = [(layer.name, count) for layer, count in model.layers.items()]
    assert kinds == [("dense layer", 3), ("expert layer", 58)]
    dense, _ = model.layers
    names = [one.name for one in model.layer_gemms(dense, Step(1))]
    assert names[-2:] == ["gate_up", "down"]


def test_a_model_type_is_enough() -> None:
    config = changed("llama-3.1-8b", architectures=None)
    assert gemms_of(config, tokens=1) == gemms_of(CONFIGS["llama-3.1-8b"], tokens=1)


@pytest.mark.parametrize("model_type", ["qwen3_vl_moe_text", "qwen3_moe"])
def test_the_text_part_of_a_multimodal_model(model_type: str) -> None:
    text = changed("qwen3-30b-a3b", architectures=None, model_type=model_type)
    quantization = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    config = {
        "architectures": ["Qwen3VLMoeForConditionalGeneration"],
        "text_config": text,
        "quantization_config": quantization,
    }
    assert dtypes(config)["experts.down"] == ("fp8_e4m3", "grouped")
    plain = {**config, "quantization_config": None}
    assert gemms_of(plain, tokens=16) == gemms_of(CONFIGS["qwen3-30b-a3b"], tokens=16)


def test_a_dtype_of_8_bits_leaves_router_and_logits() -> None:
    by_name = dtypes(CONFIGS["mixtral-8x7b"], dtype="fp8_e4m3")
    assert by_name["qkv"] == ("fp8_e4m3", "")
    assert by_name["experts.down"] == ("fp8_e4m3", "grouped")
    assert by_name["router"] == by_name["lm_head"] == ("bf16", "")


def test_exceptions_of_a_quantization() -> None:
    names = [f"model.layers.{layer}.self_attn.{one}_proj" for layer in (0, 1) for one in "qkv"]
    config = changed(
        "llama-3.1-8b",
        quantization_config={**BLOCKS, "modules_to_not_convert": [*names, "lm_head"]},
    )
    model = LanguageModel.of(config)
    first, others = model.layers
    assert list(model.layers.values()) == [2, 30]
    assert [product.dtype for product in first.products] == ["bf16", *["fp8_e4m3"] * 3]
    assert {product.dtype for product in others.products} == {"fp8_e4m3"}


def compressed(bits: int, kind: str, inputs: dict[str, Any] | None) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "strategy": "channel"}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    ignore = ["lm_head", r"re:.*self_attn\..*"]
    groups = {"group_0": group}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ignore}


@pytest.mark.parametrize(("kind", "dtype"), [("float", "fp8_e4m3"), ("int", "int8")])
def test_compressed_tensors(kind: str, dtype: str) -> None:
    quantization = compressed(8, kind, {"num_bits": 8, "type": kind})
    by_name = dtypes(changed("llama-3.1-8b", quantization_config=quantization))
    assert by_name["gate_up"] == by_name["down"] == (dtype, "")
    assert by_name["qkv"] == by_name["o"] == ("bf16", "")


@pytest.mark.parametrize(
    ("name", "fields", "options", "error"),
    [
        ("phi-4", {"architectures": ["FooForCausalLM"]}, {}, "known are LlamaForCausalLM, Mistral"),
        ("phi-4", {"architectures": None, "model_type": "foo"}, {}, "known are llama, mistral"),
        ("phi-4", {"architectures": None, "model_type": None}, {}, "is not in the configuration"),
        ("phi-4", {"architectures": [["x"]]}, {}, "is not known here"),
        ("gemma-3-27b", {"text_config": {"model_type": "foo"}}, {}, "known are llama"),
        ("gemma-3-27b", {"text_config": 3}, {}, "text_config = 3: must be an object"),
        ("phi-4", {"hidden_size": None}, {}, "hidden_size = None: is not in the configuration"),
        (
            "phi-4",
            {"hidden_size": 10**12},
            {},
            "must be a whole number from 1 to 16777216",
        ),
        ("phi-4", {"num_key_value_heads": 7}, {}, "can't share num_attention_heads = 40 evenly"),
        ("phi-4", {"num_key_value_heads": 80}, {}, "can't share num_attention_heads = 40 evenly"),
        ("phi-4", {"hidden_size": "5120"}, {}, "hidden_size = '5120': must be a whole number"),
        ("phi-4", {"num_hidden_layers": 0}, {}, "num_hidden_layers = 0: must be a whole number"),
        ("phi-4", {"num_hidden_layers": 10**9}, {}, "must be a whole number from 1 to 10000"),
        ("phi-4", {"num_attention_heads": 37}, {}, "can't be divided among"),
        ("phi-4", {}, {"tp": 3}, "tp = 3: num_attention_heads = 40 can't be divided by it"),
        ("phi-4", {}, {"tp": 4}, "tp = 4: num_key_value_heads = 10 can't be divided by it"),
        ("phi-4", {}, {"tp": 20}, "tp = 20: vocab_size (padded) = 100352"),
        ("phi-4", {"num_attention_heads": 80}, {"tp": 16}, "can't be repeated"),
        ("phi-4", {}, {"tp": 0}, "tp = 0: must be a whole number, 1 or more"),
        ("phi-4", {}, {"tokens": 0}, "tokens = 0: must be"),
        ("phi-4", {}, {"tokens": []}, "tokens = []: is empty"),
        ("phi-4", {}, {"sequences": 17}, "sequences = 17: there are 16 tokens"),
        ("phi-4", {}, {"dtype": "half"}, "dtype = 'half': unknown dtype"),
        ("mixtral-8x7b", {"num_experts_per_tok": 9}, {}, "there are 8 experts"),
        ("qwen3-30b-a3b", {"mlp_only_layers": "1"}, {}, "must be a list of whole numbers"),
        ("phi-4", {"tie_word_embeddings": 1}, {}, "must be true or false"),
        ("phi-4", {"quantization_config": {"quant_method": "awq"}}, {}, "quant_method = 'awq'"),
        ("phi-4", {"quantization_config": []}, {}, "must be an object"),
        (
            "phi-4",
            {"quantization_config": {**BLOCKS, "weight_block_size": [64, 64]}},
            {},
            "weight_block_size = [64, 64]: is not listed here",
        ),
        (
            "qwen3-30b-a3b",
            {"quantization_config": BLOCKS},
            {"tp": 4},
            "tp = 4: leaves 192 of experts.gate_up, no whole blocks of 128 weights",
        ),
        (
            "phi-4",
            {"quantization_config": compressed(4, "int", None)},
            {},
            "config_groups = ",
        ),
        (
            "llama-3.1-8b",
            {"quantization_config": {**BLOCKS, "ignored_layers": ["model.layers.1.mlp.up_proj"]}},
            {},
            "excepts only some of the weights of gate_up in layer 1",
        ),
    ],
)
def test_what_cannot_be_listed(
    name: str, fields: dict[str, Any], options: dict[str, Any], error: str
) -> None:
    with pytest.raises(InputError) as raised:
        gemms_of(changed(name, **fields), **{"tokens": 16, **options})
    message = str(raised.value)
    assert error in message
    assert "\n" not in message


def test_read_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('\ufeff{"model_type": "llama"}', encoding="utf-8")
    assert read_config(path) == read_config(tmp_path) == {"model_type": "llama"}


@pytest.mark.parametrize(
    ("text", "error"),
    [("[1]", "no JSON object"), ("{", "no JSON"), ("[" * 100_000, "no JSON"), (None, "can't be")],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str | None, error: str) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=error):
        read_config(path)
