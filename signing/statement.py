"""What a signature says of a version, besides the hashes of its files.

    {"lineage": "gemmcast", "version": "7", "role": "champion", "signed_at": "2026-11-29T08:..."}

It is signed as one more file of the version, named `version.json`. So no version can pose as
another one, none that was never promoted as a champion, and a node can tell the older of two
signatures. Does not know keys.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Literal, cast

MODELS: Final = "gemmcast"
"""The lineage of models; each line of tuned tables has one of its own."""
MODEL_FILE: Final = "model.onnx"
CARD_FILE: Final = "card.json"
TABLE_FILE: Final = "table.json"
STATEMENT_FILE: Final = "version.json"
Role = Literal["candidate", "champion"]
ROLES: Final = ("candidate", "champion")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Which version of what was signed, as what, and when."""

    lineage: str
    """The registered model in the registry."""
    version: str
    """The version's number."""
    role: Role
    """`candidate`: it was published; `champion`: it was promoted, or rolled back to."""
    signed_at: str
    """UTC, ISO 8601; of the champions of a lineage each is later than the one before."""

    @property
    def moment(self) -> datetime:
        """When it was signed."""
        return datetime.fromisoformat(self.signed_at)

    def text(self) -> str:
        """For people: as what, and when."""
        return f"as {self.role} at {self.signed_at[:19]}"

    def to_json(self) -> str:
        """The text that is signed."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Statement:
        """The inverse of `to_json`. Raises ValueError for another text."""
        values = json.loads(text)
        if not isinstance(values, dict) or set(values) != set(Statement.__dataclass_fields__):
            raise ValueError("not the statement of a signature")
        if not all(isinstance(value, str) for value in values.values()):
            raise ValueError("a statement has texts only")
        if values["role"] not in ROLES:
            raise ValueError(f"unknown role {values['role']!r}")
        statement = Statement(**cast("dict[str, Role]", values))
        if statement.moment.tzinfo is None:
            raise ValueError(f"{statement.signed_at!r} has no time zone")
        return statement
