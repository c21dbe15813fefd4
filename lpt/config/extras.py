"""Optional dependencies: the extras of the package, and what is missing of them."""

from __future__ import annotations

from importlib.util import find_spec

from lpt.errors import Problems

EXTRAS = {
    "dashboard": ("wandb", "wandb-workspaces"),
    "demo": ("gguf", "accelerate"),
    "peft": ("peft",),
    "report": ("pandas", "scipy", "scikit-learn", "matplotlib", "jinja2"),
    "search": ("optuna",),
    "serve": ("litserve",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
}
# Where the name of the package is another.
_MODULES = {"scikit-learn": "sklearn", "wandb-workspaces": "wandb_workspaces"}


def check_extra(extra: str, where: str, problems: Problems) -> bool:
    """Whether the packages of an extra are installed; if not, add a problem with key `where`."""
    missing = [name for name in EXTRAS[extra] if find_spec(_MODULES.get(name, name)) is None]
    if missing:
        hint = f"in the clone: pip install '.[{extra}]'"
        problems.add(where, f"not installed: {', '.join(missing)}", "", hint)
    return not missing
