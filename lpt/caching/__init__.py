"""The hidden-state cache: the frozen lower stack reads each text once, whatever trains above it.

`fill` is what a run calls: `policy` decides what is cached, `precompute` computes it, `store` holds
the entries within a budget, `entry` describes one of them; `scores` keeps zero-shot scores.
"""
