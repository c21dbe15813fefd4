"""Sweeps: many runs, resumed where they stopped, with one table of results and one report."""
