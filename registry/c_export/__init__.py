"""A model file as C99: one source, one header, no library but the C standard library's.

The graph of the file is read (graph.py), each operator becomes a loop over arrays of fixed size
(operators.py, matrices.py), and two templates hold what is the same for every model (templates/).
Why this is no generator of others: docs/decisions/0028-c-export.md.
"""
