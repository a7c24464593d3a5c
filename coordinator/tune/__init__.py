"""Tuning: the best configuration of each GEMM of a list, on every type of device of a fleet.

request    what the user wants           problem    a GEMM on a type of device, and its rivals
objective  what is minimised             pools      which rivals there are, best guess first
turns      what is measured next         readings   what was measured
paired     the statistics                race       one problem, from first turn to verdict
search     all problems, in rounds       transfer   one type's readings rank for another
session    fleet, store and rounds       outcome, result, output   tables and notes
"""
