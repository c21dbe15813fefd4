"""Access to the Hugging Face Hub; if it cannot be reached, use its local cache at once."""

from __future__ import annotations

import os
from functools import cache

_TIMEOUT_S = 5.0


@cache
def hub_reachable() -> bool:
    """Probe the Hub once per process; if it is unreachable, switch its clients to offline mode.

    Without this, each client retries for half a minute before it fails.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S)
    except Exception:  # depends on the HTTP client that huggingface_hub uses
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True
        return False
    return True


def hub_state() -> str:
    """Whether the Hub can be reached, for messages."""
    return (
        "the Hub is reachable"
        if hub_reachable()
        else "the Hub is unreachable or offline mode is on"
    )
