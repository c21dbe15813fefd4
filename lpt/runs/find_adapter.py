"""Where an adapter is: in its folder, in the folder of its run, or on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from lpt.errors import Problem, config_error
from lpt.models.hub_access import load_from_hub
from lpt.runs.run_dir import ADAPTER, CONFIG_FILE

DESCRIPTION_FILE, TENSORS_FILE = "adapter.json", "adapter_model.safetensors"  # as PEFT names it
_EXPECTED = "the folder of an adapter or of a finished run, or a Hub id"


def find_adapter(source: Path | str) -> Path:
    """The folder of an adapter, which is downloaded if it is on the Hub.

    Args:
        source: The folder of an adapter or of a finished run, or a Hub id: `owner/name`, or
            `owner/name@REVISION` for a branch, tag or commit.

    Raises:
        ConfigError: There is none.
    """
    folder = Path(source)
    if not folder.exists():
        return _download(str(source))
    for candidate in (folder, folder / ADAPTER):
        if (candidate / DESCRIPTION_FILE).is_file():
            return candidate
    given, hint = f"{folder}, which has no {DESCRIPTION_FILE}", ""
    if (folder / CONFIG_FILE).is_file():
        given += f" in {ADAPTER}/: the run has not finished"
        hint = f"finish it: its command with resume={folder}"
    raise config_error("adapter", given, _EXPECTED, hint)


def _download(source: str) -> Path:
    repo, _, revision = source.partition("@")

    def load() -> Path:
        from huggingface_hub import snapshot_download

        files = [DESCRIPTION_FILE, TENSORS_FILE]
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=files))

    expected = f"{_EXPECTED}; there is no folder {source}"
    asked = Problem("adapter", repo, expected, "download it elsewhere and give its folder")
    folder = load_from_hub(load, repo, asked, revision or None)
    if not (folder / DESCRIPTION_FILE).is_file():
        given = f"{source}, which has no {DESCRIPTION_FILE} on the Hub"
        raise config_error("adapter", given, "the id of an adapter that lpt trained")
    return folder
