"""Reading a Hugging Face config.json: the file, its fields with their rules, numbers of tokens.

A field that is null counts as absent, as it does for transformers. Knows no architecture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gemmcast.errors import InputError
from gemmcast.gemm import MAX_DIM

_MAX_DIGITS: Final = 8
_MAX_LAYERS: Final = 10_000
FILE_NAME: Final = "config.json"
_WAY_OUT: Final = "use the config.json that comes with the weights"


class Fields:
    """The fields of one configuration.

    Args:
        values: field -> value, as in the file.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values = {name: value for name, value in values.items() if value is not None}

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number above 0.

        Raises:
            InputError: it is something else, or absent without a default.
        """
        return self._number(name, default, least=1)

    def layers(self) -> int:
        """`num_hidden_layers`, whose limit keeps a slip from becoming a list of gigabytes."""
        return self._number("num_hidden_layers", None, least=1, most=_MAX_LAYERS)

    def count(self, name: str) -> int:
        """A whole number; 0 where the field is absent."""
        return self._number(name, 0, least=0)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise InputError(name, value, "must be true or false", _WAY_OUT)
        return value

    def whole_list(self, name: str) -> Sequence[int]:
        """A list of whole numbers; empty where the field is absent."""
        value = self.values.get(name, [])
        if not isinstance(value, list) or any(type(item) is not int for item in value):
            raise InputError(name, value, "must be a list of whole numbers", _WAY_OUT)
        return value

    def _number(self, name: str, default: int | None, least: int, most: int = MAX_DIM) -> int:
        value = self.values.get(name, default)
        if value is None:
            raise InputError(name, None, "is not in the configuration", _WAY_OUT)
        # True is an int, too.
        if type(value) is not int or not least <= value <= most:
            rule = f"must be a whole number from {least} to {most}"
            raise InputError(name, value, rule, _WAY_OUT)
        return value


def read_config(path: Path | str) -> Mapping[str, object]:
    """The fields of a config.json, or of the one in a folder.

    Raises:
        InputError: it can't be read, or is no JSON object.
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    way_out = "name a Hugging Face config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        rule = f"can't be read ({error.strerror})"
        raise InputError("config", str(file), rule, way_out) from None
    # Broken UTF-8 is a ValueError, too.
    except (ValueError, RecursionError) as error:
        raise InputError("config", str(file), f"no JSON ({error})", way_out) from None
    if not isinstance(config, dict):
        raise InputError("config", str(file), "no JSON object", way_out)
    return config


def whole_numbers(option: str, text: str) -> list[int]:
    """The numbers of an option such as `1,16,256`, each once.

    Raises:
        InputError: another text.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not word.isdecimal() or len(word) > _MAX_DIGITS:
            rule = f"must be whole numbers of at most {_MAX_DIGITS} digits"
            raise InputError(option, text, rule, "write them as 1,16,256")
    return list(dict.fromkeys(map(int, words)))
