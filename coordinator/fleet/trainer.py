"""Training in the background: fit in a Ray task, compare and publish in a thread.

The thread waits and writes to the registry; the arithmetic runs in another process, so the
scheduler continues to lease and commit. A model that the gate refuses is published as challenger. A
crash here loses one model and nothing else. Does not know when a training is due.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from costmodel.progress import Step, no_step
from costmodel.settings import TrainSettings
from gemmcast.card import ModelCard
from gemmcast.errors import GemmcastError
from registry.registry import Registry

log = logging.getLogger(__name__)

PARALLEL_ROWS = 10_000
"""From this many rows on a training uses every core. With fewer rows the trees are small, and
threads that wait for one another make it slower on a busy host."""

Judged = tuple[bytes, ModelCard, str | None]
"""A model, its card, and the gate's objection to it."""


def fit_and_judge(
    table: pa.Table,
    settings: TrainSettings,
    store_version: int,
    champion: bytes | None,
    step: Step = no_step,
) -> Judged:
    """Train a model and compare it with the champion; `step` is called with each part."""
    from costmodel.gate import objection
    from costmodel.train import train

    trained = train(table, settings, store_version=store_version, step=step)
    step("gate", 0, 1)
    reason = objection(trained, champion, table, settings.holdout)
    return trained.model, trained.card, reason


def champion_model(registry: Registry) -> bytes | None:
    """The champion's file, if there is one."""
    if registry.champion() is None:
        return None
    return registry.load("champion")[0]


def publish(registry: Registry, judged: Judged) -> str | None:
    """Publish a model as champion or, with an objection, as challenger.

    Returns:
        The version, if it is champion now.
    """
    model, card, reason = judged
    version = registry.publish(model, card)
    if reason is None:
        registry.promote(version.number)
        return version.number
    registry.challenge(version.number)
    log.warning("version %s stays challenger: %s", version.number, reason)
    return None


class RayTrainer:
    """One training at a time, on the host of the coordinator.

    Args:
        on_trained: called from the thread with each card, and the version if it is champion.
    """

    def __init__(
        self,
        settings: TrainSettings,
        registry: Registry,
        on_trained: Callable[[ModelCard, str | None], None],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._on_trained = on_trained
        self._thread: threading.Thread | None = None
        self._finished: tuple[bytes, str] | None = None
        here = ray.get_runtime_context().get_node_id()
        self._strategy = NodeAffinitySchedulingStrategy(node_id=here, soft=False)

    @property
    def busy(self) -> bool:
        """Whether a training is running."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, table: pa.Table, store_version: int) -> None:
        """Begin to train on these samples."""
        arguments = (table, store_version)
        self._thread = threading.Thread(
            target=self._train, args=arguments, name="trainer", daemon=True
        )
        self._thread.start()

    def finished(self) -> tuple[bytes, str] | None:
        """The newest champion and its version, once."""
        finished = self._finished
        self._finished = None
        return finished

    def _train(self, table: pa.Table, store_version: int) -> None:
        try:
            judged = self._fit_in_task(table, store_version)
            version = publish(self._registry, judged)
            self._on_trained(judged[1], version)
            if version is not None:
                self._finished = (judged[0], version)
        except (GemmcastError, ray.exceptions.RayError) as error:
            log.warning("training failed, measuring continues: %s", error)
        except Exception:
            # A bug in training must not end the measuring.
            log.exception("training failed, measuring continues")

    def _fit_in_task(self, table: pa.Table, store_version: int) -> Judged:
        threads = os.cpu_count() or 1
        if len(table) < PARALLEL_ROWS:
            threads = 1
        # Ray would give a task one OpenMP thread.
        environment = {"env_vars": {"OMP_NUM_THREADS": str(threads)}}
        task = ray.remote(fit_and_judge).options(
            num_cpus=0,
            max_retries=1,
            runtime_env=environment,
            scheduling_strategy=self._strategy,
        )
        champion = champion_model(self._registry)
        judged: Judged = ray.get(task.remote(table, self._settings, store_version, champion))
        return judged
