"""Made-up keys of the services that a run may talk to, and where they have got to."""

from __future__ import annotations

from pathlib import Path

# Each by the variable that its service takes it from.
KEYS = {
    "WANDB_API_KEY": "c0ffee" * 7,
    "HF_TOKEN": "hf_" + "0123456789abcdef" * 2,
    "HUGGING_FACE_HUB_TOKEN": "hf_" + "fedcba9876543210" * 2,
}


def holders(*folders: Path) -> list[tuple[str, str]]:
    """Variable and file, of every key that is in a file or in its name."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        (name, str(path))
        for path in files
        for name, key in KEYS.items()
        if key.encode() in path.read_bytes() or key in str(path)
    ]
