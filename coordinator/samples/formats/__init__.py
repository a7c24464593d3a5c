"""Tables that others measured, one module for each format. What is common to them is in coordinator/samples/importer.py."""
