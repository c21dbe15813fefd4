"""Tuning methods: what is trained around a frozen split model; the late prompt so far."""
