"""Command lines: arguments and printing, no logic."""
