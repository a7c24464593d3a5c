"""The models that come with gemmcast: NAME.onnx, and the card of each, NAME.json.

`python -m costmodel.shipped` makes them from datasets/. `Predictor()` without a path uses the
default one. Does not know how a model is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gemmcast.card import ModelCard
from gemmcast.errors import InputError

DEFAULT: Final = "default"
FOLDER: Final = Path(__file__).parent


def names() -> list[str]:
    """The names of the models, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.onnx"))


def path(name: str = DEFAULT) -> Path:
    """The file of a model. Raises InputError where there is none of that name."""
    if name not in names():
        listed = ", ".join(names()) or "none"
        way_out = f"use one of: {listed}; or name an .onnx file"
        raise InputError("model", name, "does not come with gemmcast", way_out)
    return FOLDER / f"{name}.onnx"


def card(name: str = DEFAULT) -> ModelCard:
    """The card of a model: its data, errors and hash.

    Raises:
        InputError: there is no model of that name, or its card is damaged.
    """
    text = path(name).with_suffix(".json").read_text(encoding="utf-8", errors="replace")
    return ModelCard.from_json(text)
