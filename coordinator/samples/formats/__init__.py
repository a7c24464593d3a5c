"""Readers of measured tables, one module a format; coordinator/samples/importer.py uses them."""
