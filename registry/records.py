"""What MLflow holds of a registered model. Knows no MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """One version as MLflow holds it."""

    number: str
    """"1", "2", ...: in the order of publishing."""
    run_id: str
    """The MLflow run that holds its files."""
    created_ms: int
    """Unix time. [ms]"""
    tags: Mapping[str, str]
    """Tags of the version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryState:
    """What MLflow holds about a registered model itself."""

    aliases: Mapping[str, str]
    """Alias -> number of its version."""
    tags: Mapping[str, str]
    """Tags of the registered model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySnapshot:
    """All that MLflow holds about the registered model, at one moment."""

    records: tuple[VersionRecord, ...]
    """Every version, in no order."""
    aliases: Mapping[str, str]
    """Alias -> number of its version."""
    tags: Mapping[str, str]
    """Tags of the registered model."""
