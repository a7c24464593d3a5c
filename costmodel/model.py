"""The multi-output model: an analytical floor, and what networks and trees have learned about what it does not explain.

    runtime_us           = floor_us x exp(runtime)
    sustained_runtime_us = runtime_us x exp(sustained)
    power_w              = power_limit_w x exp(power)
    energy_mj            = power_w x sustained_runtime_us / 1000
    tflops               = flops / (runtime_us x 1e6)

Each logarithm is the networks' (costmodel/network.py, on the terms of costmodel/terms.py), the trees' (histogram boosting on
costmodel/tree_features.py), or something between: whatever was right about a fifth of the shapes, which neither had seen. Trees that
bring nothing are left out of the graph. A kernel that many rows show to be odd has a factor of its own besides (docs/decisions/0014).

Energy and throughput are computed, never fitted, so that the outputs can't contradict each other. A target that was not read in
some rows costs the others nothing. Never shown power, the model has none; never shown a sustained runtime (tables of others have none), it has
neither that nor energy.

Every output has an interval: a factor up and down, as much wider as the networks are apart, calibrated by family, with and without a named
algorithm each for itself, on shapes that were not trained on (split conformal prediction; Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, JASA 2018),
so that nine of ten measurements lie within. `extrapolating` is 1 for a question outside of what was seen: there the intervals promise nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor

from costmodel import graph_ops
from costmodel.dataset import Dataset, with_unresolved_copies
from costmodel.network import Ensemble, Size
from costmodel.terms import FLOOR, FLOPS_US, SHOWN, TERMS, TIME_TEXTS, log_floor_us, log_scale, monomials, terms
from costmodel.tree_features import features
from gemmcast.query import AT, COVERAGE, FIELDS, OUTPUTS, Rows

Answers = dict[str, npt.NDArray[Any]]
# output -> [n_rows]; low and high [n_rows, n_outputs]
WIDTHS: Final = {"runtime": 128, "sustained": 24, "power": 48}
# of both hidden layers of a target's networks
MIN_POWER_ROWS: Final = 40
# fewer teach nothing
MIN_GROUP_ROWS: Final = 50
# fewer are calibrated together with all others
SELECTION: Final = 0.2
# of the shapes, on which parts are chosen
SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
# of the trees
WORTH: Final = 0.97
# error with trees over error without, from which on they are worth their time in the graph
SPREAD_WEIGHT: Final = 2.0
# times what the members differ from their mean is added to an interval's half width
BOUNDED: Final = monomials(
    {
        **{name: name for name in ("m", "n", "k", "batch", "active_units", "peak_tflops", "dram_gbps")}, "flops_us": FLOPS_US,
        **{name: TIME_TEXTS[name] for name in ("dram_a_us", "dram_b_us", "dram_c_us")},
    }, TERMS,
)  # fmt: skip
MARGINS: Final = np.log([1.25 if name == "dram_gbps" else 1.5 for name in BOUNDED.names], dtype=np.float32)
# beyond the smallest and the largest seen; by its bandwidth another type of device is told, an H200 from an H100 at 1.4 times as much
OF_OUTPUTS: Final = {
    "runtime_us": ("runtime",), "tflops": ("runtime",), "sustained_runtime_us": ("runtime", "sustained"), "power_w": ("power",),
    "energy_mj": ("runtime", "sustained", "power"),
}  # fmt: skip
OF_TARGET: Final = {"runtime": "runtime_us", "sustained": "sustained_runtime_us", "power": "power_w"}
KEYS: Final = {"dtypes": {"family": 64, "dtype": 1}, "algorithms": {"family": 2**20, "algorithm": 1}}
# categories that a network is told apart: numbers of which each stands for one combination
KERNEL: Final = ("family", "algorithm", "tile_m", "tile_n")
# what tells one kernel of a library from another, where it names its algorithm
BIASED, ODD_ROWS = float(np.log(1.1)), 10
# a kernel that many rows show to be so much slower or faster than the networks say is corrected by that


class CostModel(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn regressor from raw questions to every output, with its interval.

    Args:
        members: networks of runtime; half as many of the targets that fewer rows have.
        steps: of gradient descent, at most, in the fit of a network.
        iterations: trees per target.
        leaves: at most, per tree.
        shares: of the trees in the answer, for every target; None to choose them on shapes held out, on which intervals are calibrated then.
            With shares, intervals are those of the rows fitted on, too narrow until `calibrate` is given others.
    """

    def __init__(
        self, members: int = 4, steps: int = 15_000, iterations: int = 150, leaves: int = 31, learning_rate: float = 0.1, min_leaf: int = 5,
        shares: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.members, self.steps, self.shares = members, steps, shares
        self.iterations, self.leaves, self.learning_rate, self.min_leaf = iterations, leaves, learning_rate, min_leaf

    def fit(self, queries: Rows, measured: Answers) -> Self:
        """Fit.

        Args:
            questions: [n_rows, n_fields].
            measured: runtime_us, and the other targets with NaN where they were not read.
        """
        if self.shares is None:
            self._select(queries, measured)
            self._fit_parts(queries, measured)
            return self
        self.shares_ = dict(self.shares)
        self._fit_parts(queries, measured)
        return self._calibrate(queries, measured)

    def fit_dataset(self, data: Dataset) -> Self:
        taught = with_unresolved_copies(data)
        return self.fit(taught.queries, taught.measured)

    def calibrate(self, data: Dataset) -> Self:
        """Intervals from shapes that the model has not seen, in place of those from the shapes on which parts were chosen."""
        taught = with_unresolved_copies(data)
        return self._calibrate(taught.queries, taught.measured)

    def predict(self, queries: Rows) -> Answers:
        """Every output [n_rows]; `low` and `high` [n_rows, n_outputs]; `extrapolating` [n_rows]."""
        return {name: np.asarray(values) for name, values in self.answer(queries, *self.of_trees(queries)).items()}

    def of_trees(self, queries: Rows) -> tuple[dict[str, Any], Any]:
        """The trees' logarithms by target, each [n_rows, 1], and their floor [n_rows, 1]; both empty where no target takes any."""
        if not self.trees_:
            return {}, None
        floor_us, columns = features(queries)
        return {target: trees.predict(columns)[:, None].astype(np.float32) for target, trees in self.trees_.items()}, floor_us

    def answer(self, query: Any, of_trees: Mapping[str, Any], tree_floor_us: Any) -> dict[str, Any]:
        """Every output from questions [n, n_fields] and what the trees say of them; array-API code, traced into the graph."""
        xp = query.__array_namespace__()
        inputs, everything, names = self._everything(xp, query, of_trees, tree_floor_us)
        logs, margins = (np.vstack(of) for of in (self._logs(names, tuple(of_trees)), self._margins(names)))
        weights = np.concatenate([logs, logs - margins, logs + margins], axis=1)
        values = xp.exp(graph_ops.gemm(everything, xp.asarray(weights[:-1]), xp.asarray(weights[-1])))
        named = {name: graph_ops.column(values, i) for i, name in enumerate(self.outputs_)}
        _, low, high = graph_ops.split(values, [len(self.outputs_)] * 3)
        return {**named, "low": low, "high": high, "extrapolating": self._outside(xp, inputs)}

    def rough(self, query: Any) -> Any:
        """[n] of questions [n, n_fields]: runtime_us by one network alone, to see which of many configurations deserve the whole model.

        Array-API code, traced into a graph of its own.
        """
        xp = query.__array_namespace__()
        inputs = self._asked(xp, query)
        odd, of_odd = self._odd(xp, query)
        said = xp.concat([inputs, self.networks_.rough(inputs), *odd], axis=1)
        weights, biases = self._logs([*self._inputs(), "network runtime", *of_odd], (), ["runtime_us"])
        return graph_ops.column(xp.exp(graph_ops.gemm(said, xp.asarray(weights), xp.asarray(biases))))

    def _asked(self, xp: Any, query: Any) -> Any:
        """What the networks are asked, [n, n_inputs]."""
        return xp.concat([terms(query), self._categories(xp, query)], axis=1)

    def _everything(self, xp: Any, query: Any, of_trees: Mapping[str, Any], tree_floor_us: Any) -> tuple[Any, Any, list[str]]:
        """What the networks are asked [n, n_inputs], all that was said about a question [n, n_said], and the names of that.

        All outputs are products, so their logarithms are one matrix product of everything that was said.
        """
        inputs = self._asked(xp, query)
        said = self.networks_.answer(inputs)
        of_networks = [*self.targets_, *(f"{name} {member}" for name, member in self.networks_.jobs)]
        names = [*self._inputs(), *(f"network {name}" for name in of_networks), *(f"apart {name}" for name in of_networks)]
        trees = {f"trees {target}": log for target, log in of_trees.items()}
        if "runtime" in of_trees:
            trees["trees floor"] = xp.log(tree_floor_us)
        odd, of_odd = self._odd(xp, query)
        return inputs, xp.concat([inputs, said, xp.abs(said), *trees.values(), *odd], axis=1), [*names, *trees, *of_odd]

    def _inputs(self) -> list[str]:
        return [*(f"term {name}" for name in TERMS), *(f"category {i}" for i in range(len(self.of_key_)))]

    def _logs(
        self, names: Sequence[str], with_trees: Sequence[str], outputs: Sequence[str] | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Weights [n_said, n_outputs] and biases [n_outputs] from what was said to the logarithms of the outputs, all of the model's when None."""
        outputs = self.outputs_ if outputs is None else outputs
        weights, biases = np.zeros((len(names), len(outputs)), dtype=np.float32), np.zeros(len(outputs), dtype=np.float32)
        for i, output in enumerate(outputs):
            powers, scale = self._powers(output, with_trees)
            biases[i] = np.log(scale)
            for name, power in powers.items():
                weights[names.index(name), i] = power
                biases[i] += power * log_scale(name.removeprefix("term "))
        return weights, biases

    def _margins(self, names: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """As `_logs`, to half the widths of their intervals."""
        weights = self._apart(names)
        widest = max(width for (_, group), width in self.widths_.items() if group is None)
        pooled = np.array([self.widths_.get((name, None), widest) for name in self.outputs_], dtype=np.float32)
        for j, (key, code) in enumerate(zip(self.of_key_, self.categories_.tolist(), strict=True)):
            if key == "algorithms":
                group = _group(*divmod(code, KEYS[key]["family"]))
                of_group = [self.widths_.get((name, group), width) for name, width in zip(self.outputs_, pooled.tolist(), strict=True)]
                weights[names.index(f"category {j}")] = of_group - pooled
        return weights, pooled

    def _apart(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """Weights [n_said, n_outputs] from what was said to how far the networks are apart there."""
        weights = np.zeros((len(names), len(self.outputs_)), dtype=np.float32)
        for i, output in enumerate(self.outputs_):
            for target, member in self.networks_.jobs:
                if target in OF_OUTPUTS[output]:
                    weights[names.index(f"apart {target} {member}"), i] = SPREAD_WEIGHT / self.networks_.sizes[target].members
        return weights

    def _powers(self, output: str, with_trees: Sequence[str]) -> tuple[dict[str, float], float]:
        """An output as a product of powers of what was said, and the constant before it."""
        powers: dict[str, float] = {}

        def multiply(target: str, sign: float = 1.0) -> None:
            share = self.shares_[target] if target in with_trees else 0.0
            factors = {f"network {target}": 1 - share, f"trees {target}": share}
            if target == "runtime":
                factors |= {**{f"term {name}": (1 - share) * power for name, power in FLOOR.items()}, "trees floor": share}
                factors |= {f"odd {i}": (1 - share) * off for i, off in enumerate(self.off_)}
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

    def _outside(self, xp: Any, inputs: Any) -> Any:
        """[n] whether a size or the device is beyond any that was seen by its margin, or a kind of kernel or number format is new."""
        above, below = (np.zeros((inputs.shape[1], BOUNDED.weights.shape[1]), dtype=np.float32) for _ in range(2))
        above[: len(TERMS)], below[: len(TERMS)] = BOUNDED.weights, -BOUNDED.weights
        missing = np.zeros((inputs.shape[1], 1), dtype=np.float32)
        missing[len(TERMS) :] = -1
        biases = np.concatenate([BOUNDED.biases - self.highest_, self.lowest_ - BOUNDED.biases, np.full(1, len(KEYS), dtype=np.float32)])
        beyond = graph_ops.relu(graph_ops.gemm(inputs, xp.asarray(np.concatenate([above, below, missing], axis=1)), xp.asarray(biases)))
        return graph_ops.column(graph_ops.matmul(beyond, xp.asarray(np.ones((len(biases), 1), dtype=np.float32))) > xp.asarray(np.float32(0)))

    def _categories(self, xp: Any, query: Any) -> Any:
        """[n, n_categories] 1 where the question is of that category."""
        weights = np.zeros((len(FIELDS), len(self.of_key_)), dtype=np.float32)
        for i, key in enumerate(self.of_key_):
            for name, weight in KEYS[key].items():
                weights[AT[name], i] = weight
        return xp.astype(graph_ops.matmul(query, xp.asarray(weights)) == xp.asarray(self.categories_), xp.float32)

    def _odd(self, xp: Any, query: Any) -> tuple[list[Any], list[str]]:
        """[n, n_odd] 1 where the question is about that odd kernel, and their names; both lists empty where there is none."""
        if not len(self.odd_):
            return [], []
        fields = np.eye(len(FIELDS), dtype=np.float32)[:, [AT[name] for name in KERNEL]]
        same = graph_ops.matmul(query, xp.asarray(np.tile(fields, len(self.odd_)))) == xp.asarray(self.odd_.reshape(-1))
        of_kernel = np.repeat(np.eye(len(self.odd_), dtype=np.float32), len(KERNEL), axis=0)
        all_but_one = np.full(len(self.odd_), 1 - len(KERNEL), dtype=np.float32)
        found = graph_ops.relu(graph_ops.gemm(xp.astype(same, xp.float32), xp.asarray(of_kernel), xp.asarray(all_but_one)))
        return [found], [f"odd {i}" for i in range(len(self.odd_))]

    # fitting

    def _select(self, queries: Rows, measured: Answers) -> None:
        """Choose each target's parts on shapes held out, and calibrate on them."""
        shape_of = np.unique(queries[:, :3], axis=0, return_inverse=True)[1].reshape(-1)
        shapes = np.random.default_rng(0).permutation(shape_of.max() + 1)
        tested = np.isin(shape_of, shapes[: max(1, round(SELECTION * len(shapes)))])
        if tested.all():
            tested = np.arange(len(queries)) % 2 == 0
        trained, asked = ({name: values[rows] for name, values in measured.items()} for rows in (~tested, tested))
        self.shares_ = dict.fromkeys(OF_TARGET, 0.5)
        self._fit_parts(queries[~tested], trained, rough=False)
        from_trees = self.of_trees(queries[tested])
        _, everything, names = self._everything(np, queries[tested], *from_trees)
        shares: dict[str, float] = {}
        for target in self.targets_:
            output, errors = OF_TARGET[target], {}
            for share in SHARES:
                self.shares_ = {**dict.fromkeys(self.targets_, 0.5), **shares, target: share}
                weights, biases = self._logs(names, tuple(from_trees[0]))
                said = np.exp((everything @ weights + biases)[:, self.outputs_.index(output)])
                errors[share] = float(np.nanmean(np.abs(np.log(said / np.where(asked[output] > 0, asked[output], np.nan)))))
            best = min(errors, key=lambda share: errors[share])
            shares[target] = best if errors[best] < WORTH * errors[0.0] else 0.0
        self.shares_ = dict.fromkeys(OF_TARGET, 0.5) | shares
        self._calibrate(queries[tested], asked)

    def _fit_parts(self, queries: Rows, measured: Answers, *, rough: bool = True) -> None:
        wanted = self._wanted(queries, measured)
        self.targets_ = tuple(wanted)
        has = {"power_w": "power", "sustained_runtime_us": "sustained", "energy_mj": "sustained"}
        self.outputs_ = tuple(name for name in OUTPUTS if name not in has or has[name] in wanted)
        seen = {key: np.unique(sum(weight * queries[:, AT[name]] for name, weight in of.items())) for key, of in KEYS.items()}
        self.of_key_ = [key for key, values in seen.items() for _ in values]
        self.categories_ = np.concatenate(list(seen.values())).astype(np.float32)
        columns = terms(queries)
        bounded = BOUNDED.of(np, columns)
        self.lowest_, self.highest_ = bounded.min(axis=0) - MARGINS, bounded.max(axis=0) + MARGINS
        floor = log_floor_us(columns)
        beyond_floor = {name: values - floor if name == "runtime" else values for name, values in wanted.items()}
        shown = np.eye(len(TERMS) + len(self.of_key_), dtype=np.float32)[:, len(TERMS) :]
        shown = np.concatenate([np.pad(SHOWN.weights, ((0, len(self.of_key_)), (0, 0))), shown], axis=1)
        inputs = np.concatenate([columns, self._categories(np, queries)], axis=1)
        members = {target: self.members if target == "runtime" else max(1, self.members // 2) for target in self.targets_}
        sizes = {target: Size(WIDTHS[target], members[target]) for target in self.targets_}
        self.networks_ = Ensemble(sizes, self.steps).fit(inputs, shown, beyond_floor, rough=rough)
        named = queries[:, AT["algorithm"]] > 0
        said = self.networks_.answer(inputs[named])[:, 0]
        self.odd_, self.off_ = _odd_kernels(queries[named], beyond_floor["runtime"][named] - said)
        self.trees_ = {}
        if with_trees := [name for name in wanted if self.shares_[name] > 0]:
            tree_floor_us, features_of = features(queries)
            beyond_floor = {**wanted, "runtime": wanted["runtime"] - np.log(tree_floor_us[:, 0])}
            self.trees_ = {name: self._boost(features_of, beyond_floor[name]) for name in with_trees}

    def _said(self, queries: Rows, from_trees: tuple[Mapping[str, Any], Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Logarithms of the outputs, and how far the networks are apart there, each [n, n_outputs]."""
        _, everything, names = self._everything(np, queries, *from_trees)
        weights, biases = self._logs(names, tuple(from_trees[0]))
        return everything @ weights + biases, everything @ self._apart(names)

    def _wanted(self, queries: Rows, measured: Answers) -> dict[str, Any]:
        """target -> [n] logarithms, NaN where it was not read."""
        unread = np.full(len(queries), np.nan)
        runtime_us, power_w = measured["runtime_us"], measured.get("power_w", unread)
        sustained_us = measured.get("sustained_runtime_us", unread)
        limit_w = queries[:, AT["power_limit_w"]]
        metered = ~np.isnan(power_w) & (limit_w > 0)
        lasting = metered & ~np.isnan(sustained_us)
        wanted = {"runtime": np.log(runtime_us.astype(np.float64))}
        if metered.sum() >= MIN_POWER_ROWS:
            if lasting.sum() >= MIN_POWER_ROWS:
                wanted["sustained"] = np.where(lasting, np.log(np.where(lasting, sustained_us, 1) / runtime_us), np.nan)
            wanted["power"] = np.where(metered, np.log(np.where(metered, power_w / np.where(metered, limit_w, 1), 1)), np.nan)
        return wanted

    def _calibrate(self, queries: Rows, measured: Answers) -> Self:
        """widths_: output, group (None for all together) -> how much more than the networks are apart nine of ten measurements are off at most."""
        logs, apart = self._said(queries, self.of_trees(queries))
        groups = _group(queries[:, AT["family"]], queries[:, AT["algorithm"]])
        self.widths_: dict[tuple[str, float | None], float] = {}
        for i, name in enumerate(self.outputs_):
            source = "runtime_us" if name == "tflops" else name  # as doubtful as the runtime that it is made from
            read = measured.get(source, np.full(len(queries), np.nan))
            known = ~np.isnan(read) & (read > 0)
            if not known.any():
                continue  # a product of others that were read: `_margins` has what holds instead
            doubt = np.abs(np.log(read[known]) - logs[known, self.outputs_.index(source)]) - apart[known, i]
            self.widths_[name, None] = _quantile(doubt)
            for group in set(groups.tolist()):
                of_group = doubt[groups[known] == group]
                if len(of_group) >= MIN_GROUP_ROWS:
                    self.widths_[name, group] = _quantile(of_group)
        return self

    def _boost(self, columns: Any, wanted: Any) -> HistGradientBoostingRegressor:
        known = ~np.isnan(wanted)
        trees = HistGradientBoostingRegressor(
            max_iter=self.iterations,
            max_leaf_nodes=self.leaves,
            learning_rate=self.learning_rate,
            min_samples_leaf=self.min_leaf,
            early_stopping=False,
            random_state=0,
        )
        return trees.fit(columns[known], wanted[known])


def _odd_kernels(queries: Rows, off: npt.NDArray[np.float64]) -> tuple[Rows, list[float]]:
    """[n_odd, len(KERNEL)] and the logarithm of what each is to be corrected by.

    Huber's loss leaves these as they are: a few dozen rows that are off by a factor do not pull more than as many that are off by a tenth of it.

    Args:
        questions: [n, n_fields], about named algorithms.
        off: [n] logarithm of what was measured over what is said.
    """
    kernels, of = np.unique(queries[:, [AT[name] for name in KERNEL]], axis=0, return_inverse=True)
    off_by_kernel = np.split(off[np.argsort(of.reshape(-1), kind="stable")], np.cumsum(np.bincount(of.reshape(-1), minlength=1))[:-1])
    medians = {i: float(np.median(offs)) for i, offs in enumerate(off_by_kernel) if len(offs) >= ODD_ROWS}
    odd = [i for i, median in medians.items() if abs(median) > BIASED]
    return kernels[odd], [medians[i] for i in odd]


def _group(family: Any, algorithm: Any) -> Any:
    """A number for what is calibrated together."""
    return family + (algorithm > 0) / 2


def _quantile(doubt: npt.NDArray[np.float64]) -> float:
    """That many of the next are within, too: the ceil((n + 1) COVERAGE)-th smallest of n."""
    return max(0.0, float(np.sort(doubt)[min(len(doubt), int(np.ceil((len(doubt) + 1) * COVERAGE))) - 1]))
