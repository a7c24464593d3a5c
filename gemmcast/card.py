"""What a model version is: its data, split, errors beside the baselines, contract and hash.

The card is a JSON file beside the model. Scores always nest target -> method -> metric; percentages
are numbers (3.1 is 3.1 %). A score that the data cannot give has no entry. docs/card.md is made
from the docstrings under the fields. Does not know how a score is computed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gemmcast.errors import ModelFileError
from gemmcast.renames import CARD_FIELDS, RANKING_METHODS, renamed

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""target -> method -> metric -> value"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One model version."""

    created_at: str
    """Time of training: UTC, ISO 8601."""
    program_version: str
    """Version of gemmcast that trained it."""
    contract: int
    """Version of the ONNX contract ([onnx.md](onnx.md))."""
    targets: tuple[str, ...]
    """Values that the model predicts, in the order of the file's outputs."""
    rows: int
    """Rows with status ok, training and test."""
    rows_by_device: Mapping[str, int]
    """The same by type of device."""
    store_version: int | None
    """Version of the sample store; null for a table that is no store."""
    split: str
    """How training and test rows were parted, in words."""
    holdout: float
    """Share of the shapes that no version is trained on. [0..1]"""
    train_rows: int
    """Training rows."""
    test_rows: int
    """Test rows."""
    train_shapes: int
    """Shapes of the training rows."""
    test_shapes: int
    """Shapes of the test rows; no training row has one of them."""
    scope: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the training rows hold: type of device, kernel family, then what that was measured with
    (below)."""
    datasets: Mapping[str, str] = field(default_factory=dict)
    """Files of samples that the shipped model was made from -> their SHA-256; of other models
    empty."""
    base: str = ""
    """Name and SHA-256 of the model that this one starts from; empty where it started from nothing.
    The version that a run publishes first is the base itself."""
    exam: Mapping[str, Any] = field(default_factory=dict)
    """Errors on a locked table (`coordinator train --exam FILE`), in the layout of an entry of
    `generalisation`; empty where none was given. [%]"""
    scores: Scores = field(default_factory=dict)
    """Errors on the test rows: target, method, then `mape`, `median_ape`, `p90_ape`,
    `bias`, `r2` and `rows`; the model's also `within` and `width` of its intervals. [%]"""
    scores_by_family: Mapping[str, Scores] = field(default_factory=dict)
    """The same test rows by kernel family. [%]"""
    scores_by_dtype: Mapping[str, Scores] = field(default_factory=dict)
    """The same test rows by dtype. [%]"""
    scores_by_size: Mapping[str, Scores] = field(default_factory=dict)
    """The same test rows by decade of flops: `1e09` is 1e9 to just below 1e10. [%]"""
    scores_by_kind: Mapping[str, Scores] = field(default_factory=dict)
    """The same test rows by kind of kernel: the family; of cuBLASLt the algorithms on its
    heuristic's list, and those beyond it. [%]"""
    ranking: Scores = field(default_factory=dict)
    """Whether configurations come in the right order (below)."""
    generalisation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Errors on new layers, algorithms, kernels, devices and boards (below); empty for a model that
    starts from a base. [%]"""
    repeatability: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """How much repeated measurements of one cell differ (below). [%]"""
    coverage: Mapping[str, float] = field(default_factory=dict)
    """Target -> share of the test rows within the 90 % interval. No test row was used for the
    intervals. [%]"""
    tree_weight: Mapping[str, float] = field(default_factory=dict)
    """Weight of the trees in each predicted logarithm: 0 networks alone, 1 trees alone. [0..1]"""
    parity_max_rel: float | None = None
    """Largest relative difference between ONNX Runtime and scikit-learn, over every row; of the
    ends of intervals a tenth of it."""
    latency_p50_us: float | None = None
    """Median time of one query through ONNX Runtime, one thread, on the training machine. [us]"""
    sklearn_latency_p50_us: float | None = None
    """The same query through scikit-learn, in the same run. [us]"""
    sha256: str = ""
    """SHA-256 of the `.onnx` file."""

    @property
    def is_base(self) -> bool:
        """Whether this version is a base as it is."""
        return bool(self.base) and self.sha256[:12] in self.base

    def to_json(self) -> str:
        """Indented JSON, with the fields by name."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ModelCard:
        """The inverse of `to_json`, also of cards written before contract 3.

        Raises:
            ModelFileError: the text is something else.
        """
        try:
            values = renamed(json.loads(text), CARD_FIELDS)
            for target, methods in values.get("ranking", {}).items():
                values["ranking"][target] = renamed(methods, RANKING_METHODS)
            names = {field.name for field in fields(ModelCard)}
            card = {name: value for name, value in values.items() if name in names}
            return ModelCard(**{**card, "targets": tuple(card["targets"])})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            rule = f"not a model card ({error})"
            raise ModelFileError("card", text, rule, "publish the model again") from None
