"""Tuning methods: what trains in a split model or beside it."""
