"""Training in the background: fit in a Ray task, gate and publish in a thread, hand the winner to the loop.

The thread waits and writes to the registry; the arithmetic runs in another process, so the loop goes on leasing and committing.
What loses at the gate is published as challenger. A crash anywhere here loses one candidate and nothing else.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from coordinator.plan.schema import Train
from gemmcast.card import ModelCard
from gemmcast.errors import GemmcastError
from registry.registry import Registry

log = logging.getLogger(__name__)

PARALLEL_ROWS = 10_000


def fit_and_judge(table: pa.Table, settings: Train, store_version: int, champion: bytes | None) -> tuple[bytes, ModelCard, str | None]:
    """The candidate's model and card, and the gate's objection to it."""
    from costmodel.gate import objection
    from costmodel.train import train

    candidate = train(table, settings, store_version=store_version)
    return candidate.model, candidate.card, objection(candidate, champion, table, settings.holdout)


def publish(registry: Registry, model: bytes, card: ModelCard, why_not: str | None) -> str | None:
    """Into the registry, as champion or, with an objection, as challenger; the version if it is champion now."""
    version = registry.publish(model, card)
    if why_not is None:
        registry.promote(version.number)
        return version.number
    registry.challenge(version.number)
    log.warning("version %s stays challenger: %s", version.number, why_not)
    return None


class RayTrainer:
    """One training at a time, on the host that we run on."""

    def __init__(self, settings: Train, registry: Registry, *, told: Callable[[ModelCard, str | None], None] = lambda *_: None) -> None:
        self._settings, self._registry, self._told = settings, registry, told
        self._thread: threading.Thread | None = None
        self._finished: tuple[bytes, str] | None = None
        where = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
        self._where = where

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, table: pa.Table, store_version: int) -> None:
        self._thread = threading.Thread(target=self._work, args=(table, store_version), name="trainer", daemon=True)
        self._thread.start()

    def finished(self) -> tuple[bytes, str] | None:
        found, self._finished = self._finished, None
        return found

    def _work(self, table: pa.Table, store_version: int) -> None:
        try:
            champion = self._registry.load("champion")[0] if self._registry.champion() else None
            # Ray gives a task one OpenMP thread; more only pay where trees are large (and hurt on a busy host: they wait for one another)
            cores = str(os.cpu_count() or 1) if len(table) >= PARALLEL_ROWS else "1"
            options: dict[str, Any] = {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": cores}}, "scheduling_strategy": self._where}
            fit = ray.remote(num_cpus=0, max_retries=1, **options)(fit_and_judge)
            model, card, why_not = ray.get(fit.remote(table, self._settings, store_version, champion))
            number = publish(self._registry, model, card, why_not)
            self._told(card, number)
            if number is not None:
                self._finished = (model, number)
        except Exception as error:
            expected = isinstance(error, (GemmcastError, ray.exceptions.RayError))
            log.warning("training failed, measuring goes on: %s", error, exc_info=not expected)
