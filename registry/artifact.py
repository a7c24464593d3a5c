"""The content of a version: `model.onnx`, `card.json`, and tags that name the hash of the model.

A model is accepted if it is ONNX with the metadata "gemmcast.contract". It is whole if its SHA-256
is the one in the tags and on the card. Whether a model is good enough is the gate's decision, made
before. Knows nothing of MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gemmcast.card import ModelCard
from gemmcast.errors import ModelFileError
from gemmcast.modeldir import sha256
from registry.versions import ROWS_TAG, SHA256_TAG
from signing.statement import CARD_FILE, MODEL_FILE

CONTRACT_KEY = "gemmcast.contract"
PROMOTE_ANOTHER = "promote another version, or publish the model again"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedVersion:
    """A version as it is written."""

    card: ModelCard
    """The card, with the hash of the model."""
    files: Mapping[str, bytes]
    """File name -> content."""
    tags: Mapping[str, str]
    """Tags of the version: its hash, and what a list of versions shows."""


def pack(model: bytes, card: ModelCard) -> PackedVersion:
    """Raises ModelFileError if the model is not a gemmcast model, or not the card's."""
    contract = contract_of(model, "the model to publish", "publish what the trainer exports")
    if contract != str(card.contract):
        rule = f"the card says {card.contract}"
        raise ModelFileError("contract", contract, rule, "publish a model with its own card")
    card = replace(card, sha256=sha256(model))
    tags = {
        CONTRACT_KEY: contract,
        "gemmcast.program_version": card.program_version,
        ROWS_TAG: str(card.rows),
        "gemmcast.store_version": str(card.store_version),
        SHA256_TAG: card.sha256,
    }
    files = {MODEL_FILE: model, CARD_FILE: card.to_json().encode()}
    return PackedVersion(card=card, files=files, tags=tags)


def unpack(model: bytes, card_json: bytes, digest: str, source: str) -> ModelCard:
    """The card of a version that is whole.

    Args:
        model: the bytes of the model file.
        card_json: the bytes of the card file.
        digest: the SHA-256 in the version's tags.
        source: which version, in which registry; for messages.

    Raises:
        ModelFileError: the model or the card is damaged, or they do not belong together.
    """
    actual = sha256(model)
    if actual != digest:
        rule = (
            f"damaged: {len(model)} bytes with SHA-256 {actual[:12]}, published with {digest[:12]}"
        )
        raise ModelFileError("model", source, rule, PROMOTE_ANOTHER)
    contract_of(model, source, PROMOTE_ANOTHER)
    card = ModelCard.from_json(card_json.decode(errors="replace"))
    if card.sha256 != digest:
        rule = f"belongs to another model (SHA-256 {card.sha256[:12]}, not {digest[:12]})"
        raise ModelFileError("card", source, rule, PROMOTE_ANOTHER)
    return card


def contract_of(model: bytes, source: str, way_out: str) -> str:
    """The contract of a gemmcast model. Raises ModelFileError for any other bytes."""
    import onnx

    # protobuf raises a DecodeError of its own, which its package does not type.
    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:  # noqa: BLE001
        rule = f"not an ONNX file ({error})"
        raise ModelFileError("model", source, rule, way_out) from None
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if CONTRACT_KEY not in metadata:
        rule = f"not a gemmcast model (no {CONTRACT_KEY} in its metadata)"
        raise ModelFileError("model", source, rule, way_out)
    return str(metadata[CONTRACT_KEY])
