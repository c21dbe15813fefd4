"""A report of finished runs."""
