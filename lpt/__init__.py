"""Late prompt tuning: a trained prompt generator inside a frozen language model.

Liu et al., "Late Prompt Tuning: A Late Prompt Could Be Better Than Many Prompts", Findings of EMNLP
2022, arXiv 2210.11292.
"""
