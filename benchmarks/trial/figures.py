"""What a trial of a fleet comes to (fleet_trial.py prints it as JSON)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Figures:
    """What a trial came to."""

    gpus: int
    agents: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    cells_planned: int | None = None
    """Of the last run's own count."""
    cells_committed: int | None = None
    """Different cells with an answer in the store."""
    answers: int | None = None
    """Rows that are answers; as many as cells, if each was committed exactly once."""
    rows_by_status: dict[str, int] = field(default_factory=dict)
    start_s: float | None = None
    """From the first submission until rows of every agent were committed."""
    recovery_s: dict[str, float] = field(default_factory=dict)
    """What was killed -> until the same agent's next row was committed."""
    push_s: dict[str, float] = field(default_factory=dict)
    """Version -> from the trial's seeing it in the registry until every agent had read it back; 0:
    they had it by then."""
    rollback_s: float | None = None
    rolled_back_to: str | None = None
    committed_at_rollback: int | None = None
    """Fewer than planned: the sweep went on."""
    models: dict[str, str | None] = field(default_factory=dict)
    """Agent -> the version that it read back last."""
    job: str | None = None
    """How Ray says the last job ended."""
    left_after_run: list[str] = field(default_factory=list)
    """Agents, children and coordinators that outlived the run."""
    left_after_stop: list[str] = field(default_factory=list)
    """Any process of the cluster that outlived the head."""
    failure: str | None = None
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, nothing done twice and nobody left behind."""
        if self.cells_planned is None or self.committed_at_rollback is None:
            return False
        is_once = self.cells_planned == self.cells_committed == self.answers
        is_early = self.committed_at_rollback < self.cells_planned
        is_clean = not (self.left_after_run or self.left_after_stop)
        return is_once and is_early and is_clean and self.failure is None
