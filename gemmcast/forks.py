"""What a forked process must open anew.

After `os.fork` only the forking thread goes on in the child: a thread that followed a directory is
gone, and whatever another thread had locked at that moment stays locked. Objects that hold threads
or locks are tracked here, and each is informed in the child before anything else runs there.
Does not know what they do about it.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """An object that a child process cannot use as it is."""

    def after_fork(self) -> None:
        """Runs in the child. Must be quick: the child may never use the object."""


_tracked: weakref.WeakSet[Forked] = weakref.WeakSet()


def track(instance: Forked) -> None:
    """Call its `after_fork` in every child, as long as it lives."""
    _tracked.add(instance)


def _after_fork() -> None:
    for instance in list(_tracked):
        instance.after_fork()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
