"""Checks of a model's folder after loading: what its files say against what was made of them.

What would give other vectors than the model's own is refused; what only looks like it is warned of.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from layerfusion.assets.models import (
    INDEX,
    integer_arrays,
    own_code,
    read_object,
    weight_arrays,
    weight_bytes,
)
from layerfusion.config.job import BackboneConfig
from layerfusion.errors import UserError, library_errors, short

log = logging.getLogger(__name__)

MOST_BLOCKS_PER_ARRAY = 16
"""Blocks of a model for each array of its weights; models that share their blocks have most."""
MOST_PER_BYTE, SMALL_MODEL = 8, 2**26
"""Parameters of a model for each byte of its weights, at a bit each, and parameters that no file
needs to hold, as of a pooler or a decoder that is not used."""
MOST_SPECIAL = 1000
"""Largest vocabulary that may consist of special tokens alone."""
_OF_QUANTIZED = re.compile(
    r"(weight_scale(_inv|_2)?|weight_zero_point|input_scale|scales|qzeros|qweight|g_idx|SCB|absmax"
    r"|quant_map|weight_packed)$"
)
"""Ends of the names of arrays that make numbers of quantized weights."""
GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes that take tokenizer.json as it is."""
PROBE = "The QUICK fox's naïve café\tpaid 12,345.67 — ﬁne!  Über 東京, don't"
"""A text with what tokenizers treat differently: cases, accents, spaces, numbers, ligatures."""


def refuse_missing(
    name: str, folder: Path, loaded: nn.Module, model: nn.Module, missing: Iterable[str]
) -> None:
    """Refuse a model with missing weights, which transformers would replace by random ones.

    The weights of a pooler may be missing, as they are never used, and so may those of a decoder
    where only the encoder (`model`, a part of `loaded`) reads.
    """
    used = {id(parameter) for parameter in model.parameters()}
    paths = [path for path, x in loaded.named_parameters() if id(x) in used]
    known = [path for path in paths if "pooler" not in path]
    random = [path for path in known if any(key.endswith(path) for key in missing)]
    if random:
        raise UserError(
            f"backbone {name}: {folder} has no weights for {random[0]} ({len(random)} are missing);"
            " is it the right model?"
        )


def refuse_other_shapes(name: str, folder: Path, mismatched: Iterable[Any]) -> None:
    """Refuse weights whose shapes differ from those that config.json asks for."""
    for key, found, wanted in sorted(mismatched, key=str):
        raise UserError(
            f"backbone {name}: {folder}: config.json asks for {key} of shape {tuple(wanted)}, and"
            f" the weights have {tuple(found)}; take both files from the same model"
        )


def refuse_more_blocks(name: str, folder: Path, count: object) -> None:
    """Refuse a config of far more blocks than the weight files could hold, before they are built.

    Args:
        name: name of the backbone.
        folder: folder of the model.
        count: number of blocks in the config, of whatever type.
    """
    arrays = sum(1 for _ in weight_arrays(folder))
    if isinstance(count, int) and count > MOST_BLOCKS_PER_ARRAY * arrays:
        raise UserError(
            f"backbone {name}: {folder}: config.json states {count:,} layers, and the weights have"
            f" {arrays:,} arrays in all; take both files from the same model"
        )


def refuse_no_text(name: str, model: Any) -> None:
    """Refuse a model of images, sound or series of numbers."""
    reads = getattr(model, "main_input_name", "input_ids")
    if reads != "input_ids":
        raise UserError(
            f"backbone {name}: {type(model).__name__} does not read text alone: it reads {reads}"
        )


def refuse_larger(name: str, folder: Path, model: nn.Module) -> None:
    """Refuse a config of a far larger model than the weight files hold, before memory is taken.

    Args:
        name: name of the backbone.
        folder: folder of the model.
        model: what the config describes, without weights.
    """
    held, asked = weight_bytes(folder), sum(x.numel() for x in model.parameters())
    if asked > MOST_PER_BYTE * held + SMALL_MODEL:
        raise UserError(
            f"backbone {name}: {folder}: config.json asks for a model of {asked:,} parameters, and"
            f" the weights have {held:,} bytes; take both files from the same model"
        )


def refuse_integers(name: str, folder: Path, model: Any) -> None:
    """Refuse parameters stored as integers that no quantisation of transformers has decoded."""
    if getattr(model, "hf_quantizer", None) is not None:
        return
    paths = ("weight", *(path for path, _ in model.named_parameters()))
    found = [array for array in integer_arrays(folder) if array.endswith(paths)]
    if found:
        raise UserError(
            f"backbone {name}: {folder}: {found[0]} is stored as integers, without a quantisation"
            " in config.json that is known here; convert the weights to float16 or float32"
        )


def check_unused(
    name: str,
    folder: Path,
    loaded: nn.Module,
    blocks: nn.ModuleList | None,
    unused: Iterable[str],
) -> None:
    """Look for weights inside the blocks that the model has no place for.

    Weights of more blocks than config.json states are refused, and so are the scales of quantized
    weights, without which these have other values; others are warned of. Those of heads lie outside
    of the blocks.
    """
    path = next((path for path, module in loaded.named_modules() if module is blocks), None)
    if blocks is None or path is None:
        return
    inside = re.compile(rf"(?:^|\.){re.escape(path)}\.(\d+)\.")
    found = {key: int(match[1]) for key in sorted(unused) if (match := inside.search(key))}
    above = max(found.values(), default=0) + 1
    if above > len(blocks):
        raise UserError(
            f"backbone {name}: {folder}: config.json states {len(blocks)} layers, and the weights"
            f" have {above}; correct the number of layers in config.json"
        )
    scales = [key for key in found if _OF_QUANTIZED.search(key)]
    if scales and getattr(loaded, "hf_quantizer", None) is None:
        raise UserError(
            f"backbone {name}: {folder}: {scales[0]} belongs to quantized weights, and config.json"
            " states no quantization that is known here; take the model in float16 or float32"
        )
    if found:
        log.warning(
            "backbone %s: %s does not use %d of the weights in its blocks, such as %s; is"
            " config.json that of this model?",
            name,
            type(loaded).__name__,
            len(found),
            next(iter(found)),
        )


def refuse_own_code(name: str, folder: Path, config: BackboneConfig) -> None:
    """Refuse code that comes with the model, unless it is allowed and lies in the folder itself."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, code = own_code(folder)
    elsewhere = [place for place in code if "--" in place]
    if config.trust_remote_code and elsewhere:
        raise UserError(
            f"backbone {name}: {folder} asks for code of another repository ({elsewhere[0]}), which"
            " no commit pins; put that code into the folder and correct auto_map in its config.json"
        )
    if code and not config.trust_remote_code and kind not in CONFIG_MAPPING:
        raise UserError(
            f"backbone {name}: {folder} needs code of its own ({code[0]}), which is not run unless"
            f" backbone.{name}.trust_remote_code=true"
        )


def refuse_odd_tokens(name: str, folder: Path) -> None:
    """Refuse special tokens that are neither a string nor the description of a token.

    transformers would look for a token without an end.
    """
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        for key, value in read_object(file).items():
            tokens = value if isinstance(value, list) else [value]
            if key.endswith(("_token", "_tokens")) or file.name.startswith("special"):
                for token in (token for token in tokens if isinstance(token, dict)):
                    if not isinstance(token.get("content"), str) and key != "extra_special_tokens":
                        raise UserError(
                            f"backbone {name}: {file}: {short(key)} is no token; a string is"
                            " needed, or an object with its content"
                        )


def refuse_empty_tokenizer(name: str, folder: Path, tokenizer: Any) -> None:
    """Refuse a tokenizer that knows no token but special ones and the mark of a space.

    transformers makes one up where the folder has none of the files that the class of the tokenizer
    reads, or has them empty.
    """
    if tokenizer.vocab_size > MOST_SPECIAL:
        return
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if not any(token.strip("▁Ġ") for token in tokenizer.get_vocab().keys() - special):
        files = ", ".join(tokenizer.vocab_files_names.values())
        raise UserError(
            f"backbone {name}: {folder}: {type(tokenizer).__name__} knows no word, as the files"
            f" that it reads are missing or empty ({files}); put the tokenizer that belongs to the"
            " model there"
        )


def warn_of_own_code(name: str, folder: Path, config: BackboneConfig, used: str) -> None:
    """Say that code which comes with the model was not needed and not run."""
    _, code = own_code(folder)
    if code and not config.trust_remote_code:
        log.warning(
            "backbone %s: its own code (%s) is not run; %s of transformers reads its weights,"
            " unless backbone.%s.trust_remote_code=true",
            name,
            code[0],
            used,
            name,
        )


def warn_of_parts(name: str, folder: Path) -> None:
    """Say which weights are read where a folder holds them in one file and in parts."""
    whole = folder / "model.safetensors"
    if whole.is_file() and (folder / INDEX).is_file():
        log.warning(
            "backbone %s: %s holds %s and, in parts, what %s names; the former is read",
            name,
            folder,
            whole.name,
            INDEX,
        )


def warn_of_other_class(name: str, loaded: Any) -> None:
    """Warn if config.json names a class of another family than its `model_type`."""
    import transformers

    architectures = getattr(loaded.config, "architectures", None)
    for stated in architectures if isinstance(architectures, list) else ():
        family = getattr(getattr(transformers, str(stated), None), "config_class", None)
        if family is not None and not isinstance(loaded.config, family):
            log.warning(
                "backbone %s: config.json says architectures %s and model_type %s, so the weights"
                " are read as %s; if that is wrong, correct model_type",
                name,
                stated,
                loaded.config.model_type,
                type(loaded).__name__,
            )


def warn_of_other_tokenizer(name: str, folder: Path, tokenizer: Any) -> None:
    """Warn if transformers makes another tokenizer of the folder than tokenizer.json describes.

    For many families it takes the vocabulary out of tokenizer.json, and builds the rest from
    tokenizer_config.json or the family's defaults, such as lower case for BERT.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if type(tokenizer).__name__ in GENERIC_TOKENIZERS or not file.is_file():
        return
    with library_errors(f"backbone {name}: {file} cannot be read"):
        stated = Tokenizer.from_file(str(file))
    stated.no_truncation()
    stated.no_padding()
    kind = type(tokenizer).__name__
    with library_errors(f"backbone {name}: {folder}: {kind} fails at a text"):
        same = stated.encode(PROBE).ids == tokenizer(PROBE)["input_ids"]
    if not same:
        log.warning(
            "backbone %s: %s, which transformers makes of tokenizer_config.json, splits texts"
            " differently than tokenizer.json says; if tokenizer.json is right, write"
            ' "tokenizer_class": "PreTrainedTokenizerFast" into tokenizer_config.json',
            name,
            kind,
        )
