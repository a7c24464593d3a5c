"""How far a training is: a callable that the parts of a training report to.

    step("networks", 3, 9)    three of nine networks are fitted

A stage begins with 0 parts done; the next stage begins when it is over. Knows nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Callable

Step = Callable[[str, int, int], None]
"""Called with the name of a stage, its parts that are done, and all its parts."""


def no_step(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def on_trial(step: Step) -> Step:
    """The same, for the fit that only chooses the weights of the trees."""

    def report(stage: str, done: int, total: int) -> None:
        """One part of the trial."""
        step(f"trial {stage}", done, total)

    return report
