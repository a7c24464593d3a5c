"""Training in the background: fit in a Ray task, read, compare and publish in a thread.

The thread reads the samples, waits and writes to the registry; the arithmetic runs in another
process, so the scheduler continues to lease and commit. A model that the gate refuses is published
as challenger. A crash here loses one model and nothing else. A model that the registry refuses is
kept in a file, and published when the registry is back. Does not know when a training is due.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from coordinator.fleet.bases import judged_base
from coordinator.fleet.commits import (
    FIRST_PAUSE_S,
    HICCUPS,
    LONGEST_PAUSE_S,
    STORE_LIMIT_S,
    StoreLostError,
)
from coordinator.fleet.publishing import (
    Judged,
    KeptError,
    LatePublisher,
    OnTrained,
    publish_or_keep,
)
from coordinator.samples.snapshot import Snapshot
from costmodel.base import Base, choose
from costmodel.progress import Step, no_step
from costmodel.settings import TrainSettings
from gemmcast.device import Device
from gemmcast.errors import GemmcastError
from registry.registry import Registry

if TYPE_CHECKING:
    from costmodel.exam import Exam

log = logging.getLogger(__name__)

PARALLEL_ROWS = 10_000
"""From this many rows on a training uses every core. With fewer rows the trees are small, and
threads that wait for one another make it slower on a busy host."""


def fit_and_judge(
    table: pa.Table,
    settings: TrainSettings,
    store_version: int,
    champion: bytes | None,
    step: Step = no_step,
    exam: Exam | None = None,
    base: Base | None = None,
) -> Judged:
    """Train a model, from the base if there is one, and compare it with the champion.

    `step` is called with each part.
    """
    from costmodel.gate import objection
    from costmodel.train import train

    trained = train(table, settings, store_version=store_version, exam=exam, base=base, step=step)
    step("gate", 0, 1)
    reason = objection(trained, champion, table, settings.holdout)
    return trained.model, trained.card, reason


OnEnd = Callable[[str, float], None]
"""Called with how a training ended (champion, challenger, kept, failed) and what it took. [s]"""


def not_counted(_outcome: str, _training_s: float) -> None:
    """Of trainings that nobody counts."""


def whole(table: pa.Table) -> pa.Table:
    """All samples."""
    return table


def read_when_it_answers(samples: Snapshot, wait: Callable[[float], None] = sleep) -> pa.Table:
    """Samples of a store that may fail for a while; tried again after pauses that grow.

    Raises:
        StoreLostError: it has failed for STORE_LIMIT_S.
    """
    pause_s, waited_s = FIRST_PAUSE_S, 0.0
    while True:
        try:
            return samples.read()
        except HICCUPS as error:
            if waited_s >= STORE_LIMIT_S:
                raise StoreLostError(f"{error}, for {waited_s / 60:.0f} minutes") from None
            log.warning("%s: the training waits; next try in %g s", error, pause_s)
        wait(pause_s)
        waited_s += pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def champion_model(registry: Registry) -> bytes | None:
    """The champion's file, if there is one."""
    if registry.champion() is None:
        return None
    return registry.load("champion")[0]


class RayTrainer:
    """One training at a time, on the host of the coordinator.

    Args:
        kept: the folder for models that the registry refuses.
        on_trained: called from the thread with each card, and the version if it is champion.
        bases: what models may start from; the device that joins decides.
        screen: the samples that may be trained on, of all.
        on_end: called from the thread when a training has ended.
    """

    def __init__(
        self,
        settings: TrainSettings,
        registry: Registry,
        kept: Path,
        on_trained: OnTrained,
        bases: Sequence[Base] = (),
        screen: Callable[[pa.Table], pa.Table] = whole,
        on_end: OnEnd = not_counted,
    ) -> None:
        self._screen = screen
        self._on_end = on_end
        self._settings = settings
        self._registry = registry
        self._kept = kept
        self._on_trained = on_trained
        self._bases = bases
        self._kinds: dict[str, str] = {}
        self._is_published = False
        self._late = LatePublisher(registry, on_trained)
        self._champion: bytes | None = None
        self._thread: threading.Thread | None = None
        here = ray.get_runtime_context().get_node_id()
        self._strategy = NodeAffinitySchedulingStrategy(node_id=here, soft=False)

    @property
    def busy(self) -> bool:
        """Whether a training is running, or the base is being published."""
        return self._thread is not None and self._thread.is_alive()

    def join(self, device: Device) -> None:
        """Publish the base of the first device that has one, where there is no champion."""
        self._kinds[device.name] = device.kind
        base = choose(self._bases, self._kinds)
        if base is None or self._is_published or self.busy:
            return
        self._is_published = True
        self._begin(partial(self._publish_base, base))

    def start(self, samples: Snapshot) -> None:
        """Begin to train on these samples."""
        self._begin(partial(self._train, samples))

    def _begin(self, work: Callable[[], None]) -> None:
        arguments = (work,)
        self._thread = threading.Thread(
            target=self._guarded, args=arguments, name="trainer", daemon=True
        )
        self._thread.start()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Whatever fails here, measuring continues."""
        try:
            work()
        except (GemmcastError, ray.exceptions.RayError) as error:
            log.warning("training failed, measuring continues: %s", error)
        except Exception:
            # A bug in training must not end the measuring.
            log.exception("training failed, measuring continues")

    def _publish_base(self, base: Base) -> None:
        if self._registry.champion() is None:
            self._publish(judged_base(base), None)

    def _train(self, samples: Snapshot) -> None:
        began_s = monotonic()
        outcome = "failed"
        try:
            table = self._screen(read_when_it_answers(samples))
            champion = self._known_champion()
            judged = self._fit_in_task(table, samples.version, champion)
            outcome = self._publish(judged, champion)
        finally:
            self._on_end(outcome, monotonic() - began_s)

    def _publish(self, judged: Judged, champion: bytes | None) -> str:
        """Returns what became of the model."""
        try:
            version = publish_or_keep(self._registry, judged, champion, self._kept)
        except KeptError as error:
            log.warning("%s; this run tries it again", error)
            self._late.start(error.path, judged[1])
            return "kept"
        self._on_trained(judged[1], version)
        return "challenger" if version is None else "champion"

    def _known_champion(self) -> bytes | None:
        """The champion, or the last one that the registry gave while it answered."""
        try:
            self._champion = champion_model(self._registry)
        except GemmcastError as error:
            log.warning("the gate compares with the last known champion: %s", error)
        return self._champion

    def _fit_in_task(self, table: pa.Table, store_version: int, champion: bytes | None) -> Judged:
        threads = os.cpu_count() or 1
        if len(table) < PARALLEL_ROWS:
            threads = 1
        # Ray would give a task one OpenMP thread.
        variables = {"OMP_NUM_THREADS": str(threads)}
        task = ray.remote(fit_and_judge).options(
            num_cpus=0,
            max_retries=1,
            runtime_env={"env_vars": variables},
            scheduling_strategy=self._strategy,
        )
        base = choose(self._bases, self._kinds)
        arguments = (table, self._settings, store_version, champion)
        judged: Judged = ray.get(task.remote(*arguments, base=base))
        return judged
