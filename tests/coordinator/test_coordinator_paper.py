"""benchmarks/paper on a small part of the recorded H100, and docs/paper.md against all of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.paper import __main__ as paper
from benchmarks.paper import forest
from benchmarks.paper.findings import spearman
from coordinator.report import tile_study
from costmodel.dataset import TrainingSet, Values
from gemmcast.arrow import read_samples

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper.md"
LARGEST_PNG = 150_000
Folders = tuple[Path, Path]
"""Of the datasets and the page, and of the figures."""


@pytest.fixture(scope="module")
def part() -> pa.Table:
    """Tiled rows and fp32 rows of some shapes, on the paper's grid and off it."""
    table = read_samples(ROOT / "datasets" / "h100_sxm.parquet")
    fp32 = table.filter(pc.field("dtype") == "fp32")
    tiled = (pc.field("family") == "tiled") & (pc.field("m") < 700)
    cutlass = pc.field("family") == "cutlass"
    narrow = pc.field("n") < 1200
    return fp32.filter((tiled | cutlass) & narrow)


def _folders(at: Path, **tables: pa.Table) -> Folders:
    """Datasets of those names beside a copy of the page."""
    for name, table in tables.items():
        pq.write_table(table, at / f"{name}.parquet")
    shutil.copy(PAGE, at / "paper.md")
    return at, at / "paper"


def _mean_forest(training: TrainingSet, test: TrainingSet, target: str) -> Values:
    mean = np.nanmean(training.measured[target])
    return np.full(len(test), mean)


def _run(folders: Folders, *options: str) -> int:
    """With the mean in place of the forest, which takes seconds.

    The real one runs where the whole page is checked.
    """
    datasets, out = folders
    arguments = ["--datasets", str(datasets), "--out", str(out), *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "paper_forest", _mean_forest)
        return paper.main(arguments)


def _block(page: str, name: str) -> str:
    _, _, rest = page.partition(f"<!-- {name} -->\n")
    block, _, _ = rest.partition(f"<!-- /{name} -->")
    return block


@pytest.fixture(scope="module")
def written(part: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folders = _folders(tmp_path_factory.mktemp("paper"), h100_sxm=part)
    assert _run(folders) == 0
    return folders


def test_every_figure_of_the_page_is_written_and_small(written: Folders) -> None:
    named = re.findall(r"\]\((paper/\w+\.png)\)", PAGE.read_text())
    written_here = list(written[1].glob("*.png"))
    assert {f"paper/{path.name}" for path in written_here} == set(named)
    assert len(written_here) == 7
    committed = [PAGE.parent / name for name in named]
    for path in (*written_here, *committed):
        png = path.read_bytes()
        assert png.startswith(b"\x89PNG")
        assert 5_000 < len(png) < LARGEST_PNG


def test_the_tables_are_those_of_the_given_data(written: Folders, part: pa.Table) -> None:
    page = (written[0] / "paper.md").read_text()
    committed = PAGE.read_text()
    names = re.findall(r"<!-- (\w+) -->", page)
    assert len(names) == 15 == len(set(names))
    for name in names:
        assert _block(page, name).startswith("| ")
        assert _block(page, name) != _block(committed, name)
    occupancy = set(_block(page, "occupancy").splitlines())
    all_tiles = set(_block(committed, "occupancy").splitlines())
    assert occupancy < all_tiles
    ok = part.filter(pc.field("status") == "ok")
    assert f"| `h100_sxm`, all | {len(ok):,} |" in page
    assert "is not recorded yet" in page


def test_the_text_around_the_tables_stays(written: Folders) -> None:
    block = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
    page = (written[0] / "paper.md").read_text()
    committed = PAGE.read_text()
    assert block.sub(r"\1\3", page) == block.sub(r"\1\3", committed)


def test_check_reports_a_wrong_table_and_leaves_it_alone(
    written: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    page = written[0] / "paper.md"
    right = page.read_text()
    assert _run(written, "--check") == 0
    wrong = right.replace("| tile 16 |", "| tile 17 |", 1)
    page.write_text(wrong)
    capsys.readouterr()
    try:
        assert _run(written, "--check") == 1
        assert "tile 17" in capsys.readouterr().out
        assert page.read_text() == wrong
    finally:
        page.write_text(right)


def test_the_tile_study_is_used_where_it_is_recorded(part: pa.Table, tmp_path: Path) -> None:
    is_tiled = (pc.field("family") == "tiled") & (pc.field("status") == "ok")
    tiled = part.filter(is_tiled).slice(0, 120)
    tile_4 = tiled.filter(pc.field("tile_m") == 4)
    place = tile_4.column_names.index("tile_m")
    ones = pa.array([1] * len(tile_4))
    tile_1 = tile_4.set_column(place, "tile_m", ones).cast(tiled.schema)
    study = pa.concat_tables([tiled, tile_1])
    folders = _folders(tmp_path, h100_sxm=part, h100_tiles=study)
    assert _run(folders) == 0
    page = (tmp_path / "paper.md").read_text()
    assert f"`h100_tiles` has {len(study)} rows" in page
    assert "not recorded yet" not in page
    assert "| tile 1 | tile 4 |" in _block(page, "time")
    assert "| `h100_tiles` | all |" in _block(page, "energy")
    first_line = _block(page, "occupancy").splitlines()[2]
    assert first_line.startswith("| 1 | 1 |")


def test_the_page_says_what_the_data_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert paper.main(["--check"]) == 0, capsys.readouterr().out


def test_the_page_names_the_command_that_works() -> None:
    assert paper.COMMAND == "python -m benchmarks.paper"
    assert f".venv/bin/{paper.COMMAND}" in PAGE.read_text()


@pytest.mark.parametrize("missing", ["tiled", "cutlass"])
def test_a_recording_without_a_family_is_refused_in_a_line(
    part: pa.Table, tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = part.filter(pc.field("family") != missing)
    folders = _folders(tmp_path, h100_sxm=table)
    assert _run(folders) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"error: family = '{missing}'")
    assert "record datasets/plans/" in printed.err
    assert (tmp_path / "paper.md").read_text() == PAGE.read_text()
    assert not folders[1].exists()


def test_a_missing_dataset_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(_folders(tmp_path)) == 2
    assert "h100_sxm.parquet" in capsys.readouterr().err


def test_a_page_without_a_block_is_reported(
    part: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = _folders(tmp_path, h100_sxm=part)
    (tmp_path / "paper.md").write_text("# no tables\n")
    assert _run(folders) == 2
    assert "<!-- extent -->" in capsys.readouterr().err


def test_a_missing_page_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = _folders(tmp_path)
    (tmp_path / "paper.md").unlink()
    assert _run(folders) == 2
    assert "there is no page" in capsys.readouterr().err


def test_ranks_share_ties_and_a_constant_has_no_correlation() -> None:
    one = np.array([1.0, 2.0, 2.0, 4.0])
    two = np.array([10.0, 20.0, 30.0, 40.0])
    assert spearman(one, two) == pytest.approx(0.9486833)
    assert spearman(two, -two) == pytest.approx(-1.0)
    assert np.isnan(spearman(one, np.ones(4)))


def _group(size: int, times_us: dict[int, float]) -> tile_study.TileGroup:
    """One shape with a time for each tile."""
    group = {}
    for tile, runtime_us in times_us.items():
        group[tile] = {
            "m": size,
            "n": size,
            "k": size,
            "batch": 1,
            "tile_m": tile,
            "runtime_us": runtime_us,
        }
    return group


def _tiles(tuned: tile_study.TunedGroups) -> list[list[int]]:
    """The tiles of each group."""
    tiles = []
    for group in tuned.groups:
        tiles.append([row["tile_m"] for row in group.rows])
    return tiles


def test_each_smallest_tile_is_a_baseline_beside_the_tiles_from_it_on() -> None:
    small = _group(512, {1: 90.0, 4: 5.0, 16: 1.0})
    large = _group(4096, {4: 50.0, 16: 10.0})
    tuned = tile_study.tuned_by_tile({"study": [small, large]})
    from_1, from_4, base = tuned["study"]
    assert from_1.name == "tiled 1 to 16, study"
    assert from_1.baseline == "tile 1"
    (only,) = from_1.groups
    assert only.rows == list(small.values())
    assert only.baseline == small[1]
    assert from_4.baseline == "tile 4"
    assert _tiles(from_4) == [[4, 16], [4, 16]]
    assert base.baseline == "tile 16"
    assert _tiles(base) == [[4, 16], [4, 16]]
    assert base.speedups().tolist() == [1.0, 1.0]


def test_rows_of_two_boards_are_never_compared() -> None:
    rows = [
        {"m": 1, "device_uuid": "a", "tile": 8, "us": 2.0},
        {"m": 1, "device_uuid": "a", "tile": 16, "us": 1.0},
        {"m": 1, "device_uuid": "b", "tile": 32, "us": 9.0},
        {"m": 1, "device_uuid": "c", "tile": 8, "us": 7.0},
    ]
    groups = tile_study.group_rows(rows, ("m",), lambda row: row["tile"])
    assert len(groups) == 1
    ratios = tile_study.reading_ratios(groups, "us", 8, 16)
    assert ratios.tolist() == [2.0]
    ratios = tile_study.reading_ratios(groups, "us", 32, 16)
    assert ratios.tolist() == []


@pytest.mark.parametrize(
    ("one", "two", "alike"),
    [
        ("| 1.06 (180) |", "| 1.07 (180) |", True),
        ("| 1.06 (180) |", "| 1.08 (180) |", False),
        ("| 1.06 (180) |", "| 1.06 (181) |", False),
        ("| 1,758 |", "| 1,759 |", False),
        ("| tile 8 |", "| tile 8 | tile 16 |", False),
    ],
)
def test_only_a_last_decimal_may_differ(one: str, two: str, alike: bool) -> None:
    assert paper.is_alike(one, two) is alike
