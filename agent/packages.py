"""Whether this environment has the packages of the locks: `python -m agent.packages LOCK...`

A node whose NumPy, CUDA or Ray differs from the others measures something else, so a node is
checked before Ray starts on it (deploy/node.sh) and an image when it is built (deploy/Dockerfile).
Compares names and versions only; installs nothing, and does not import what it compares.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from gemmcast.errors import InputError

SHOWN = 5
"""How many differences the one line names."""

Installed = Callable[[str], str | None]
"""Name of a package -> its version in this environment; None: it is not there."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A package that is not what a lock names."""

    name: str
    locked: str
    """Such as `==2.60.0`."""
    here: str | None
    """The version that is here; None: none."""

    def __str__(self) -> str:
        return f"{self.name} is {self.here or 'missing'}, not {self.locked.removeprefix('==')}"


def installed_version(name: str) -> str | None:
    """The version of a package in this environment; None if it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def read_lock(path: Path) -> list[Requirement]:
    """The packages of a lock file that this machine and Python need.

    Raises:
        InputError: the file can't be read, or a line is no requirement.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        rule = f"can't be read ({error.strerror})"
        raise InputError("lock", str(path), rule, "name a requirements*.lock") from None
    named = [line for line in lines if line.strip() and not line.startswith("#")]
    requirements = [_requirement(path, line) for line in named]
    return [one for one in requirements if one.marker is None or one.marker.evaluate()]


def _requirement(path: Path, line: str) -> Requirement:
    try:
        return Requirement(line)
    except InvalidRequirement:
        rule = f"a line of {path} is no requirement"
        raise InputError("lock", line, rule, "write it anew with `make lock`") from None


def differences(
    locks: Sequence[Path], installed: Installed = installed_version
) -> tuple[int, list[Difference]]:
    """How many packages the locks name, and which of them differ here.

    Raises:
        InputError: of `read_lock`.
    """
    needed = {one.name: one for path in locks for one in read_lock(path)}
    differing: list[Difference] = []
    for name, requirement in needed.items():
        here = installed(name)
        if here is None or not requirement.specifier.contains(here, prereleases=True):
            differing.append(Difference(name, str(requirement.specifier), here))
    return len(needed), differing


def main(arguments: Sequence[str]) -> int:
    """Print one line; 0 if everything is as locked, 1 if not, 2 for a lock that can't be read."""
    if not arguments:
        print("usage: python -m agent.packages LOCK...", file=sys.stderr)
        return 2
    try:
        count, differing = differences([Path(one) for one in arguments])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not differing:
        print(f"packages as locked: {count}")
        return 0
    shown = "; ".join(str(one) for one in differing[:SHOWN])
    more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
    way_out = "run `make env` on this node"
    print(f"error: {len(differing)} packages differ: {shown}{more}; {way_out}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
