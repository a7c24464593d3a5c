"""`gemmcast` and `python -m gemmcast`."""

from typing import NoReturn

from gemmcast.program import run_program


def run() -> NoReturn:
    """Run the command line of this process."""
    run_program("gemmcast.cli")


if __name__ == "__main__":
    run()
