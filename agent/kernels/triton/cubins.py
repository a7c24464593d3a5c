"""The folder of compiled Triton kernels: a cubin and a JSON file of facts for each compilation.

They are named by the hash of all that decides the machine code but Triton's version, which is in
the facts: `build` compiles again what another version has compiled. A compilation that Triton
refused has facts alone, with the reason. The facts are written last, each file in one step, so what
has facts is complete. Needs neither Triton nor CUDA.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from agent.kernels.triton.fit import Compilation
from gemmcast.errors import MeasurementError

FOLDER_VARIABLE: Final = "GEMMCAST_TRITON"


@dataclass(frozen=True, slots=True, kw_only=True)
class CubinFacts:
    """What is known of a compilation without a GPU."""

    triton: str
    """Version that compiled it."""
    entry: str = ""
    """Name of the kernel in the cubin."""
    smem_bytes: int = 0
    """Dynamic shared memory of one block."""
    regs: int = 0
    """Registers of one thread."""
    spill_bytes: int = 0
    """Local memory of one thread."""
    error: str = ""
    """Why there is no cubin; empty where there is one."""


def default_folder() -> Path:
    """Where cubins are: $GEMMCAST_TRITON, else in the user's cache."""
    configured = os.environ.get(FOLDER_VARIABLE)
    if configured:
        return Path(configured)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "gemmcast" / "triton"


class Cubins:
    """Of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, compilation: Compilation) -> Path:
        """Of the cubin."""
        return self._stem(compilation).with_suffix(".cubin")

    def facts(self, compilation: Compilation) -> CubinFacts | None:
        """None where it was never compiled."""
        path = self._stem(compilation).with_suffix(".json")
        try:
            return CubinFacts(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            # Damaged, or of another version: it is compiled again.
            return None

    def compiled(self, compilation: Compilation) -> CubinFacts:
        """The facts of a cubin that can be loaded.

        Raises:
            MeasurementError: "unsupported" where it was not compiled, or cannot be.
        """
        facts = self.facts(compilation)
        if facts is not None and facts.error:
            reason = f"triton {facts.triton} cannot compile {compilation}: {facts.error}"
            raise MeasurementError("unsupported", reason)
        if facts is None or not self.path(compilation).is_file():
            kernel = compilation.kernel.partition("@")[0]
            command = f"python -m agent.kernels.triton build --arch {compilation.arch}"
            reason = f"{compilation} was not compiled into {self.folder}"
            raise MeasurementError("unsupported", f"{reason}: run {command} --kernel {kernel}")
        return facts

    def write(self, compilation: Compilation, facts: CubinFacts, cubin: bytes) -> None:
        """Keep what was compiled; an empty cubin where nothing was."""
        stem = self._stem(compilation)
        stem.parent.mkdir(parents=True, exist_ok=True)
        if cubin:
            _place(stem.with_suffix(".cubin"), cubin)
        text = json.dumps(asdict(facts), indent=1) + "\n"
        _place(stem.with_suffix(".json"), text.encode())

    def _stem(self, compilation: Compilation) -> Path:
        return self.folder / compilation.arch / compilation.key


def _place(path: Path, content: bytes) -> None:
    """Write the whole file or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)
