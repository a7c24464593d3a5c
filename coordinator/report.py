"""One self-contained HTML file: what was measured, how good the model is, where it errs. Pictures are inside the file.

Unseen means held out from training, or measured after the model was made.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from jinja2 import Environment

from coordinator.dataset import Dataset, dataset, held_out
from coordinator.scores import table as score_rows
from coordinator.train import open_session
from gemmcast.card import ModelCard
from gemmcast.modeldir import write_atomically
from gemmcast.question import INPUT
from registry.store import Version

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

UNITS = {"runtime_us": "µs", "sustained_runtime_us": "µs", "power_w": "W", "energy_mj": "mJ", "tflops": "TFLOP/s"}
WORDS = {"runtime_us": "runtime", "sustained_runtime_us": "sustained runtime", "power_w": "power", "energy_mj": "energy", "tflops": "throughput"}
TEMPLATE = """{% macro cells(row) %}
{%- for value in row %}<td{% if loop.index == 2 %} class="l"{% endif %}>{{ value }}</td>{% endfor -%}
{% endmacro %}<!doctype html><html lang="en"><head><meta charset="utf-8"><title>gemmcast report</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #dde3ea }
th:first-child, td:first-child, td.l, th.l { text-align: left } tr.model { font-weight: 600; background: #eef5ff }
img { max-width: 100%; height: auto } h1, h2 { line-height: 1.2 } p.small, td.small { color: #5b6b7b; font-size: 13px }
</style></head><body>
<h1>gemmcast report</h1><p class="small">{{ made }}</p>
<h2>What was measured</h2>
<table><tr><th>device</th><th>family</th><th>rows ok</th><th>shapes</th><th>with power</th></tr>
{% for row in measured %}<tr>{{ cells(row) }}</tr>
{% endfor %}</table>
<p>{{ failed }}</p>
{% if card %}
<h2>Model version {{ version.number }}</h2>
<p>Trained on {{ card.train_rows }} rows of {{ card.train_shapes }} shapes, tested on {{ card.test_rows }} rows of {{ card.test_shapes }} shapes
that it never saw ({{ card.split }}). One question: {{ "%.0f"|format(card.single_p50_us) }} µs through ONNX Runtime,
{{ "%.0f"|format(card.sklearn_single_p50_us) }} µs through scikit-learn; they agree within {{ "%.1e"|format(card.parity_max_rel) }}.</p>
<table><tr><th>target</th><th class="l">method</th><th>median %</th><th>mean %</th><th>p90 %</th><th>R²</th><th>rows</th></tr>
{% for row in scores %}<tr{% if row[1] == "model" %} class="model"{% endif %}>{{ cells(row) }}</tr>
{% endfor %}</table>
{% for title, picture in pictures %}<h2>{{ title }}</h2><img alt="{{ title }}" src="data:image/png;base64,{{ picture }}">
{% endfor %}
<p class="small">SHA-256 {{ card.sha256 }} · contract {{ card.contract }} · gemmcast {{ card.program_version }}</p>
{% else %}<p>No model yet.</p>{% endif %}</body></html>
"""


@dataclass(frozen=True)
class _Seen:
    """Unseen rows with what the champion says of them."""

    data: Dataset
    predicted: dict[str, npt.NDArray[np.float64]]


def write_report(path: Path, table: pa.Table, champion: tuple[bytes, ModelCard, Version] | None) -> None:
    """Args: table of samples; the champion's model, card and version, if there is one."""
    usable = dataset(table)
    values: dict[str, Any] = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "measured": _measured(usable),
        "failed": _failed(table),
        "card": None,
    }
    if champion:
        model, card, version = champion
        seen = _unseen(usable, model, card)
        pictures = [(title, _png(figure)) for title, figure in _figures(seen)]
        values |= {"card": card, "version": version, "scores": score_rows(dict(card.scores)), "pictures": pictures}
    html = Environment(autoescape=True).from_string(TEMPLATE).render(values)
    write_atomically(path, html.encode())


def _measured(data: Dataset) -> list[tuple[Any, ...]]:
    groups = list(zip(data.column("device"), data.column("family"), strict=True))
    power = ~np.isnan(data.measured["power_w"])
    rows = []
    for group in sorted(set(groups)):
        here = np.array([other == group for other in groups])
        rows.append((*group, int(here.sum()), len(set(data.shapes[here])), int(power[here].sum()) or "none"))
    return rows


def _failed(table: pa.Table) -> str:
    counts = Counter(status for status in table["status"].to_pylist() if status != "ok")
    return "Rows that failed: " + (", ".join(f"{count} {status}" for status, count in counts.most_common()) or "none") + "."


def _unseen(data: Dataset, model: bytes, card: ModelCard) -> _Seen:
    later = np.array([moment > card.created_at for moment in data.table["measured_at"].to_pylist()], dtype=bool)
    chosen = data.take(held_out(data.shapes, card.holdout) | later)
    session = open_session(model)
    names = list(card.targets)
    answers = session.run(names, {INPUT: chosen.questions})
    return _Seen(chosen, {name: np.asarray(values, dtype=np.float64) for name, values in zip(names, answers, strict=True)})


def _figures(seen: _Seen) -> list[tuple[str, Figure]]:
    figures = []
    for target, predicted in seen.predicted.items():
        known = ~np.isnan(seen.data.measured[target])
        if known.any():
            families = seen.data.column("family")[known]
            figures.append(
                (
                    f"Predicted and measured {WORDS[target]}, shapes never seen",
                    _against(seen.data.measured[target][known], predicted[known], families, target),
                )
            )
    if len(seen.data):
        figures.append(("Error of runtime by size, shapes never seen", _by_size(seen)))
    return figures


def _against(measured: Any, predicted: Any, families: Any, target: str) -> Figure:
    figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
    for family in sorted(set(families)):
        axes.scatter(measured[families == family], predicted[families == family], s=14, alpha=0.6, label=family, edgecolors="none")
    low, high = min(measured.min(), predicted.min()) * 0.8, max(measured.max(), predicted.max()) * 1.25
    axes.plot([low, high], [low, high], color="#5b6b7b", linewidth=1)
    axes.fill_between([low, high], [0.9 * low, 0.9 * high], [1.1 * low, 1.1 * high], color="#5b6b7b", alpha=0.12, label="within 10 %")
    axes.set(
        xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), xlabel=f"measured, {UNITS[target]}", ylabel=f"predicted, {UNITS[target]}"
    )
    axes.legend(frameon=False)
    return figure


def _by_size(seen: _Seen) -> Figure:
    runtime_us = seen.data.measured["runtime_us"]
    gflop = runtime_us * seen.data.measured["tflops"] * 1e-3
    error = 100 * (seen.predicted["runtime_us"] / runtime_us - 1)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    families = seen.data.column("family")
    for family in sorted(set(families)):
        axes.scatter(gflop[families == family], error[families == family], s=14, alpha=0.6, label=family, edgecolors="none")
    axes.axhline(0, color="#5b6b7b", linewidth=1)
    axes.set(xscale="log", xlabel="size of the GEMM, GFLOP", ylabel="error of predicted runtime, %")
    axes.legend(frameon=False)
    return figure


def _png(figure: Figure) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    plt.close(figure)
    return base64.b64encode(data.getvalue()).decode()
