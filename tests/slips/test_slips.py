"""A first user's hour: every slip ends with one line, the right exit code, and nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from list_of_slips import SLIPS
from slip import Slip, run, tree

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # inside MLflow 3.17 with SQLAlchemy 2.1


@pytest.mark.parametrize("slip", SLIPS, ids=[slip.name for slip in SLIPS])
def test_a_slip_ends_with_one_line_and_changes_nothing(
    slip: Slip, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slip.prepare(place)
    for name, value in slip.environment.items():
        monkeypatch.setenv(name, value)
    before = tree(place)
    code, out, err = run(slip.command.split())
    assert (code, out) == (slip.code, ""), err
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert slip.says in line
    assert "Traceback" not in line
    assert tree(place) == before


def test_the_list_is_long_enough() -> None:
    assert len(SLIPS) >= 60
    assert len({slip.command for slip in SLIPS}) > 100
