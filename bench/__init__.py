"""Benchmarks: python -m bench (docs/performance.md)."""
