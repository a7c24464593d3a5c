"""Model versions: publish, load, export; what `Lineage` does with versions.

Knows nothing of training, of gates, or of agents.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gemmcast.card import ModelCard
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically
from registry import artifact
from registry.backend import open_backend
from registry.lineage import CHALLENGER, CHAMPION, SHA256_TAG, Lineage, Version, Versions
from registry.records import VersionRecord

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
    """

    def __init__(self, uri: str | Path) -> None:
        super().__init__(open_backend(uri))

    def publish(self, model: bytes, card: ModelCard) -> Version:
        """Add a version without an alias.

        Raises:
            ModelFileError: the model is not a gemmcast model; nothing is written.
        """
        packed = artifact.pack(model, card)
        return self._added(self._backend.add(packed.files, packed.tags))

    def check(self) -> None:
        """Before a model is trained: raise GemmcastError if it could not be published."""
        self._backend.check()

    def load(self, ref: str) -> PublishedModel:
        """A version with its content. Raises ModelFileError when that is damaged or foreign."""
        record, version = self._found(ref)
        model, card = self._read(record)
        return PublishedModel(model, card, version)

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

    def _check_whole(self, record: VersionRecord) -> None:
        self._read(record)

    def _read(self, record: VersionRecord) -> tuple[bytes, ModelCard]:
        model = self._backend.read(record, artifact.MODEL_FILE)
        card = self._backend.read(record, artifact.CARD_FILE)
        source = f"version {record.number} in {self._backend.shown}"
        return model, artifact.unpack(model, card, record.tags[SHA256_TAG], source)
