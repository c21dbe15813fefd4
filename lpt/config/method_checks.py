"""Checks of the method and its prompt, before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lpt.config.checks import Checks, check_limits
from lpt.config.extras import check_extra
from lpt.config.method_schema import AT_INPUT, FREE_VECTORS, METHOD_SETTINGS, PromptConfig
from lpt.config.schema import Config, first_layer
from lpt.errors import Problems

# What a method needs besides its own settings: key, whether it holds, what is expected.
_RULES: Mapping[str, Sequence[tuple[str, Callable[[Config], bool], str]]] = {
    "late_prompt": [
        ("prompt", lambda c: c.prompt is not None, "a kind of prompt with method=late_prompt")
    ],
    "prefix": [
        (
            "trainer.gradient_checkpointing",
            lambda c: not c.trainer.gradient_checkpointing,
            "false: method=prefix passes keys and values, which are not recomputed",
        )
    ],
    "ptuning": [
        (
            "method.layer",
            lambda c: c.method.layer in (None, 1),
            "1 or null: the virtual tokens of P-tuning enter at the input",
        )
    ],
    "head": [
        ("loss", lambda c: c.loss != "vocabulary", "label_words or null with method=head"),
    ],
}


def validate_method(config: Config) -> Problems:
    """Check the settings of the method only; returns the problems."""
    checks = Checks(config)
    check_limits(config.method, "method.", checks)
    check_method_settings(config, checks)
    return checks


def check_method_settings(config: Config, checks: Checks) -> None:
    """Check which settings a method has, needs and takes."""
    check_layer(config, config.model.layers, checks)
    method, prompt = config.method, config.prompt
    fitting = METHOD_SETTINGS.get(method.name, ())
    settings = sorted({name for names in METHOD_SETTINGS.values() for name in names})
    for name in settings if method.name in METHOD_SETTINGS else ():
        value = getattr(method, name)
        unused = name in fitting or value is None or value == {}
        checks.require(unused, f"method.{name}", f"null: method={method.name} has no such setting")
        optional = name == "target_modules" or (name, method.name) == ("bottleneck", "prefix")
        missing = name in fitting and value is None and not optional
        checks.require(not missing, f"method.{name}", f"a value with method={method.name}")
    expected = "ends of names as a list, a regular expression, or all-linear"
    checks.require(_names_modules(method.target_modules), "method.target_modules", expected)
    if method.name == "peft" and "peft_type" not in method.config:
        hint = "'method.config={peft_type: OFT}'"
        checks.add("method.config", str(method.config), "a config with peft_type", hint)
    if method.name in METHOD_SETTINGS and {"config", "r"} & set(fitting):
        check_extra("peft", "method.name", checks)
    for key, holds, expected in _RULES.get(method.name, ()):
        checks.require(holds(config), key, expected)
    if method.name == "late_prompt" and prompt is not None:
        _check_prompt(config, prompt, checks)


def _check_prompt(config: Config, prompt: PromptConfig, checks: Checks) -> None:
    """Check that the settings of a late prompt fit together."""
    several = len(set(prompt.layers)) == len(prompt.layers) != 1
    checks.require(several, "prompt.layers", "two or more distinct layers, or prompt.layer")
    first = first_layer(config)
    for key, layer in {"prompt.layer": prompt.layer, "method.layer": config.method.layer}.items():
        checks.require(layer in (None, first), key, f"null, or {first}, the lowest layer")
    static = prompt.kind == "static"
    expected = "null for a static prompt, a width, e.g. 128, for a generator"
    checks.require(static == (prompt.bottleneck is None), "prompt.bottleneck", expected)
    free = prompt.kind in FREE_VECTORS
    checks.require(free or prompt.init is None, "prompt.init", f"null for {prompt.kind}")


def _names_modules(targets: Any) -> bool:
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error:
            return False
        return True
    listed = isinstance(targets, list) and all(isinstance(name, str) for name in targets)
    return targets is None or (listed and targets != [])


def check_prompt_keys(config: Config, keys: Iterable[str], problems: Problems) -> None:
    """Check that no key of the prompt is set for a method without one.

    Args:
        config: The configuration.
        keys: Keys and groups that were set for this run.
        problems: Receives the problems.
    """
    if config.method.name == "late_prompt":
        return
    for key in keys:
        if key.partition(".")[0] == "prompt":
            given = f"set, with method={config.method.name}"
            hint = "vary them together: sweep.settings=[{method: lora}, {prompt: npg}]"
            problems.add(key, given, "method=late_prompt: other methods have no prompt", hint)


def check_layer(config: Config, depth: int | None, problems: Problems) -> None:
    """Check the first layer of the method against the depth of the model; None if unknown."""
    late, layer = config.method.name == "late_prompt", first_layer(config)
    kind = config.prompt.kind if config.prompt is not None else "static"
    if layer == 1 and late and kind not in AT_INPUT:
        problems.add(
            "prompt.layer",
            f"1 with the generator {kind}",
            "2 or more: a generator reads the hidden states below it",
            "raise prompt.layer, or use classic prompt tuning: prompt=static prompt.layer=1; in a "
            "sweep, list it in sweep.settings beside the generators (docs/sweeps.md)",
        )
    several = config.prompt.layers if late and config.prompt is not None else []
    highest, lowest = max(several, default=layer), min(several, default=1)
    if config.method.name == "head":
        if depth is not None and layer not in (None, depth + 1):
            problems.add("method.layer", str(layer), "null: a head reads the final states")
    elif lowest < 1 or (depth is not None and highest is not None and highest > depth):
        key = "prompt.layers" if several else "prompt.layer" if late else "method.layer"
        problems.add(key, str(several or layer), f"1 to {depth or 'L'} for {config.model.name}")
