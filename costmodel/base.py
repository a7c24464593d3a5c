"""A base: a finished model file that another model starts from. It stays as it is.

    query[n, n_fields]  ->  factor of each target, relative margins, extrapolating

In NumPy ONNX Runtime answers; while a graph is traced, the base's own graph becomes part of it. A
power limit beyond those of the base's devices is moved to the nearest of them: the base answers in
shares of the limit. Does not know what is learned on top of it (costmodel/adapted.py).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.graph_ops import Array
from costmodel.onnx_session import open_session
from costmodel.outputs import KnownLimits, Values
from gemmcast import modeldir
from gemmcast.card import ModelCard
from gemmcast.config import FAMILIES
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.modelfile import PREFILTER_KEY, LoadedModel
from gemmcast.query import AT, CONTRACT, EXTRAPOLATING, FAMILY_CODES, FIELDS, INPUT, INTERVALS, Rows

Mask = npt.NDArray[np.bool_]
USUAL_MARGIN: Final = np.float32(0.1)
"""Below and above, of an output that the base does not have."""


class Answers(NamedTuple):
    """What a base says of some queries."""

    runtime_us: Array
    """[n, 1]."""
    factors: Mapping[str, Array]
    """Target -> [n, 1]: `sustained` of the runtime, `power` of the limit; 1 without an answer."""
    below: Array
    """[n, n_outputs] from the lower end of its interval to the answer, in logarithms."""
    above: Array
    """[n, n_outputs] from the answer to the upper end."""
    extrapolating: Array
    """[n, 1] bool."""


@dataclass(frozen=True)
class Base:
    """A model file, and what is known of it."""

    model: bytes
    """The .onnx file."""
    name: str
    """What cards and messages call it."""
    card: ModelCard
    """Its own card; a file without one has the few facts of its metadata."""

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> Self:
        """A file, and the card beside it (`.json`) where there is one.

        Raises:
            InputError: it can't be read, or is of an older contract.
            ModelFileError: it is damaged, or no model of gemmcast.
        """
        way_out = "name a model file, such as `python -m registry export` writes, or none"
        try:
            model = path.read_bytes()
        except OSError as error:
            rule = f"can't be read ({error.strerror})"
            raise InputError("base", str(path), rule, way_out) from None
        loaded = LoadedModel(model, str(path), "base")
        if loaded.contract != CONTRACT:
            rule = f"is of contract {loaded.contract}, a base must be of {CONTRACT}"
            raise InputError("base", str(path), rule, "train it again with this gemmcast")
        beside = path.with_suffix(".json")
        card = _bare_card(loaded, model)
        if beside.is_file():
            card = ModelCard.from_json(beside.read_text(encoding="utf-8"))
        return cls(model=model, name=name or path.name, card=card)

    @classmethod
    def of(cls, model: bytes, name: str) -> Self:
        """A file's content, without a card."""
        return cls(model=model, name=name, card=_bare_card(LoadedModel(model, name, "base"), model))

    @property
    def title(self) -> str:
        """Name and hash, for cards."""
        return f"{self.name} (SHA-256 {self.sha256[:12]})"

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        return modeldir.sha256(self.model)

    @cached_property
    def devices(self) -> list[Device]:
        """The types of device that it was trained on."""
        return self._loaded.devices

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(self._loaded.outputs)

    @cached_property
    def limits(self) -> KnownLimits:
        """The power limits of its devices, margin included."""
        limits_w = [one.power_limit_w for one in self.devices if one.power_limit_w]
        return KnownLimits.of(np.array(limits_w, dtype=np.float64))

    def covers(self, query: Array) -> Array:
        """[n, 1] bool: whether the family runs on a kind of device that the base contains."""
        kinds = {device.kind for device in self.devices}
        codes = [FAMILY_CODES[name] for name, of in FAMILIES.items() if of.device_kind in kinds]
        xp = query.__array_namespace__()
        family = query[:, AT["family"] : AT["family"] + 1]
        covered = xp.asarray(np.array(codes, dtype=np.float32))
        is_one = xp.astype(family == covered, xp.float32)
        return xp.sum(is_one, axis=1, keepdims=True) > 0.0

    def answers(self, query: Array, *, any_limit: bool) -> Answers:
        """Of query[n, n_fields]; array-API code, traced into the graph.

        Args:
            any_limit: whether power is answered for limits beyond those of its devices too.
        """
        xp = query.__array_namespace__()
        limit_w = query[:, AT["power_limit_w"] : AT["power_limit_w"] + 1]
        known_w = limit_w
        if any_limit:
            known_w = self._nearest_limit(limit_w)
            left, _, right = graph_ops.split(query, _around(AT["power_limit_w"], len(FIELDS)))
            query = xp.concat([left, known_w, right], axis=1)
        named = self._run(query)
        values = {name: xp.reshape(named[name], (-1, 1)) for name in self.outputs}
        low, high = (named[side] for side in INTERVALS)
        every = xp.concat(list(values.values()), axis=1)
        return Answers(
            runtime_us=values["runtime_us"],
            factors=_factors(values, known_w),
            below=xp.log(every / low),
            above=xp.log(high / every),
            extrapolating=xp.reshape(named[EXTRAPOLATING], (-1, 1)) | (known_w != limit_w),
        )

    def answered(self, queries: Rows) -> dict[str, npt.NDArray[np.generic]]:
        """Every output, low and high, and extrapolating, as the file answers them."""
        return dict(self._run(queries))

    def predict(self, queries: Rows) -> dict[str, Values]:
        """Output -> [n_rows], as the file answers queries[n_rows, n_fields]."""
        named = self._run(queries)
        return {name: named[name].astype(np.float64) for name in self.outputs}

    def prefilter(self, query: Array) -> Array:
        """[n, 1] about runtime_us, by its smaller graph; by the whole one where it has none."""
        xp = query.__array_namespace__()
        if self._small is None:
            return xp.reshape(self._run(query)["runtime_us"], (-1, 1))
        (runtime_us,) = self._small(query).values()
        return xp.reshape(runtime_us, (-1, 1))

    def _nearest_limit(self, limit_w: Array) -> Array:
        """limit_w[n, 1] within those of the base's devices; 0, which is unknown, stays."""
        xp = limit_w.__array_namespace__()
        limits_w = [one.power_limit_w for one in self.devices if one.power_limit_w]
        if not limits_w:
            return limit_w
        lowest_w = xp.asarray(np.float32(min(limits_w)))
        highest_w = xp.asarray(np.float32(max(limits_w)))
        within = xp.minimum(xp.maximum(limit_w, lowest_w), highest_w)
        is_near = self.limits.known(limit_w) == limit_w
        return xp.where(is_near | (limit_w == 0.0), limit_w, within)

    @cached_property
    def _loaded(self) -> LoadedModel:
        return LoadedModel(self.model, self.name, "base")

    @cached_property
    def _run(self) -> _Graph:
        return _Graph(self.model)

    @cached_property
    def _small(self) -> _Graph | None:
        text = self._run.session.get_modelmeta().custom_metadata_map.get(PREFILTER_KEY)
        return _Graph(base64.b64decode(text)) if text else None

    def __getstate__(self) -> dict[str, object]:
        """Without sessions, which can't go to another process."""
        return {"model": self.model, "name": self.name, "card": self.card}


def choose(bases: Sequence[Base], kinds: Mapping[str, str]) -> Base | None:
    """The first base that contains one of these types of device, else the first of their kind.

    Args:
        kinds: name of a type of device -> its kind.
    """
    for base in bases:
        if any(device.name in kinds for device in base.devices):
            return base
    for base in bases:
        if any(device.kind in kinds.values() for device in base.devices):
            return base
    return None


class _Graph:
    """A file that is called: by ONNX Runtime, or as a part of the graph that is traced."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.session = open_session(model)

    def __call__(self, query: Array) -> dict[str, Array]:
        """Output -> values."""
        if graph_ops.is_traced(query):
            return graph_ops.inlined(self.model, INPUT, query)
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {INPUT: query}), strict=True))


def _factors(values: Mapping[str, Array], limit_w: Array) -> dict[str, Array]:
    one = 0.0 * limit_w + 1.0
    factors = {"sustained": one, "power": one}
    if "sustained_runtime_us" in values:
        factors["sustained"] = values["sustained_runtime_us"] / values["runtime_us"]
    if "power_w" in values:
        factors["power"] = values["power_w"] / limit_w
    return factors


def _around(place: int, count: int) -> list[int]:
    """Lengths of the columns before, at and after a place."""
    return [place, 1, count - place - 1]


def _bare_card(loaded: LoadedModel, model: bytes) -> ModelCard:
    """The card of a file that has none beside it."""
    return ModelCard(
        created_at=loaded.metadata["created_at"],
        program_version=loaded.metadata["program_version"],
        contract=loaded.contract,
        targets=tuple(loaded.outputs),
        rows=0,
        rows_by_device={device.name: 0 for device in loaded.devices},
        store_version=None,
        split="unknown: the file had no card beside it",
        holdout=0.0,
        train_rows=0,
        test_rows=0,
        train_shapes=0,
        test_shapes=0,
        sha256=modeldir.sha256(model),
    )
