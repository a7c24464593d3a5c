"""What Ray gets of this project and of this machine before it starts.

Nodes of a cluster that was joined from outside a job get the project's sources and nothing else:
data, models and workspaces may be large, and Ray ships 512 MiB at most. Ray's sockets lie in the
directory for temporary files, and the path of a socket is short. Does not import Ray.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from gemmcast.errors import InputError

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = ("py", "toml", "json", "cu", "cuh", "h", "hpp")
"""Endings of the files that agents may need."""
MODELS: Final = "gemmcast/models/*.onnx"
"""Those that come with gemmcast; models of others may be large."""
LEFT_OUT: Final = (".?*", "datasets", "demo", "workspace", "docs", "tests", "benchmarks")
"""Folders that are of no use to an agent."""
LONGEST_SOCKET: Final = 107
"""Letters of the path of a Unix socket."""
SOCKET: Final = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""What Ray adds to the directory."""
MAX_DIRECTORY: Final = LONGEST_SOCKET - len(SOCKET)


def working_directory() -> dict[str, object]:
    """The runtime environment of a driver that joins from outside a job.

    Patterns are those of .gitignore, of which the last one that matches decides: no file but the
    sources. None of them may match `.`, the folder itself.
    """
    sources = [f"!*.{ending}" for ending in SOURCES]
    excludes = ["?*.*", *sources, f"!{MODELS}", *LEFT_OUT]
    return {"working_dir": str(ROOT), "excludes": excludes}


def too_large(message: str) -> InputError:
    """The error for what Ray says of a folder that it does not ship."""
    rule = f"holds more sources than Ray ships ({message})"
    way_out = f"only {', '.join(SOURCES)} and files without an ending are shipped: move others away"
    return InputError("project folder", str(ROOT), rule, way_out)


def check_temporary_directory() -> None:
    """Raise InputError where Ray's sockets would have too long a path."""
    variable = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    directory = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(directory)) > MAX_DIRECTORY:
        rule = f"is too long for Ray's sockets (at most {MAX_DIRECTORY} letters)"
        raise InputError(variable, directory, rule, "set RAY_TMPDIR=/tmp")
