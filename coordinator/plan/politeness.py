"""The table [politeness] of a plan: what a fleet leaves to others.

The docstring under a field is its entry in docs/plan.md. Does not know what time it is, nor who
uses a GPU.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from coordinator.plan.hours import Hours, Window, zone_of
from coordinator.plan.sweep import PlanTable


class Politeness(PlanTable):
    """What is left to others on nodes that are shared with them."""

    gpus_per_node: Annotated[int, Field(ge=1)] | None = None
    """At most this many GPUs of a node get an agent; Ray chooses which. Without it all do."""
    only_idle: bool = False
    """`true`: a GPU is not touched while other processes hold memory of it or compute on it. The
    measuring process ends as soon as one comes, and gives its memory back. `false`: it stays, and
    waits for them to leave."""
    hours: tuple[str, ...] = ()
    """List of windows in which is measured, on the wall clock of `timezone`: `"22:00-06:00"`,
    `"Mon-Fri 20:00-07:00"`, `"Sat-Sun 00:00-24:00"`. A window over midnight belongs to the day on
    which it begins. When the last one closes, agents finish the cells that they have and give their
    devices back."""
    timezone: str | None = None
    """With `hours`, and required there: a name of the IANA database, such as `"Europe/Berlin"`, or
    `"UTC"`."""

    @field_validator("hours", mode="before")
    @classmethod
    def _hours_as_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("hours")
    @classmethod
    def _are_windows(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            Window.of(value)
        return values

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str | None) -> str | None:
        if value is not None:
            zone_of(value)
        return value

    @model_validator(mode="after")
    def _hours_have_a_zone(self) -> Self:
        if bool(self.hours) != (self.timezone is not None):
            raise ValueError('hours and timezone go together: timezone = "Europe/Berlin" or "UTC"')
        return self

    def opening_hours(self) -> Hours:
        """The windows; always open where there are none."""
        if self.timezone is None:
            return Hours()
        windows = tuple(map(Window.of, self.hours))
        return Hours(windows=windows, zone=zone_of(self.timezone))
