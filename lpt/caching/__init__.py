"""The hidden-state cache: when it is used, how it is filled, how entries are stored."""
