"""Whether the Hugging Face hub answers; where it does not, use what its cache holds, at once."""

from __future__ import annotations

import os
from functools import cache

_TIMEOUT_S = 5.0


@cache
def hub_reachable() -> bool:
    """Ask the hub once a process; if it does not answer, switch its clients to their caches.

    Without this, each client retries for half a minute before it gives up.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S)
    except Exception:  # whatever the HTTP client of the day raises
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True
        return False
    return True


def hub_state() -> str:
    """The hub's state in words, for messages."""
    return "the hub was asked" if hub_reachable() else "the hub is not reachable or is switched off"
