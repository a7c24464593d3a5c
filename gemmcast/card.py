"""What a model version is: its data, its split, its errors beside the baselines, its contract, its hash.

The card travels as JSON beside the model and, without the score tables, inside the ONNX file's metadata.
Scores always nest target -> method -> metric; percentages are numbers (3.1 is 3.1 %). What could not be asked of the data has no entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gemmcast.errors import ModelFileError
from gemmcast.renames import CARD_FIELDS, renamed

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One model version."""

    created_at: str
    # UTC, ISO 8601
    program_version: str
    contract: int
    # version of the ONNX contract, docs/onnx.md
    targets: tuple[str, ...]
    # the graph's outputs, in order
    rows: int
    # rows with status ok, training and test
    rows_by_device: Mapping[str, int]
    store_version: int | None
    # Delta version of the sample store
    split: str
    # how training and test were parted
    holdout: float
    # share of the shapes that are never trained on
    train_rows: int
    test_rows: int
    train_shapes: int
    test_shapes: int
    scores: Scores = field(default_factory=dict)
    # on the test rows: target -> method -> mape, median_ape, p90_ape, r2, rows
    scores_by_family: Mapping[str, Scores] = field(default_factory=dict)
    scores_by_dtype: Mapping[str, Scores] = field(default_factory=dict)
    scores_by_size: Mapping[str, Scores] = field(default_factory=dict)
    # the same rows by decade of flops: "1e09" is 1e9 to just below 1e10
    ranking: Scores = field(default_factory=dict)
    # on the test rows, of problems with 8 or more configurations: target -> method -> groups, and tau, regret, regret_8 with _mean and _median
    generalisation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # beyond shapes, by a stand-in of one network: layer, member, "device X", "device X + 50 samples" -> split, train_rows, test_rows, scores
    repeatability: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    # reading -> median, p90, max difference of two measurements of one cell, and cells: the pairs; runtime_rse: within a measurement
    coverage: Mapping[str, float] = field(default_factory=dict)
    # target -> per cent of the test rows within the interval, which was calibrated on the other half of the test shapes
    tree_weight: Mapping[str, float] = field(default_factory=dict)
    # of each fitted logarithm: 0 where the networks answer alone, 1 where the trees do
    parity_max_rel: float | None = None
    # largest relative difference between ONNX Runtime and scikit-learn, over every row
    latency_p50_us: float | None = None
    # latency of one question through ONNX Runtime, one thread, where it was trained
    sklearn_latency_p50_us: float | None = None
    # of the same model through scikit-learn, in the same run
    sha256: str = ""
    # of the .onnx file

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ModelCard:
        try:
            values: dict[str, Any] = json.loads(text)
            values = renamed(values, CARD_FIELDS)
            known = {f.name for f in fields(ModelCard)}
            card = {name: value for name, value in values.items() if name in known}
            return ModelCard(**{**card, "targets": tuple(card["targets"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelFileError("card", text, f"not a model card ({error})", "publish the model again") from None
