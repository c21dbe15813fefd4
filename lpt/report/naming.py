"""File names for what is named by tasks and keys, which may hold anything."""

from __future__ import annotations

import re
from hashlib import sha256


def file_name(*parts: str) -> str:
    """Parts as one plain file name; different parts never make the same name."""
    text = "-".join(parts)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:80]
    return plain if plain == text else f"{plain}-{sha256(text.encode()).hexdigest()[:6]}"
