"""examples/ask.ipynb runs, cell after cell, without Jupyter."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "ask.ipynb"


def test_every_cell_runs_and_one_draws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = []
    mpl.use("Agg")
    monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gcf().axes))
    names: dict[str, object] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    plt.close("all")
    assert [axis.get_ylabel() for axis in drawn[0]] == ["runtime [us]", "energy of a token [mJ]"]
    assert "candidates" in capsys.readouterr().out
