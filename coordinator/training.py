"""`python -m coordinator train`: one training on the samples of a workspace, in this process.

The gate compares it with the champion; the winner is published and becomes this node's model.
Samples of boards that were sick when they measured them are left out (coordinator/health/).
Does not know how a run trains (coordinator/fleet/trainer.py), nor what is printed.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.fleet.bases import base_for
from coordinator.fleet.publishing import Judged, publish_or_keep
from coordinator.fleet.session import Places
from coordinator.fleet.trainer import champion_model, fit_and_judge
from coordinator.health.record import HealthRecord
from coordinator.samples.store import SampleStore
from coordinator.workspace import Workspace
from costmodel.base import Base
from costmodel.exam import Exam
from costmodel.progress import Step
from costmodel.settings import TrainSettings
from registry.registry import Registry
from registry.signatures import Signatures
from signing import node


def train_workspace(
    place: Workspace,
    places: Places,
    settings: TrainSettings,
    bases: Sequence[Base],
    exam: Exam | None,
    step: Step,
) -> tuple[str | None, Judged]:
    """The version if it is champion now, and the model with its card and the gate's objection.

    Args:
        places: of store and registry, if not in the workspace.
        bases: what the model may start from; the devices of the samples decide.
        exam: rows of other boards and layers, to score the model with.
        step: called with each part of the work.

    Raises:
        InputError: there are no samples, or too few.
        GemmcastError: store or registry can't be used.
    """
    if places.store is None:
        place.must_exist()
    else:
        # Refused before the workspace is made.
        SampleStore.open(places.store, create=False)
    with place.locked():
        samples = SampleStore.open(places.store or place.samples, create=False)
        signatures = Signatures(places.signing_key)
        versions = Registry(places.registry or place.registry, signatures)
        versions.check()
        champion = champion_model(versions)
        table = HealthRecord.read(place.health).without_sick(samples.read())
        base = base_for(table, bases)
        judged = fit_and_judge(table, settings, samples.version, champion, step, exam, base)
        version = publish_or_keep(versions, judged, champion, place.kept)
        if version is not None:
            node.take_model(place.node, versions.ship(version), version)
    return version, judged
