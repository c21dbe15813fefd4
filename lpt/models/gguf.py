"""GGUF checkpoints, converted once to a safetensors checkpoint.

transformers takes about 20 seconds to dequantize even a small GGUF file, so the result is cached,
keyed by the checksum of the file and the version of transformers.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoTokenizer

from lpt.files import cache_dir

logger = logging.getLogger(__name__)


def convert_gguf(file: Path) -> Path:
    """Folder with the float32 checkpoint and tokenizer of a GGUF file, created by the first call.

    Args:
        file: The GGUF file of a causal language model.

    Raises:
        OSError: The file cannot be read or the result cannot be written.
        ValueError, KeyError, RuntimeError: transformers cannot read the file.
    """
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()[:16]
    folder = cache_dir("gguf") / f"{file.stem}-{digest}-transformers-{transformers.__version__}"
    if folder.is_dir():
        return folder
    logger.info("Converting %s once; the result is cached in %s.", file.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        _convert(file, unfinished)
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # unless another process has converted it meanwhile
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM  # takes seconds

    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    # save_pretrained refuses a model that is marked as quantized; these weights no longer are.
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        if hasattr(model, name):
            delattr(model, name)
    del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
