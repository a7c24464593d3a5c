"""benchmarks/paper.py on a small part of the recorded H100, and docs/paper.md against all of it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.paper import findings as paper_findings
from coordinator.report import tile_study as tiles

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper.md"
LARGEST_PNG = 150_000


@pytest.fixture(scope="module")
def paper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_paper", ROOT / "benchmarks" / "paper.py")
    assert spec and spec.loader
    module = sys.modules["benchmarks_paper"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def part() -> pa.Table:
    """Tiled rows and fp32 rows of some shapes, both those of the paper's grid and others."""
    table = pq.read_table(ROOT / "datasets" / "h100_sxm.parquet")
    fp32 = table.filter(pc.and_(pc.equal(table["dtype"], "fp32"), pc.is_in(table["family"], pa.array(["tiled", "cutlass"]))))
    narrow = pc.or_(pc.less(fp32["m"], 700), pc.equal(fp32["family"], "cutlass"))
    return fp32.filter(pc.and_(narrow, pc.less(fp32["n"], 1200)))


def _folder(at: Path, **tables: pa.Table) -> tuple[Path, Path]:
    """Datasets of those names, and the folder of figures beside a copy of the page."""
    for name, table in tables.items():
        pq.write_table(table, at / f"{name}.parquet")
    shutil.copy(PAGE, at / "paper.md")
    return at, at / "paper"


def _run(paper: ModuleType, folders: tuple[Path, Path], *more: str) -> int:
    """With the mean in place of the forest, which takes seconds; the real one runs where the whole page is checked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper_findings, "paper_forest", lambda train, test, target: np.full(len(test), np.nanmean(train.measured[target])))
        return int(paper.main(["--datasets", str(folders[0]), "--out", str(folders[1]), *more]))


def _block(page: str, name: str) -> str:
    return page.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]


@pytest.fixture(scope="module")
def written(paper: ModuleType, part: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folders = _folder(tmp_path_factory.mktemp("paper"), h100_sxm=part)
    assert _run(paper, folders) == 0
    return folders


def test_every_figure_of_the_page_is_written_and_small(written: tuple[Path, Path]) -> None:
    named = re.findall(r"\]\((paper/\w+\.png)\)", PAGE.read_text())
    made = {f"paper/{path.name}" for path in written[1].glob("*.png")}
    assert made == set(named) and len(made) == 7
    for path in (*written[1].glob("*.png"), *(PAGE.parent / name for name in named)):
        assert path.read_bytes()[:4] == b"\x89PNG" and 5_000 < path.stat().st_size < LARGEST_PNG


def test_the_tables_are_those_of_the_data_at_hand(written: tuple[Path, Path], part: pa.Table) -> None:
    page, whole = (written[0] / "paper.md").read_text(), PAGE.read_text()
    names = re.findall(r"<!-- (\w+) -->", page)
    assert len(names) == 15 == len(set(names))
    assert [name for name in names if not _block(page, name).startswith("| ")] == []
    assert [name for name in names if _block(page, name) == _block(whole, name)] == []
    assert set(_block(page, "occupancy").splitlines()) < set(_block(whole, "occupancy").splitlines())
    ok = part.filter(pc.equal(part["status"], "ok"))
    assert f"| `h100_sxm`, all | {len(ok):,} |" in page and "is not recorded yet" in page
    outside = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
    assert outside.sub(r"\1\3", page) == outside.sub(r"\1\3", whole)


def test_a_table_that_is_not_the_datas_is_found_and_left_alone(
    paper: ModuleType, written: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    page = written[0] / "paper.md"
    true = page.read_text()
    assert _run(paper, written, "--check") == 0
    wrong = true.replace("| tile 16 |", "| tile 17 |", 1)
    page.write_text(wrong)
    capsys.readouterr()
    try:
        assert _run(paper, written, "--check") == 1
        assert "tile 17" in capsys.readouterr().out and page.read_text() == wrong
    finally:
        page.write_text(true)


def test_the_tile_study_is_used_where_it_is_recorded(paper: ModuleType, part: pa.Table, tmp_path: Path) -> None:
    tiled = part.filter(pc.equal(part["family"], "tiled")).slice(0, 120)
    of_4 = tiled.filter(pc.equal(tiled["tile_m"], 4))
    as_1 = of_4.set_column(of_4.column_names.index("tile_m"), "tile_m", pa.array([1] * len(of_4), pa.int64())).cast(tiled.schema)
    folder, out = _folder(tmp_path, h100_sxm=part, h100_tiles=pa.concat_tables([tiled, as_1]))
    assert _run(paper, (folder, out)) == 0
    page = (folder / "paper.md").read_text()
    assert f"`h100_tiles` has {len(tiled) + len(as_1)} rows" in page and "not recorded yet" not in page
    assert "| tile 1 | tile 4 |" in _block(page, "time") and "| `h100_tiles` | all |" in _block(page, "energy")
    assert _block(page, "occupancy").splitlines()[2].startswith("| 1 | 1 |")


def test_the_page_says_what_the_data_say(paper: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert paper.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("lacks", ["tiled", "cutlass"])
def test_a_recording_that_lacks_a_family_is_refused_in_a_line(
    paper: ModuleType, part: pa.Table, tmp_path: Path, lacks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = _folder(tmp_path, h100_sxm=part.filter(pc.not_equal(part["family"], lacks)))
    assert _run(paper, folders) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith(f"paper: family = '{lacks}'") and "record datasets/plans/" in said.err
    assert (tmp_path / "paper.md").read_text() == PAGE.read_text() and not folders[1].exists()


def test_a_missing_page_or_dataset_is_said(paper: ModuleType, part: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = _folder(tmp_path)
    assert _run(paper, folders) == 2 and "h100_sxm.parquet" in capsys.readouterr().err
    (tmp_path / "paper.md").write_text("# no tables\n")
    pq.write_table(part, tmp_path / "h100_sxm.parquet")
    assert _run(paper, folders) == 2 and "<!-- extent -->" in capsys.readouterr().err
    (tmp_path / "paper.md").unlink()
    assert _run(paper, folders) == 2 and "there is no page" in capsys.readouterr().err


def test_ranks_share_ties_and_a_constant_has_no_correlation() -> None:
    one, two = np.array([1.0, 2.0, 2.0, 4.0]), np.array([10.0, 20.0, 30.0, 40.0])
    assert paper_findings.spearman(one, two) == pytest.approx(0.9486833)  # scipy.stats.spearmanr
    assert paper_findings.spearman(two, -two) == pytest.approx(-1.0)
    assert np.isnan(paper_findings.spearman(one, np.ones(4)))


def _shape(size: int, *times: float, of: tuple[int, ...]) -> tiles.Group:
    rows = [{"m": size, "n": size, "k": size, "batch": 1, "tile_m": tile, "runtime_us": us} for tile, us in zip(of, times, strict=True)]
    return {row["tile_m"]: row for row in rows}


def test_each_smallest_tile_is_a_baseline_beside_the_tiles_from_it_on() -> None:
    small, large = _shape(512, 90.0, 5.0, 1.0, of=(1, 4, 16)), _shape(4096, 50.0, 10.0, of=(4, 16))
    of_1, of_4, of_16 = tiles.tuned_by_tile({"study": [small, large]})["study"]
    assert (of_1.name, of_1.baseline, of_1.found) == ("tiled 1 to 16, study", "tile 1", [small])
    assert (of_4.baseline, [sorted(group) for group in of_4.found]) == ("tile 4", [[4, 16], [4, 16]])
    assert of_16.baseline == "tile 16" and [sorted(group) for group in of_16.found] == [[4, 16], [4, 16]]


def test_rows_of_two_boards_are_never_compared() -> None:
    rows = [{"m": 1, "device_uuid": board, "tile": tile, "us": us} for board, tile, us in (("a", 8, 2.0), ("a", 16, 1.0), ("b", 32, 9.0), ("c", 8, 7.0))]
    found = tiles.groups(rows, ("m",), lambda row: row["tile"])
    assert len(found) == 1 and tiles.ratios(found, "us", 8, 16).tolist() == [2.0]
    assert len(tiles.ratios(found, "us", 32, 16)) == 0


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("| 1.06 (180) |", "| 1.07 (180) |", True),
        ("| 1.06 (180) |", "| 1.08 (180) |", False),
        ("| 1.06 (180) |", "| 1.06 (181) |", False),
        ("| 1,758 |", "| 1,759 |", False),
        ("| tile 8 |", "| tile 8 | tile 16 |", False),
    ],
)
def test_only_a_last_decimal_may_differ(paper: ModuleType, one: str, two: str, same: bool) -> None:
    assert paper.alike(one, two) is same
