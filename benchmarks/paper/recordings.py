"""The rows that docs/paper.md compares: the tiled kernel, and CUTLASS on the paper's shapes.

`h100_sxm` must be there. `h100_tiles`, the tile study with the paper's tiles and shapes, is used if
it exists. Rows whose status is not ok are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from coordinator.report.tile_study import TileGroup, group_rows, rows_where
from costmodel.dataset import TrainingSet, training_set
from gemmcast.arrow import read_samples
from gemmcast.errors import InputError
from gemmcast.rows import Row

MAIN, STUDY = "h100_sxm", "h100_tiles"
SHAPE = ("m", "n", "k")
GRID = {
    "m": {512, 1024, 2048, 128256},
    "n": {512, 1024, 2048},
    "k": {512, 1024, 2048},
}
"""The sizes of the paper's CUTLASS kernels."""
HALF_PRECISION = {"fp16", "bf16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One file of samples."""

    all_rows: int
    """Rows of any status."""
    rows: list[Row]
    """Rows with status ok."""
    tiled_rows: list[Row]
    """Of these, the tiled kernel's."""
    tile_groups: list[TileGroup]
    """Shapes on one board that were measured with two tiles or more."""
    data: TrainingSet
    """The rows that a model can use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """Both files."""

    main: Recording
    study: Recording | None
    grid: list[Row]
    """CUTLASS fp32 SIMT kernels of MAIN on GRID."""

    def by_name(self) -> dict[str, Recording]:
        """MAIN, and STUDY if it was recorded."""
        named = {MAIN: self.main}
        if self.study:
            named[STUDY] = self.study
        return named

    def tile_groups(self) -> dict[str, list[TileGroup]]:
        """Dataset -> its groups, of the datasets that have one."""
        groups = {name: recording.tile_groups for name, recording in self.by_name().items()}
        return {name: some for name, some in groups.items() if some}


def read_recordings(folder: Path) -> Recordings:
    """Read both files.

    Raises:
        InputError: a file cannot be used, or the rows of a kernel are missing.
    """
    main = _read(folder / f"{MAIN}.parquet")
    study_path = folder / f"{STUDY}.parquet"
    study = _read(study_path) if study_path.exists() else None
    grid = [row for row in simt_rows(main.rows) if is_on_grid(row)]
    recordings = Recordings(main=main, study=study, grid=grid)
    if not recordings.tile_groups():
        rule = f"{folder} has no shape with two tiles of the tiled kernel"
        raise InputError("family", "tiled", rule, "record datasets/plans/tiles.toml")
    if not grid:
        rule = f"{folder} has no fp32 rows on the paper's grid"
        raise InputError("family", "cutlass", rule, "record datasets/plans/reference.toml")
    return recordings


def _read(path: Path) -> Recording:
    table = read_samples(path)
    rows = rows_where(table.to_pylist(), status="ok")
    tiled_rows = rows_where(rows, family="tiled")
    return Recording(
        all_rows=len(table),
        rows=rows,
        tiled_rows=tiled_rows,
        tile_groups=group_rows(tiled_rows, SHAPE, tile_of),
        data=training_set(table),
    )


def tile_of(row: Row) -> int:
    """The tile of the tiled kernel, which is a square."""
    return int(row["tile_m"])


def simt_rows(rows: Iterable[Row]) -> list[Row]:
    """CUTLASS fp32 kernels that use no tensor cores, as the paper's."""
    fp32 = rows_where(rows, family="cutlass", dtype="fp32", stages=2)
    return [row for row in fp32 if row["split_k"] <= 1]


def half_precision_rows(rows: Iterable[Row]) -> list[Row]:
    """Rows in fp16 or bf16."""
    return [row for row in rows if row["dtype"] in HALF_PRECISION]


def is_on_grid(row: Row) -> bool:
    """Whether the shape is one of the paper's CUTLASS shapes."""
    return all(row[name] in sizes for name, sizes in GRID.items())
