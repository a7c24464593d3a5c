"""docs/security.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ATTACKS = (
    "no token",
    "wrong token",
    "altered model",
    "altered card",
    "oversized",
    "malformed batch",
    "path escape",
    "symlinked workspace",
    "hostile ONNX",
    "hostile Parquet",
)


def test_each_attack_has_tests_and_each_test_is_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    defined = set()
    for path in (ROOT / "tests" / "security").glob("test_*.py"):
        defined |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    rows = [line for line in page.splitlines() if line.startswith("|") and "test" in line]
    for attack in ATTACKS:
        assert any(attack in row.split("|")[1] for row in rows), attack
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 20
    assert named - defined == set()
