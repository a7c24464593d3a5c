"""The findings of arXiv 2411.16954 made again on the recorded H100s: docs/paper.md and its figures.

    .venv/bin/python benchmarks/paper.py [--out docs/paper] [--datasets datasets]     pictures into docs/paper/, tables into docs/paper.md
    .venv/bin/python benchmarks/paper.py --check                                      writes nothing; 1 if the page's tables are not the data's

Tables stand in the page between <!-- NAME --> and <!-- /NAME -->; the rest of it is written by hand. Rows are compared within a group: the same
GEMM on the same board, one thing different. A ratio is a geometric mean over groups, with the number of groups in brackets. `h100_sxm` must be
there; `h100_tiles`, the tile study, is used when it is. --check lets decimals differ by one in the last digit: forests do, by machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.paper.findings import MAIN, TILES, fit_forests, read
from benchmarks.paper.plots import draw
from benchmarks.paper.tables import tables
from gemmcast.errors import GemmcastError, InputError
from gemmcast.modeldir import write_atomically

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "paper", help="folder of the figures; the page is beside it, with .md")
    parser.add_argument("--datasets", type=Path, default=ROOT / "datasets", help=f"folder of {MAIN}.parquet and {TILES}.parquet")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page's tables are not what the data say")
    args = parser.parse_args(arguments)
    try:
        page = args.out.with_suffix(".md")
        if not page.is_file():
            raise InputError("--out", str(args.out), f"there is no page {page}", "copy docs/paper.md to there: its tables are then written anew")
        data = read(args.datasets)
        forests = fit_forests(data)
        text = page.read_text()
        made = filled(text, tables(data, forests))
        if args.check:
            return _checked(page, text, made)
        draw(args.out, data, forests)
        write_atomically(page, made.encode())
    except (GemmcastError, OSError) as error:
        print(f"paper: {error}", file=sys.stderr)
        return 2
    print(f"{page} and {args.out}/*.png, from {data.all_rows:,} rows")
    return 0


def filled(text: str, blocks: dict[str, str]) -> str:
    """The page with its blocks written anew. Raises InputError where it lacks one."""
    for name, block in blocks.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not start or not end:
            raise InputError("page", name, "there is no such block in the page", f"write <!-- {name} --> and <!-- /{name} -->, a line each")
        text = f"{before}{start}{block}\n{end}{after}"
    return text


def alike(one: str, two: str) -> bool:
    """The same words and whole numbers; decimals may differ by one in the last digit."""
    number = re.compile(r"\d[\d,]*\.?\d*")
    found = zip(number.findall(one), number.findall(two), strict=False)
    return number.sub("#", one) == number.sub("#", two) and all(a == b or _near(a.replace(",", ""), b.replace(",", "")) for a, b in found)


def _near(one: str, two: str) -> bool:
    digits = [len(text.partition(".")[2]) for text in (one, two)]
    return digits[0] == digits[1] > 0 and abs(float(one) - float(two)) < 1.5 * 10 ** -digits[0]


def _checked(page: Path, text: str, made: str) -> int:
    pairs = list(zip(text.splitlines(), made.splitlines(), strict=False))
    wrong = [f"{page}:{i}: says {old!r}; the data say {new!r}" for i, (old, new) in enumerate(pairs, 1) if not alike(old, new)]
    if len(text.splitlines()) != len(made.splitlines()):
        wrong.append(f"{page} has {len(text.splitlines())} lines; the data make {len(made.splitlines())}")
    print("\n".join([*wrong[:10], "write it anew: .venv/bin/python benchmarks/paper.py"]) if wrong else f"{page} is what the data say")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
