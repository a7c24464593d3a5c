"""A language model as lists of GEMMs: of each kind of layer, and of one forward pass on one GPU.

A forward pass has `tokens` rows, of one or several sequences. While decoding, each sequence has one
token; of a prompt only the last token has logits, so lm_head has a row for each sequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gemmcast.errors import InputError
from gemmcast.gemm_list import ListedGemm, summed
from gemmcast.language_models.architectures import (
    architecture_of,
    layers_of,
    text_fields,
    with_defaults,
)
from gemmcast.language_models.fields import Fields
from gemmcast.language_models.products import Layer, Product, Ranks, lm_head
from gemmcast.language_models.quantization import quantization_of


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward pass computes."""

    tokens: int
    """Rows of it, 1 or more."""
    sequences: int | None = None
    """Sequences that they belong to, at most `tokens`; None: one for each token."""

    def __post_init__(self) -> None:
        _check_whole("tokens", self.tokens)
        if self.sequences is None:
            return
        _check_whole("sequences", self.sequences)
        if self.sequences > self.tokens:
            rule = f"there are {self.tokens} tokens"
            raise InputError("sequences", self.sequences, rule, "each has a token or more")

    @property
    def logits(self) -> int:
        """Rows of lm_head."""
        return self.sequences or self.tokens

    @property
    def phase(self) -> str:
        """`decoding` where each sequence has one token, else `prompt`."""
        return "decoding" if self.logits == self.tokens else "prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """One GPU's part of a model."""

    architecture: str
    """As `architectures` of its configuration."""
    tp: int
    """GPUs that share each layer."""
    layers: Mapping[Layer, int]
    """Kind of layer -> how many; in the order of the model."""
    head: Product
    """lm_head."""
    embedding_bytes: float
    """Of the token embedding, where it is not lm_head's. [bytes]"""
    remark: str = ""
    """What makes its costs less certain, as a sentence; mostly empty."""

    @staticmethod
    def of(config: Mapping[str, object], *, tp: int = 1, dtype: str = "bf16") -> LanguageModel:
        """From the fields of a Hugging Face config.json.

        Args:
            config: field -> value.
            tp: GPUs that share each layer (tensor parallelism).
            dtype: of what `quantization_config` does not quantize. Without one, a dtype of 8 bits
                is that of every product that engines quantize; router and lm_head stay in bf16.

        Raises:
            InputError: an unknown architecture or quantization, a field that is absent or wrong, or
                a size that `tp` does not divide.
        """
        _check_whole("tp", tp)
        fields = text_fields(config)
        architecture = architecture_of(fields)
        fields = with_defaults(architecture, fields)
        quantization = quantization_of(fields, dtype)
        layers = layers_of(architecture, fields, tp)
        quantized = [quantization.layer(i, layer, tp) for i, layer in enumerate(layers)]
        head = quantization.plain_product(_lm_head(fields, tp))
        is_tied = fields.flag("tie_word_embeddings", default=False)
        return LanguageModel(
            architecture=architecture,
            tp=tp,
            layers=Counter(quantized),
            head=head,
            embedding_bytes=0.0 if is_tied else head.weight_bytes,
            remark=quantization.remark,
        )

    @property
    def weight_bytes(self) -> float:
        """Memory of one GPU's weights. [bytes]"""
        total = self.head.weight_bytes + self.embedding_bytes
        for layer, count in self.layers.items():
            total += count * sum(product.weight_bytes for product in layer.products)
        return total

    def layer_gemms(self, layer: Layer, step: Step) -> list[ListedGemm]:
        """The GEMMs of one layer, each with the number of launches."""
        return summed(_launches(layer, step))

    def gemms(self, step: Step) -> list[ListedGemm]:
        """The GEMMs of one forward pass, each with the number of launches."""
        return summed(self.launches(step))

    def launches(self, step: Step) -> Iterator[ListedGemm]:
        """The products of one forward pass, also where two of them are the same GEMM."""
        for layer, count in self.layers.items():
            for one in _launches(layer, step):
                yield replace(one, weight=count * one.weight)
        yield self.head.listed(step.logits)


def _launches(layer: Layer, step: Step) -> Iterator[ListedGemm]:
    for product in layer.products:
        if product.phase in ("", step.phase):
            yield product.listed(step.tokens)


def gemms_of(
    config: Mapping[str, object],
    *,
    tokens: int | Sequence[int],
    tp: int = 1,
    dtype: str = "bf16",
    sequences: int | None = None,
) -> list[ListedGemm]:
    """The GEMMs of forward passes on one GPU: the weight of each is its number of launches.

    Attention itself, norms and communication are no GEMMs of this list. What vLLM fuses is one GEMM
    (docs/language-models.md). The lists of several numbers of tokens are summed.

    Args:
        config: fields of a Hugging Face config.json (`read_config`).
        tokens: rows of a forward pass; several numbers are that many passes.
        tp: GPUs that share each layer (tensor parallelism).
        dtype: of what `quantization_config` does not quantize.
        sequences: sequences that the tokens belong to. None: each token is a sequence's next one,
            as while decoding. Fewer sequences than tokens are prompts: lm_head has a row for each.

    Raises:
        InputError: what LanguageModel.of raises, or numbers below 1.
    """
    model = LanguageModel.of(config, tp=tp, dtype=dtype)
    numbers = [tokens] if isinstance(tokens, int) else list(tokens)
    if not numbers:
        raise InputError("tokens", tokens, "is empty", "give a number of tokens")
    listed: list[ListedGemm] = []
    for number in numbers:
        listed += model.launches(Step(number, sequences))
    return summed(listed)


def _lm_head(fields: Fields, tp: int) -> Product:
    vocabulary = fields.whole("vocab_size")
    return lm_head(Ranks(tp), hidden=fields.whole("hidden_size"), vocabulary=vocabulary)


def _check_whole(field: str, value: object) -> None:
    # `type` and not `isinstance`: True is an int, too.
    if type(value) is not int or value < 1:
        raise InputError(field, value, "must be a whole number, 1 or more", "correct it")
