"""What a version is made of: `model.onnx`, `card.json`, and tags that say what both must be.

A file is ours when it is ONNX with the metadata "gemmcast.contract", and sound when its SHA-256 is the one in the tags and on the card.
Whether the model is any good was the gate's question, before it came here. Knows nothing of MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gemmcast.card import ModelCard
from gemmcast.errors import ModelFileError
from gemmcast.modeldir import sha256

MODEL, CARD = "model.onnx", "card.json"
SHA256_TAG = "gemmcast.sha256"
METADATA = "gemmcast.contract"
ELSEWHERE = "promote another version, or publish the model again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A version as it is written."""

    card: ModelCard
    # with the model's hash
    files: Mapping[str, bytes]
    tags: Mapping[str, str]


def pack(model: bytes, card: ModelCard) -> Packed:
    """Raises ModelFileError when the model is not a gemmcast model, or not the card's."""
    contract = contract_of(model, "the model to publish", "publish what the trainer exports")
    if contract != str(card.contract):
        raise ModelFileError("contract", contract, f"the card says {card.contract}", "publish a model with its own card")
    card = replace(card, sha256=sha256(model))
    said = {"contract": contract, "program_version": card.program_version, "rows": str(card.rows), "store_version": str(card.store_version)}
    tags = {f"gemmcast.{name}": value for name, value in said.items()}
    return Packed(card=card, files={MODEL: model, CARD: card.to_json().encode()}, tags={**tags, SHA256_TAG: card.sha256})


def unpack(model: bytes, card_json: bytes, digest: str, source: str) -> ModelCard:
    """The card of a version that is sound and ours. Raises ModelFileError with what is wrong.

    Args:
        digest: the SHA-256 that the version's tags promise.
        source: which version, in which registry; for the message.
    """
    if (found := sha256(model)) != digest:
        raise ModelFileError("model", source, f"damaged: {len(model)} bytes with SHA-256 {found[:12]}, published with {digest[:12]}", ELSEWHERE)
    contract_of(model, source, ELSEWHERE)
    card = ModelCard.from_json(card_json.decode(errors="replace"))
    if card.sha256 != digest:
        raise ModelFileError("card", source, f"belongs to another model (SHA-256 {card.sha256[:12]}, not {digest[:12]})", ELSEWHERE)
    return card


def contract_of(model: bytes, source: str, way_out: str) -> str:
    """The contract that an ONNX file of ours speaks. Raises ModelFileError on any other bytes."""
    import onnx

    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:  # noqa: BLE001  protobuf's DecodeError, which its package doesn't type
        raise ModelFileError("model", source, f"not an ONNX file ({error})", way_out) from None
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA not in metadata:
        raise ModelFileError("model", source, f"not a gemmcast model (no {METADATA} in its metadata)", way_out)
    return str(metadata[METADATA])
