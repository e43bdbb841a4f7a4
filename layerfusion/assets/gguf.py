"""GGUF files, converted once to a Hugging Face folder of safetensors.

Transformers needs a minute to read a GGUF file, since it dequantises every matrix. The converted
folder loads in a third of a second and gives identical hidden states.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from layerfusion.assets.staging import build_once
from layerfusion.errors import library_errors

log = logging.getLogger(__name__)


def convert_gguf(gguf_file: Path, folder_out: Path) -> Path:
    """Convert a GGUF file to a folder with model, config and tokenizer, in float32.

    Args:
        gguf_file: a file of any architecture and quantisation that transformers can read.
        folder_out: the new folder, made as a whole or not at all. If it exists, nothing is done.

    Raises:
        UserError: if transformers cannot read the file.
    """

    def build(staging: Path) -> Path:
        ready = staging / "model"
        log.info("converting %s to safetensors, which takes a minute or two, once", gguf_file.name)
        _convert(gguf_file, ready)
        return ready

    return build_once(folder_out, build)


def _convert(gguf_file: Path, ready: Path) -> None:
    import torch
    import transformers

    folder, name = str(gguf_file.parent), gguf_file.name
    with library_errors(f"{gguf_file} cannot be read"), _quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
        loaded = transformers.AutoModel.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # Transformers refuses to save a model that came from GGUF while its config or its module still
    # knows the quantisation. So we give the weights to a new module of the cleaned config.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        fresh = type(loaded)(config)
    fresh.load_state_dict(loaded.state_dict(), assign=True)
    with _quiet():
        fresh.save_pretrained(ready)
        tokenizer.save_pretrained(ready)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars of transformers for loading and saving."""
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
