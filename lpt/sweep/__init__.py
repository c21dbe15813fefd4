"""Multiruns that finish, resume, and end in one record and one report."""
