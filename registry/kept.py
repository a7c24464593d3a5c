"""Models that a registry refused, in files until it takes them.

    DIR/model-<sha12>.onnx    the model
    DIR/model-<sha12>.json    its card, the gate's verdict, and the champion it was compared with

`python -m registry publish FILE` publishes one and removes both files. The gate's verdict holds for
the champion of that time: beside another one, the model becomes challenger. Knows no MLflow.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from gemmcast.card import ModelCard
from gemmcast.errors import InputError
from gemmcast.modeldir import sha256, write_atomically
from registry.registry import Registry, Version

COMMAND = "python -m registry publish"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    """What is kept beside the model."""

    card: str
    """The card as JSON."""
    objection: str | None
    """What the gate has against the model as champion."""
    champion: str | None
    """SHA-256 of the champion that the gate compared it with; None where there was none."""


class PublishedLater(NamedTuple):
    """What became of a kept model."""

    version: Version
    """The version that it is now."""
    objection: str | None
    """Why it is not champion."""


def keep(
    folder: Path, model: bytes, card: ModelCard, objection: str | None, champion: bytes | None
) -> Path:
    """Keep a model that the registry refused; returns its file.

    Args:
        objection: of the gate.
        champion: the file of the champion that the gate compared it with.
    """
    path = folder / f"model-{sha256(model)[:12]}.onnx"
    compared = None if champion is None else sha256(champion)
    note = _Note(card=card.to_json(), objection=objection, champion=compared)
    write_atomically(path.with_suffix(".json"), json.dumps(asdict(note)).encode())
    write_atomically(path, model)
    return path


def publish_kept(registry: Registry, path: Path) -> PublishedLater:
    """Publish a kept model as champion or, where the gate's verdict no longer holds, challenger.

    Raises:
        InputError: there is no kept model at the path.
        GemmcastError: the registry refuses it again; its files stay.
    """
    model, note = _read(path)
    champion = registry.champion()
    objection = note.objection
    if objection is None and (champion.sha256 if champion else None) != note.champion:
        objection = "the champion is not the one that it was compared with"
    objection = objection or registry.objection
    version = registry.publish(model, ModelCard.from_json(note.card))
    if objection is None:
        version = registry.promote(version.number)
    else:
        version = registry.challenge(version.number)
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    return PublishedLater(version, objection)


def _read(path: Path) -> tuple[bytes, _Note]:
    way_out = "name the model-....onnx that a training kept"
    try:
        model = path.read_bytes()
        note = _Note(**json.loads(path.with_suffix(".json").read_text()))
    except OSError as error:
        raise InputError("FILE", str(path), str(error.strerror), way_out) from None
    except (ValueError, TypeError, RecursionError):
        rule = "the .json beside it is not what a training kept"
        raise InputError("FILE", str(path), rule, way_out) from None
    return model, note
