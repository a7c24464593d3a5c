"""What the security tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.samples.store import SampleStore


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return SampleStore.open(tmp_path / "samples", create=True)
