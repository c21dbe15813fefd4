"""Whether Weights & Biases can be used: the package is there and, online, a key is.

Looks where wandb itself does. A key is only looked for, never read into the configuration.
"""

from __future__ import annotations

import configparser
import netrc
import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from lpt.config.schema import WandbConfig
from lpt.errors import Problems

_CLOUD = "https://api.wandb.ai"


def check_wandb(config: WandbConfig, problems: Problems) -> None:
    """Note what would make the tracker fail after the training has begun."""
    if not config.enabled:
        return
    if find_spec("wandb") is None:
        problems.add(
            "logger.wandb.enabled",
            "true, but the package wandb is not installed",
            "false without it",
            "pip install wandb, or choose another logger: logger=csv",
        )
    elif config.mode == "online" and not has_key():
        problems.add(
            "logger.wandb.mode",
            "online, but there is no W&B key",
            "a key (wandb login, or WANDB_API_KEY), or offline",
            "log in once, or set logger.wandb.mode=offline and `wandb sync` later",
        )


def has_key() -> bool:
    """Whether wandb would find credentials without asking: environment, netrc, its own settings."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = _settings()
    host = os.environ.get("WANDB_BASE_URL") or settings.get("base_url", _CLOUD)
    return _in_netrc(urlsplit(host).netloc) or bool(settings.get("api_key"))


def _in_netrc(host: str) -> bool:
    try:
        found = netrc.netrc(_netrc_file()).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return False
    return found is not None and bool(found[2])


def _netrc_file() -> Path:
    if given := os.environ.get("NETRC"):
        return Path(given).expanduser()
    usual, windows = Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()
    return windows if windows.exists() and not usual.exists() else usual


def _settings() -> dict[str, str]:
    """What `wandb login --host` and `wandb init` have written down; the local file wins."""
    everywhere = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser()
    here = Path(os.environ.get("WANDB_DIR", ".")) / "wandb"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([everywhere / "settings", here / "settings"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return {}
    return dict(parser["default"]) if parser.has_section("default") else {}
