"""Model versions: publish, load, export; what `Lineage` does with versions.

Knows nothing of training, of gates, or of agents.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gemmcast.card import ModelCard
from gemmcast.errors import InputError
from gemmcast.modeldir import ShippedModel, write_atomically
from registry import artifact
from registry.backend import open_backend
from registry.lineage import Lineage, Versions
from registry.records import VersionRecord
from registry.signatures import SIGNATURE_TAG, Files, Signatures
from registry.versions import CHALLENGER, CHAMPION, SHA256_TAG, Version
from signing.statement import CARD_FILE, MODEL_FILE

__all__ = ["CHALLENGER", "CHAMPION", "PublishedModel", "Registry", "Version", "Versions"]


class PublishedModel(NamedTuple):
    """A version with its content."""

    model: bytes
    """The .onnx file."""
    card: ModelCard
    """What the model is."""
    version: Version
    """Which version it is."""


class Registry(Lineage):
    """The versions of the model in a directory, or on an MLflow tracking server.

    It is opened at the first call and created by the first `publish`. Before that, `champion` and
    `champion_number` return None and any other call raises InputError. Many processes may use one
    directory at once.

    Args:
        uri: a directory, or the http(s):// URI of a tracking server.
        signatures: which keys sign and check; None: those of the environment, if it names any.
    """

    def __init__(self, uri: str | Path, signatures: Signatures | None = None) -> None:
        super().__init__(open_backend(uri), signatures)

    def publish(self, model: bytes, card: ModelCard) -> Version:
        """Add a version without an alias.

        Raises:
            ModelFileError: the model is not a gemmcast model; nothing is written.
        """
        packed = artifact.pack(model, card)
        return self._add(packed.files, packed.tags)

    def check(self) -> None:
        """Before a model is trained: raise GemmcastError if it could not be published."""
        self._signatures.load()
        self._backend.check()

    def load(self, ref: str) -> PublishedModel:
        """A version with its content. Raises ModelFileError when that is damaged or foreign."""
        record, version = self._found(ref)
        files = self._whole(record)
        card = ModelCard.from_json(files[CARD_FILE].decode())
        return PublishedModel(files[MODEL_FILE], card, version)

    def ship(self, ref: str) -> ShippedModel:
        """A champion for the nodes.

        Raises:
            ModelFileError: it is damaged or foreign; or a key is set, and it is not signed as a
                champion.
        """
        record, _ = self._found(ref)
        files = self._checked(record, "champion")
        signature = record.tags.get(SIGNATURE_TAG)
        return ShippedModel(data=files[MODEL_FILE], card=files[CARD_FILE], signature=signature)

    def export(self, ref: str, path: str | Path) -> Version:
        """Write a version's .onnx file, whole or not at all."""
        published = self.load(ref)
        try:
            write_atomically(Path(path), published.model)
        except OSError as error:
            rule = f"can't be written ({error.strerror})"
            way_out = "name a file in a directory that you may write"
            raise InputError("path", str(path), rule, way_out) from None
        return published.version

    def _whole(self, record: VersionRecord) -> Files:
        model = self._backend.read(record, MODEL_FILE)
        card = self._backend.read(record, CARD_FILE)
        artifact.unpack(model, card, record.tags[SHA256_TAG], self._source(record))
        return {MODEL_FILE: model, CARD_FILE: card}
