"""How fast a model answers on this machine: `lydite bench`, as a library."""

from lydite.bench.measure import Cell, Grid, Speeds, bench

__all__ = ["Cell", "Grid", "Speeds", "bench"]
