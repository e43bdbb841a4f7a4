"""Load a frozen pretrained model or its tokenizer from a folder, quietly."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from layerfusion.assets.manifest import require_whole
from layerfusion.assets.models import not_json
from layerfusion.config.job import QUANTIZED, SPREAD, WINDOWS, BackboneConfig
from layerfusion.embeddings.backbone import (
    Backbone,
    backbone_of,
    choose_device,
    length_limit,
    shape_of,
)
from layerfusion.embeddings.backbone_checks import (
    check_unused,
    refuse_empty_tokenizer,
    refuse_integers,
    refuse_larger,
    refuse_missing,
    refuse_more_blocks,
    refuse_no_text,
    refuse_odd_tokens,
    refuse_other_shapes,
    refuse_own_code,
    warn_of_other_class,
    warn_of_other_tokenizer,
    warn_of_own_code,
    warn_of_parts,
)
from layerfusion.embeddings.gpus import keep_gpu
from layerfusion.embeddings.prepacking import prepack
from layerfusion.embeddings.shape import NORM, ModelShape
from layerfusion.embeddings.taps import (
    block_count,
    ends_in_norm,
    likely_blocks,
)
from layerfusion.errors import UserError, library_errors, one_line

log = logging.getLogger(__name__)


def load_backbone(
    name: str, folder: Path, config: BackboneConfig, device: str, *, eager: bool = False
) -> Backbone:
    """Load a model folder, and find the model's blocks and layers.

    A job of a sweep that has no turn on a GPU takes one for it, and keeps it until the job ends.

    Args:
        name: name of the backbone, for messages.
        folder: a Hugging Face folder with safetensors weights.
        config: dtype, length limit, and permission to run code from the model folder.
        device: auto, cpu, cuda, cuda:N, mps, or spread over all GPUs and the memory.
        eager: compute the attention step by step, which is slower but returns its weights. The
            model must be built this way, as some (Falcon) otherwise return unmasked weights.

    Raises:
        UserError: if the folder cannot be loaded or weights of the blocks are missing.
    """
    import transformers

    require_whole(folder, f"backbone.{name}", weights=True)
    keep_gpu(device)
    target = choose_device(device)
    more: dict[str, Any] = {"attn_implementation": "eager"} if eager else {}
    quantized = config.dtype in QUANTIZED
    if device == SPREAD:
        more["device_map"] = "auto"
    elif target.type == "cuda" or quantized:
        # Load the weights directly onto the GPU. Without a map, transformers would put quantized
        # ones on a GPU wherever there is one.
        more["device_map"] = {"": target}
    if quantized:
        more["quantization_config"] = _quantization(name, config.dtype)
    tokenizer = load_tokenizer(name, folder, config)
    described = _without_weights(name, folder, config)
    with _loading(name, folder, "model"):
        loaded, info = transformers.AutoModel.from_pretrained(
            folder,
            dtype=torch.bfloat16 if quantized else getattr(torch, config.dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=config.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, and named
            **more,
        )
    refuse_other_shapes(name, folder, info["mismatched_keys"])
    model = _reader(name, loaded)
    refuse_missing(name, folder, loaded, model, info["missing_keys"])
    refuse_integers(name, folder, loaded)
    if device != SPREAD and not quantized:
        model.to(target)
    backbone = backbone_of(name, model, tokenizer, max_length=config.max_length, device=target)
    if target.type == "cpu" and device != SPREAD and not quantized:
        backbone = replace(backbone, prepacked=prepack(model))
    if quantized:  # several weights share a number, so they are counted in the plain model
        plain = _reader(name, described)
        blocks = likely_blocks(plain, block_count(name, plain))
        limit = backbone.shape.max_length
        shape = shape_of(plain, blocks, backbone.shape.layers, limit)
        backbone = replace(backbone, shape=shape)
    if target.type == "cuda" and config.dtype == "float32":
        log.info(
            "%s: float32 on a GPU; backbone.%s.dtype=bfloat16 takes half of the memory and is"
            " several times as fast, and has its own vectors in the cache",
            name,
            name,
        )
    check_unused(name, folder, loaded, backbone.blocks, info["unexpected_keys"])
    warn_of_own_code(name, folder, config, type(loaded).__name__)
    warn_of_parts(name, folder)
    warn_of_other_class(name, loaded)
    warn_of_other_tokenizer(name, folder, tokenizer)
    asked = config.max_length
    if asked is not None and backbone.shape.max_length < asked:
        log.info(
            "%s: %s at %d tokens, not max_length=%d, as the model or its tokenizer takes no more",
            name,
            "windows end" if config.long_texts == WINDOWS else "texts are cut",
            backbone.shape.max_length,
            asked,
        )
    return backbone


def _quantization(name: str, dtype: str) -> Any:
    """Return the settings by which bitsandbytes loads the weights.

    Raises:
        UserError: if it is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"backbone.{name}.dtype={dtype}: needs bitsandbytes; pip install"
            " 'layerfusion[quantized]'"
        )
    import transformers

    # At each pass it would tell that it rounds the inputs of its products to float16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if dtype == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _reader(name: str, model: Any) -> Any:
    """Return the part of a model that reads the text: of an encoder and a decoder the encoder.

    Raises:
        UserError: if it reads images, sound or numbers, or its encoder is no model by itself.
    """
    two = getattr(model.config, "is_encoder_decoder", False)
    if two or (hasattr(model, "encoder") and hasattr(model, "decoder")):
        whole, model = model, model.get_encoder()
        if not hasattr(model, "config"):
            raise UserError(
                f"backbone {name}: {type(whole).__name__} has an encoder that is no model by"
                f" itself ({type(model).__name__}); choose another model"
            )
    refuse_no_text(name, model)
    return model


def load_tokenizer(name: str, folder: Path, config: BackboneConfig) -> Any:
    """Load the fast tokenizer of a model folder.

    Raises:
        UserError: if the folder has none, it cannot be loaded, or it would run code that is not
            allowed.
    """
    import transformers

    refuse_own_code(name, folder, config)
    refuse_odd_tokens(name, folder)
    with _loading(name, folder, "tokenizer"):
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=config.trust_remote_code
        )
    if not tokenizer.is_fast:
        raise UserError(f"backbone {name}: {folder} has no fast tokenizer (tokenizer.json)")
    refuse_empty_tokenizer(name, folder, tokenizer)
    return tokenizer


def empty_shape(name: str, folder: Path, config: BackboneConfig) -> ModelShape:
    """Read the shape of a model from its config and tokenizer, without its weights.

    Raises:
        UserError: if the folder cannot be loaded.
    """
    tokenizer = load_tokenizer(name, folder, config)
    model = _reader(name, _without_weights(name, folder, config))
    model.eval()
    count = block_count(name, model)
    layers = tuple(str(number) for number in range(count + 1))
    blocks = likely_blocks(model, count)
    if blocks is not None and ends_in_norm(name, model, blocks):
        layers = (*layers, NORM)
    limit = length_limit(config.max_length, model, tokenizer)
    return shape_of(model, blocks, layers, limit)


def _without_weights(name: str, folder: Path, config: BackboneConfig) -> Any:
    """Build the model that a config describes on the meta device, where it takes no memory.

    Raises:
        UserError: if the config cannot be read, or is that of a far larger model than the weights.
    """
    import transformers

    trust = config.trust_remote_code
    with _loading(name, folder, "model"):
        settings = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust
        )
        count = getattr(settings.get_text_config(), "num_hidden_layers", None)
        refuse_more_blocks(name, folder, count)
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(settings, trust_remote_code=trust)
    refuse_larger(name, folder, model)
    return model


@contextmanager
def _loading(name: str, folder: Path, part: Literal["model", "tokenizer"]) -> Iterator[None]:
    """Load without the library's own output; what it raises becomes one line.

    Args:
        name: name of the backbone.
        folder: folder of the model.
        part: what is loaded, for the line.

    Raises:
        UserError: if transformers cannot load what it is asked for.
    """
    whole = (folder / "tokenizer.json").is_file()
    converted = part == "tokenizer" and not whole
    way_out = "; a tokenizer.json beside the model would need no conversion" if converted else ""
    made_of = "tokenizer.json" if whole else "a file of the vocabulary"
    files = "config.json and the weights" if part == "model" else "the files of its tokenizer"

    def explain(error: Exception) -> str:
        reason = not_json(folder) or one_line(error, 300)
        if isinstance(error, KeyError):
            reason = f"transformers does not know {error}, which a file names, or misses it there"
        elif type(error) is Exception:  # as the library in Rust raises it
            reason = f"{made_of} is damaged, or of a newer version of tokenizers: {reason}"
        elif isinstance(error, TypeError | AttributeError | LookupError | ArithmeticError):
            reason = f"a value in {files} is not what transformers takes: {reason}"
        return f"backbone {name}: {folder} cannot be loaded: {reason}{way_out}"

    with library_errors(explain), quiet_transformers():
        yield


@contextmanager
def _no_output() -> Iterator[None]:
    """Drop what compiled libraries print, past Python, to the standard output.

    `tokenizers` prints what it does not know of a token there, among the rows of `predict`.
    """
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # closed, as under some schedulers
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the loading bars, the table of unused weights and what is meant for programmers.

    We check missing weights ourselves.
    """
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"), _no_output():
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
