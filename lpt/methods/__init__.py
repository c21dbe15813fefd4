"""Tuning methods: what is trained around a frozen split model.

A method is a class and a builder; there is one so far, which every run uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from lpt.methods.late_prompt import LatePrompt, build_late_prompt

METHODS: Mapping[str, Callable[..., LatePrompt]] = MappingProxyType(
    {"late_prompt": build_late_prompt}
)
