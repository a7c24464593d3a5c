"""Tuned tables as the files that runtimes read, one module a format; `formats.py` lists them."""
