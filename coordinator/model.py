"""The multi-output model: an analytical floor, and what networks and trees have learned about what it does not explain.

    runtime_us           = floor_us x exp(runtime)
    sustained_runtime_us = runtime_us x exp(sustained)
    power_w              = power_limit_w x exp(power)
    energy_mj            = power_w x sustained_runtime_us / 1000
    tflops               = flops / (runtime_us x 1e6)

Each logarithm is the networks' (coordinator/network.py, on the terms of coordinator/terms.py), the trees' (histogram boosting on
coordinator/features.py), or something between: whatever was right about a fifth of the shapes, which neither had seen. Trees that
bring nothing are left out of the graph.

Energy and throughput are computed, never fitted, so that the outputs can't contradict each other. A target that was not read in
some rows costs the others nothing. Never shown power, the model has none; never shown a sustained runtime (tables of others have none), it has
neither that nor energy.

Every output has an interval: a factor up and down, wide where the networks are apart, calibrated by family on shapes that were not trained on
(split conformal prediction; Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, JASA 2018, with locally weighted residuals), so that nine of
ten measurements lie within. `extrapolating` is 1 for a question outside of what was seen: there the intervals promise nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor

from coordinator import lean
from coordinator.dataset import Dataset
from coordinator.features import features
from coordinator.network import SIGMAS, Ensemble
from coordinator.terms import TERMS, terms
from gemmcast.question import AT, COVERAGE, FIELDS, OUTPUTS, Rows

Answers = dict[str, npt.NDArray[Any]]
# output -> [n_rows]; low and high [n_rows, n_outputs]
MIN_POWER_ROWS: Final = 40
# fewer teach nothing
MIN_FAMILY_ROWS: Final = 50
# fewer are calibrated together with all others
SELECTION: Final = 0.2
# of the shapes, on which parts are chosen
SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
# of the trees
WORTH: Final = 0.97
# error with trees over error without, from which on they are worth their time in the graph
SPREAD_AT_LEAST: Final = 0.02
MOST_DOUBT: Final = float(np.log(1000))
# a factor of a thousand up and down says as little as more
BOUNDED: Final = ("m", "n", "k", "batch", "workers", "peak_tflops", "dram_gbps", "even_us", "dram_us")
MARGIN: Final = float(np.log(1.5))
# beyond the smallest and the largest seen
OF_OUTPUTS: Final = {
    "runtime_us": ("runtime",), "tflops": ("runtime",), "sustained_runtime_us": ("runtime", "sustained"), "power_w": ("power",),
    "energy_mj": ("runtime", "sustained", "power"),
}  # fmt: skip
OF_TARGET: Final = {"runtime": "runtime_us", "sustained": "sustained_runtime_us", "power": "power_w"}
KEYS: Final = {"dtypes": {"family": 64, "dtype": 1}, "algorithms": {"family": 2**20, "algorithm": 1}}
# categories that a network is told apart: numbers of which each stands for one combination


class CostModel(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn regressor from raw questions to every output, with its interval.

    Args:
        members: networks per target.
        iterations: trees per target.
        leaves: at most, per tree of runtime; half as many for the targets that fewer rows have.
        shares: of the trees in the answer, by target; None to choose them on shapes held out.
    """

    def __init__(
        self, members: int = 3, iterations: int = 150, leaves: int = 31, learning_rate: float = 0.1, min_leaf: int = 5,
        shares: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.members, self.iterations, self.leaves, self.learning_rate, self.min_leaf = members, iterations, leaves, learning_rate, min_leaf
        self.shares = shares

    def fit(self, questions: Rows, measured: Answers) -> Self:
        """Args: questions[n_rows, n_fields]; measured: runtime_us, and the other targets with NaN where they were not read."""
        self._select(questions, measured)
        self._fit_parts(questions, measured, self.members)
        return self

    def fit_dataset(self, data: Dataset) -> Self:
        return self.fit(data.questions, data.measured)

    def calibrate(self, data: Dataset) -> Self:
        """Intervals from shapes that the model has not seen, in place of those from the shapes on which parts were chosen."""
        return self._calibrate(data.questions, data.measured)

    def predict(self, questions: Rows) -> Answers:
        """Every output [n_rows]; `low` and `high` [n_rows, n_outputs]; `extrapolating` [n_rows]."""
        return {name: np.asarray(values) for name, values in self.answer(questions, *self.of_trees(questions)).items()}

    def of_trees(self, questions: Rows) -> tuple[dict[str, Any], Any]:
        """The trees' logarithms by target, each [n_rows, 1], and their floor [n_rows, 1]; both empty where no target takes any."""
        if not self.trees_:
            return {}, None
        floor_us, columns = features(questions)
        return {target: trees.predict(columns)[:, None].astype(np.float32) for target, trees in self.trees_.items()}, floor_us

    def answer(self, question: Any, of_trees: Mapping[str, Any], tree_floor_us: Any) -> dict[str, Any]:
        """Every output from questions [n, n_fields] and what the trees say of them; array-API code, traced into the graph."""
        xp = question.__array_namespace__()
        columns, categories, logs, spreads = self._logs(xp, question, of_trees, tree_floor_us)
        by_family, pooled = self._widths()
        margin = xp.minimum(lean.gemm(xp.asarray(by_family), categories, xp.asarray(pooled)) * spreads, xp.asarray(np.float32(MOST_DOUBT)))
        values = xp.exp(logs)
        named = {name: lean.row(values, i) for i, name in enumerate(self.outputs_)}
        outside = lean.row(self._outside(xp, columns, categories), 0)
        return {**named, "low": xp.exp(logs - margin).T, "high": xp.exp(logs + margin).T, "extrapolating": outside}

    def _logs(self, xp: Any, question: Any, of_trees: Mapping[str, Any], tree_floor_us: Any) -> tuple[Any, Any, Any, Any]:
        """Terms, categories, the logarithms of the answers [n_outputs, n], and how far the networks are apart there [n_outputs, n].

        All outputs are products, so their logarithms are one matrix product of everything that was said.
        """
        columns, categories = terms(question), self._categories(xp, question.T)
        said, spread = self.networks_.answer(xp.concat([columns, categories], axis=0))
        parts, names = [columns, said], [*(f"term {name}" for name in TERMS), *(f"network {name}" for name in self.targets_)]
        for target, log in of_trees.items():
            parts.append(log.T)
            names.append(f"trees {target}")
        if "runtime" in of_trees:
            parts.append(xp.log(tree_floor_us.T))
            names.append("trees floor")
        weights = np.zeros((len(self.outputs_), len(names)), dtype=np.float32)
        scales = np.zeros((len(self.outputs_), 1), dtype=np.float32)
        for i, name in enumerate(self.outputs_):
            powers, scale = self._powers(name, tuple(of_trees))
            scales[i] = np.log(scale)
            for row, power in powers.items():
                weights[i, names.index(row)] = power
        logs = lean.gemm(xp.asarray(weights), xp.concat(parts, axis=0), xp.asarray(scales))
        sigma = 1 / SIGMAS[self.networks_.members]
        of_outputs = np.array([[sigma * (target in OF_OUTPUTS[name]) for target in self.targets_] for name in self.outputs_], dtype=np.float32)
        least = np.full((len(self.outputs_), 1), SPREAD_AT_LEAST, dtype=np.float32)
        return columns, categories, logs, lean.gemm(xp.asarray(of_outputs), spread, xp.asarray(least))

    def _powers(self, output: str, with_trees: Sequence[str]) -> tuple[dict[str, float], float]:
        """An output as a product of powers of what was said, and the constant before it."""
        powers: dict[str, float] = {}

        def multiply(target: str, sign: float = 1.0) -> None:
            share = self.shares_[target] if target in with_trees else 0.0
            factors = {f"network {target}": 1 - share, f"trees {target}": share}
            if target == "runtime":
                factors |= {"term floor_us": 1 - share, "trees floor": share}
            if target == "power":
                factors |= {"term power_limit_w": 1.0}
            for name, power in factors.items():
                if power:
                    powers[name] = powers.get(name, 0.0) + sign * power

        if output == "tflops":
            multiply("runtime", -1.0)
            return powers | {f"term {name}": 1.0 for name in ("m", "n", "k", "batch")}, 2e-6
        for target in OF_OUTPUTS[output]:
            multiply(target)
        return powers, 1e-3 if output == "energy_mj" else 1.0

    def _outside(self, xp: Any, columns: Any, categories: Any) -> Any:
        """[1, n] whether a size or the device is half as large again as any that was seen, or a kind of kernel or number format is new."""
        at = xp.asarray(np.array([TERMS.index(name) for name in BOUNDED]))
        beyond = lean.largest(xp.abs(xp.take(columns, at, axis=0) - xp.asarray(self.middle_)) - xp.asarray(self.reach_), axis=0)
        minus = np.full((1, self.categories_.shape[0]), -1, dtype=np.float32)
        missing = lean.gemm(xp.asarray(minus), categories, xp.asarray(np.full((1, 1), len(KEYS), dtype=np.float32)))
        return xp.maximum(beyond, missing) > xp.asarray(np.float32(0))

    def _categories(self, xp: Any, x: Any) -> Any:
        """[n_categories, n] 1 where the question is of that category."""
        weights = np.zeros((len(self.of_key_), len(FIELDS)), dtype=np.float32)
        for i, key in enumerate(self.of_key_):
            for name, weight in KEYS[key].items():
                weights[i, AT[name]] = weight
        return xp.astype(lean.matmul(xp.asarray(weights), x) == xp.asarray(self.categories_), xp.float32)

    # fitting

    def _select(self, questions: Rows, measured: Answers) -> None:
        """Choose each target's parts on shapes held out, and calibrate on them."""
        shape_of = np.unique(questions[:, :3], axis=0, return_inverse=True)[1].reshape(-1)
        shapes = np.random.default_rng(0).permutation(shape_of.max() + 1)
        tested = np.isin(shape_of, shapes[: max(1, round(SELECTION * len(shapes)))])
        if tested.all():
            tested = np.arange(len(questions)) % 2 == 0
        trained, asked = ({name: values[rows] for name, values in measured.items()} for rows in (~tested, tested))
        self.shares_ = dict.fromkeys(OF_OUTPUTS["energy_mj"], 0.5)
        self._fit_parts(questions[~tested], trained, min(self.members, 2))
        from_trees = self.of_trees(questions[tested])
        shares: dict[str, float] = {}
        for target in self.targets_:
            output, errors = OF_TARGET[target], {}
            for share in SHARES:
                self.shares_ = {**dict.fromkeys(self.targets_, 0.5), **shares, target: share}
                said = np.exp(self._logs(np, questions[tested], *from_trees)[2][self.outputs_.index(output)])
                errors[share] = float(np.nanmean(np.abs(np.log(said / np.where(asked[output] > 0, asked[output], np.nan)))))
            best = min(errors, key=lambda share: errors[share])
            shares[target] = best if errors[best] < WORTH * errors[0.0] else 0.0
        self.shares_ = {**dict.fromkeys(OF_TARGET, 0.5), **shares, **(self.shares or {})}
        self._calibrate(questions[tested], asked)

    def _fit_parts(self, questions: Rows, measured: Answers, members: int) -> None:
        wanted = self._wanted(questions, measured)
        self.targets_ = tuple(wanted)
        has = {"power_w": "power", "sustained_runtime_us": "sustained", "energy_mj": "sustained"}
        self.outputs_ = tuple(name for name in OUTPUTS if name not in has or has[name] in wanted)
        seen = {key: np.unique(sum(weight * questions[:, AT[name]] for name, weight in of.items())) for key, of in KEYS.items()}
        self.of_key_ = [key for key, values in seen.items() for _ in values]
        self.categories_ = np.concatenate(list(seen.values()))[:, None].astype(np.float32)
        columns = terms(questions)
        floor = columns[TERMS.index("floor_us")]
        bounded = columns[[TERMS.index(name) for name in BOUNDED]]
        low, high = bounded.min(axis=1, keepdims=True), bounded.max(axis=1, keepdims=True)
        self.middle_, self.reach_ = (low + high) / 2, (high - low) / 2 + np.float32(MARGIN)
        inputs = np.concatenate([columns, self._categories(np, questions.T)], axis=0)
        beyond_floor = {name: values - floor if name == "runtime" else values for name, values in wanted.items()}
        self.networks_ = Ensemble(self.targets_, members).fit(inputs, beyond_floor)
        self.trees_ = {}
        if with_trees := [name for name in wanted if self.shares_[name] > 0]:
            tree_floor_us, features_of = features(questions)
            beyond_floor = {**wanted, "runtime": wanted["runtime"] - np.log(tree_floor_us[:, 0])}
            self.trees_ = {
                name: self._boost(features_of, beyond_floor[name], self.leaves if name == "runtime" else self.leaves // 2) for name in with_trees
            }

    def _wanted(self, questions: Rows, measured: Answers) -> dict[str, Any]:
        """target -> [n] logarithms, NaN where it was not read."""
        unread = np.full(len(questions), np.nan)
        runtime_us, power_w = measured["runtime_us"], measured.get("power_w", unread)
        sustained_us = measured.get("sustained_runtime_us", unread)
        limit_w = questions[:, AT["power_limit_w"]]
        metered = ~np.isnan(power_w) & (limit_w > 0)
        lasting = metered & ~np.isnan(sustained_us)
        wanted = {"runtime": np.log(runtime_us.astype(np.float64))}
        if metered.sum() >= MIN_POWER_ROWS:
            if lasting.sum() >= MIN_POWER_ROWS:
                wanted["sustained"] = np.where(lasting, np.log(np.where(lasting, sustained_us, 1) / runtime_us), np.nan)
            wanted["power"] = np.where(metered, np.log(np.where(metered, power_w / np.where(metered, limit_w, 1), 1)), np.nan)
        return wanted

    def _calibrate(self, questions: Rows, measured: Answers) -> Self:
        """widths_: output, family (None for all together) -> how many times as far as the networks are apart nine of ten measurements are."""
        _, _, logs, spreads = (np.asarray(part) for part in self._logs(np, questions, *self.of_trees(questions)))
        families = questions[:, AT["family"]]
        self.widths_ = {}
        for i, name in enumerate(self.outputs_):
            source = "runtime_us" if name == "tflops" else name  # as doubtful as the runtime that it is made from
            read = measured.get(source, np.full(len(questions), np.nan))
            known = ~np.isnan(read) & (read > 0)
            if not known.any():
                continue  # a product of others that were read: `_widths` has what holds instead
            doubt = np.abs(np.log(read[known]) - logs[self.outputs_.index(source)][known]) / spreads[i][known]
            self.widths_[name, None] = _quantile(doubt)
            for family in set(families.tolist()):
                of_family = doubt[families[known] == family]
                if len(of_family) >= MIN_FAMILY_ROWS:
                    self.widths_[name, family] = _quantile(of_family)
        return self

    def _widths(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """By category [n_outputs, n_categories], less what holds for all others [n_outputs, 1]."""
        widest = max(width for (_, family), width in self.widths_.items() if family is None)
        pooled = np.array([[self.widths_.get((name, None), widest)] for name in self.outputs_], dtype=np.float32)
        more = np.zeros((len(self.outputs_), len(self.of_key_)), dtype=np.float32)
        for j, (key, code) in enumerate(zip(self.of_key_, self.categories_[:, 0].tolist(), strict=True)):
            if key == "dtypes":
                family = code // KEYS[key]["family"]
                more[:, j] = [self.widths_.get((name, family), width) - width for name, (width,) in zip(self.outputs_, pooled.tolist(), strict=True)]
        return more, pooled

    def _boost(self, columns: Any, wanted: Any, leaves: int) -> HistGradientBoostingRegressor:
        known = ~np.isnan(wanted)
        trees = HistGradientBoostingRegressor(
            max_iter=self.iterations,
            max_leaf_nodes=leaves,
            learning_rate=self.learning_rate,
            min_samples_leaf=self.min_leaf,
            early_stopping=False,
            random_state=0,
        )
        return trees.fit(columns[known], wanted[known])


def _quantile(doubt: npt.NDArray[np.float64]) -> float:
    """That many of the next are within, too: the ceil((n + 1) COVERAGE)-th smallest of n."""
    return float(np.sort(doubt)[min(len(doubt), int(np.ceil((len(doubt) + 1) * COVERAGE))) - 1])
