"""What the tests of signatures share: small content, and two key files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gemmcast.modeldir import ShippedModel
from signing.keys import PublicKeys

MODEL = bytes(range(256)) * 32
CARD = json.dumps({"scores": [1.5, 2.5, 3.5], "rows": 4683}).encode()
CHANGES = 1000
Sign = Callable[..., ShippedModel]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two key files."""

    private: Path
    public: Path

    @property
    def trusted(self) -> PublicKeys:
        return PublicKeys.read(self.public)


def changed(data: bytes, draw: random.Random) -> bytes:
    """One byte is another one."""
    at = draw.randrange(len(data))
    return data[:at] + bytes([(data[at] + draw.randrange(1, 256)) % 256]) + data[at + 1 :]
