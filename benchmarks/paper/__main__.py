"""Repeat the findings of arXiv 2411.16954 on the recorded H100s: docs/paper.md and its figures.

    python -m benchmarks.paper [--out docs/paper] [--datasets datasets]
    python -m benchmarks.paper --check

Needs no GPU; takes half a minute on two cores.

The first writes pictures into docs/paper/ and tables into docs/paper.md. The second writes nothing
and exits with 1 if a table on the page is not what the data say; decimals may differ by one in the
last digit, because forests differ between machines. Tables stand on the page between <!-- NAME -->
and <!-- /NAME -->; the text around them is written by hand.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.forest import fit_forests
from benchmarks.paper.plots import draw
from benchmarks.paper.recordings import MAIN, STUDY, read_recordings
from benchmarks.paper.tables import tables
from gemmcast.cli_parser import Parser
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically
from gemmcast.program import run_command, run_script

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "python -m benchmarks.paper"
NUMBER = re.compile(r"\d[\d,]*\.?\d*")
MAX_SHOWN = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 for a page that is not up to date, 2 for bad input."""
    return run_command(lambda: _parsed_run(arguments))


def _parsed_run(arguments: Sequence[str] | None) -> int:
    args = _parser().parse_args(arguments)
    return _run(args.out, args.datasets, check=args.check)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=COMMAND,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "docs" / "paper",
        help="folder of the figures; the page lies beside it and has the same name with .md",
    )
    parser.add_argument(
        "--datasets",
        type=Path,
        default=ROOT / "datasets",
        help=f"folder of {MAIN}.parquet and {STUDY}.parquet",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 if the tables on the page are not what the data say",
    )
    return parser


def _run(out: Path, datasets: Path, *, check: bool) -> int:
    page = out.with_suffix(".md")
    if not page.is_file():
        way_out = "copy docs/paper.md to there; its tables are then written anew"
        raise InputError("--out", str(out), f"there is no page {page}", way_out)
    recordings = read_recordings(datasets)
    forests = fit_forests(recordings)
    text = page.read_text()
    updated = fill_blocks(text, tables(recordings, forests))
    if check:
        return _report_differences(page, text, updated)
    draw(out, recordings, forests)
    write_atomically(page, updated.encode())
    print(f"{page} and {out}/*.png, from {recordings.main.all_rows:,} rows")
    return 0


def fill_blocks(text: str, blocks: dict[str, str]) -> str:
    """The page with new blocks.

    Raises:
        InputError: the page lacks a block.
    """
    for name, block in blocks.items():
        start = f"<!-- {name} -->\n"
        end = f"<!-- /{name} -->"
        before, found_start, rest = text.partition(start)
        _, found_end, after = rest.partition(end)
        if not found_start or not found_end:
            rule = "there is no such block in the page"
            way_out = f"write <!-- {name} --> and {end}, a line each"
            raise InputError("page", name, rule, way_out)
        text = f"{before}{start}{block}\n{end}{after}"
    return text


def is_alike(one: str, two: str) -> bool:
    """The same words and whole numbers; decimals may differ by one in the last digit."""
    if NUMBER.sub("#", one) != NUMBER.sub("#", two):
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(two), strict=True)
    return all(a == b or _is_near(a.replace(",", ""), b.replace(",", "")) for a, b in pairs)


def _is_near(one: str, two: str) -> bool:
    decimals = len(one.partition(".")[2])
    if decimals == 0 or decimals != len(two.partition(".")[2]):
        return False
    last_digit = 10.0**-decimals
    return abs(float(one) - float(two)) < 1.5 * last_digit


def _report_differences(page: Path, text: str, updated: str) -> int:
    """Print the differences. Returns the exit code."""
    old_lines = text.splitlines()
    new_lines = updated.splitlines()
    differences = []
    for number, (old, new) in enumerate(zip(old_lines, new_lines, strict=False), 1):
        if not is_alike(old, new):
            differences.append(f"{page}:{number}: has {old!r}; the data say {new!r}")
    if len(old_lines) != len(new_lines):
        counts = f"{page} has {len(old_lines)} lines; the data give {len(new_lines)}"
        differences.append(counts)
    if not differences:
        print(f"{page} is what the data say")
        return 0
    print("\n".join([*differences[:MAX_SHOWN], f"update it: {COMMAND}"]))
    return 1


if __name__ == "__main__":
    run_script(main)
