"""GGUF checkpoints, converted once to the format that loads in a second.

Reading a GGUF file through transformers takes the better part of a minute even for a small model,
so the result is kept under the cache folder, keyed by the file's content and the library version.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from lpt.files import cache_dir

logger = logging.getLogger(__name__)


def converted(file: Path) -> Path:
    """Folder with the float32 checkpoint and tokenizer of a GGUF file, made at the first call.

    Args:
        file: The GGUF file of a causal language model.
    """
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()[:16]
    folder = cache_dir("gguf") / f"{file.stem}-{digest}-transformers-{transformers.__version__}"
    if folder.is_dir():
        return folder
    logger.info("Converting %s once; the result is kept in %s", file.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        _convert(file, unfinished)
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _convert(file: Path, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    # save_pretrained refuses a model marked as quantized; these weights no longer are.
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        if hasattr(model, name):
            delattr(model, name)
    del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
