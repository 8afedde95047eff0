"""Errors, options, files, processes: everything that does not know motion."""

import os

# Threads of PyTorch that wait for each other spin, and take the core that the awaited thread needs if other programs
# keep the cores busy. They sleep after this many turns, as measured by benchmarks/neighbours.py. PyTorch's OpenMP
# library reads the variable when it is loaded, so this package is imported before PyTorch.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
