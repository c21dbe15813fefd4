"""Every key with its type, limits and meaning, read off the schema: for `--help` and the docs."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf

from lpt.config.schema import Config

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_WIDTH = 88


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        name: Dotted name: `prompt.layer`.
        type_name: Its type as in the schema.
        default: The schema's default as text; empty if conf/ or the user has to say it.
        limits: Choices or range, in words; empty without.
        meaning: What it means.
    """

    name: str
    type_name: str
    default: str
    limits: str
    meaning: str

    @property
    def group(self) -> str:
        """The group that it belongs to; empty for a key at the top."""
        return self.name.rpartition(".")[0].partition(".")[0]


def all_keys(schema: type = Config, prefix: str = "") -> Iterator[Key]:
    """The keys of a class of the schema and of those in it, in order."""
    meanings, types = field_docs(schema), get_type_hints(schema)
    for field in fields(schema):
        name, annotation = f"{prefix}{field.name}", types[field.name]
        node = _dataclass_in(annotation)
        if node is not None and get_args(annotation)[:1] == (str,):  # a dict of them
            yield _key(name, field, meanings)
            yield from all_keys(node, f"{name}.NAME.")
        elif node is not None:
            yield from all_keys(node, f"{name}.")
        else:
            yield _key(name, field, meanings)


def _key(name: str, field: Any, meanings: Mapping[str, str]) -> Key:
    default = field.default if field.default is not NO_DEFAULT else field.default_factory()
    if "choices" in field.metadata:
        limits = ", ".join(map(str, field.metadata["choices"]))
    else:
        limits = " and ".join(f"{_SIGNS[k]} {limit}" for k, limit in field.metadata.items())
    type_name = str(field.type).replace("Optional[ExtraSet]", "ExtraSet | None")
    return Key(name, type_name, value_text(default), limits, meanings[field.name])


def _dataclass_in(annotation: Any) -> type | None:
    """The class of the schema in a type: that itself, or the one that it may hold."""
    if is_dataclass(annotation):
        return annotation  # type: ignore[return-value]  # a class, of which types are made
    return next((c for a in get_args(annotation) if (c := _dataclass_in(a)) is not None), None)


def field_docs(schema: type) -> dict[str, str]:
    """The docstring under each field of a class, in one line."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(schema))).body
    assert isinstance(node, ast.ClassDef)
    docs = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            docs[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return docs


def value_text(value: Any) -> str:
    """A value as on the command line; empty for one that is missing."""
    if value in (MISSING, "") or value is None:
        return {None: "null", "": '""'}.get(value, "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def help_text(composed: DictConfig, groups: Mapping[str, list[str]]) -> str:
    """What `--help` prints: groups with their choices, keys with values, limits and meanings.

    Args:
        composed: The configuration of the command line.
        groups: The choices of each group.
    """
    values = OmegaConf.to_container(composed, resolve=True)
    lines = ["Groups (group=choice)", ""]
    order = [field.name for field in fields(Config)]
    for group in sorted(
        groups, key=lambda name: order.index(name) if name in order else len(order)
    ):
        lines += _wrapped(f"  {group}=", ", ".join(groups[group]), "      ")
    lines += ["", "Keys (key=value), with the values of this command line"]
    section = None
    for key in all_keys():
        if key.group != section:
            section = key.group
            lines.append("")
        value = _value(values, key)
        limits = f"  ({key.limits})" if key.limits else ""
        lines.append(f"  {key.name}={value}{limits}")
        lines += _wrapped("      ", key.meaning, "      ")
    return "\n".join(lines)


def _value(values: Any, key: Key) -> str:
    """The value of a key in a nested configuration; its default where that has none."""
    for part in key.name.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return key.default
        values = values[part]
    return value_text(values)


def _wrapped(start: str, text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False
    )
