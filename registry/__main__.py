"""`python -m registry`."""

from gemmcast.program import run_program

run_program("registry.cli")
