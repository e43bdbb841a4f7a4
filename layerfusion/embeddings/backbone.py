"""Load a frozen pretrained model from a folder and visit all of its layers in one pass."""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from layerfusion.assets.manifest import require_whole
from layerfusion.assets.models import not_json
from layerfusion.config.job import QUANTIZED, SPREAD, WINDOWS, BackboneConfig
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
from layerfusion.embeddings.memory import out_of_memory
from layerfusion.embeddings.packing import PackedBatch, Packing, find_packing, run_packed
from layerfusion.embeddings.shape import NORM, ModelShape
from layerfusion.embeddings.taps import (
    TopReached,
    Visit,
    block_count,
    ends_in_norm,
    find_layers,
    likely_blocks,
    taps,
    text_config,
)
from layerfusion.embeddings.tokens import TokenizedText, tokenize
from layerfusion.errors import UserError, library_errors, one_line, short

log = logging.getLogger(__name__)

LENGTH_KEYS = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "n_ctx")
"""Names under which the configs of models state the largest number of positions."""
PADDING_TOLERANCE = 0.01
"""Relative difference below which padding counts as masked. Rounding in bfloat16 is smaller."""


@dataclass(frozen=True)
class Backbone:
    """A loaded model whose layers are known and can be visited."""

    name: str
    model: nn.Module
    tokenizer: Any
    blocks: nn.ModuleList | None
    """The blocks; None if the model shares them (ALBERT), where a pass keeps all hidden states."""
    shape: ModelShape
    pad_id: int
    masks_padding: bool
    """True if padding leaves the states of real tokens unchanged. Convolutions and Fourier mixing
    over the positions ignore the mask; texts of different length then never share a batch."""
    device: torch.device
    packing: Packing | None = None
    """Settings for texts laid end to end in one row without padding; None if not supported."""

    def tokenize(self, texts: Sequence[str], config: BackboneConfig) -> list[TokenizedText]:
        """Tokenize texts for this model.

        Args:
            texts: the texts.
            config: template, truncation side, and treatment of long texts.

        Raises:
            UserError: if the tokenizer fails, or makes tokens that the model does not have.
        """
        rows = self.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator, union-attr]
        limit = self.shape.max_length
        return tokenize(self.tokenizer, texts, config, limit, name=self.name, rows=rows)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, layers: Sequence[str], visit: Visit
    ) -> None:
        """Visit the wanted layers from the bottom up; blocks above the highest are not computed.

        A model that shares its blocks (`blocks` is None) always runs to its end.

        Args:
            input_ids: token ids, padded on the right. Shape: (batch, tokens).
            attention_mask: 1 on real tokens. Shape: (batch, tokens).
            layers: names from `self.shape.layers`.
            visit: called once for each layer.

        Raises:
            UserError: if the model fails.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        rows, tokens = input_ids.shape
        if is_spread(self.model):
            visit = _brought_to(self.device, visit)
        failed = (
            f"backbone {self.name}: {type(self.model).__name__} fails at {rows} x {tokens} tokens"
        )
        with library_errors(failed, passing=out_of_memory):
            if self.blocks is None:
                states = self.model(**inputs, output_hidden_states=True).hidden_states
                for number, state in enumerate(states):
                    if str(number) in layers:
                        visit(str(number), state)
                return
            with taps(self.blocks, layers, visit):
                try:
                    output = self.model(**inputs)
                except TopReached:
                    return
        visit(NORM, output[0])

    def forward_packed(self, batch: PackedBatch, layers: Sequence[str], visit: Visit) -> None:
        """Visit the wanted layers of packed texts from the bottom up, as `forward` does.

        Args:
            batch: texts laid end to end according to `self.packing`.
            layers: names from `self.shape.layers`.
            visit: called once for each layer, with token vectors of shape (1, tokens, width).

        Raises:
            ValueError: if the model does not take packed texts.
        """
        if self.blocks is None or self.packing is None:
            raise ValueError(f"backbone {self.name} does not take packed texts")
        with taps(self.blocks, layers, visit):
            try:
                output = run_packed(self.model, batch)
            except TopReached:
                return
        visit(NORM, output)


def is_spread(model: nn.Module) -> bool:
    """Return true if parts of a model lie on different devices."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1


def _brought_to(device: torch.device, visit: Visit) -> Visit:
    """Bring the states of a model that is spread over devices to the one of its inputs."""

    def bring(layer: str, states: Tensor) -> None:
        visit(layer, states.to(device))

    return bring


# -- loading ------------------------------------------------------------------------------------


def load_backbone(
    name: str, folder: Path, config: BackboneConfig, device: str, *, eager: bool = False
) -> Backbone:
    """Load a model folder, and find the model's blocks and layers.

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
    target = choose_device(device)
    more: dict[str, Any] = {"attn_implementation": "eager"} if eager else {}
    if device == SPREAD:
        more["device_map"] = "auto"
    elif target.type == "cuda":
        more["device_map"] = {"": target}  # load the weights directly onto the GPU
    quantized = config.dtype in QUANTIZED
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
    if quantized:  # several weights share a number, so they are counted in the plain model
        plain = _reader(name, described)
        blocks = likely_blocks(plain, block_count(name, plain))
        limit = backbone.shape.max_length
        shape = _shape(plain, blocks, backbone.shape.layers, limit)
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


def backbone_of(
    name: str,
    model: Any,
    tokenizer: Any,
    *,
    max_length: int | None = None,
    device: torch.device | None = None,
) -> Backbone:
    """Make a backbone from a transformers model that is already in memory, on its device.

    The model is put into evaluation mode, without gradients and without a cache of keys and values.

    Args:
        name: name of the backbone, for messages.
        model: a transformers model without a head, for example from `AutoModel`.
        tokenizer: the fast tokenizer of the model.
        max_length: largest number of tokens in a text; None allows as many as the tokenizer and
            the position table do.
        device: device of the inputs; None means that of the first parameter.

    Raises:
        UserError: if the layers of the model cannot be told apart.
    """
    model.eval().requires_grad_(False)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    if device is None:
        device = next(model.parameters()).device
    assert isinstance(device, torch.device)
    blocks, layers = find_layers(name, model, device)
    with library_errors(f"backbone {name}: {type(model).__name__} has no table of token vectors"):
        rows = model.get_input_embeddings().weight.shape[0]
    with library_errors(f"backbone {name}: its padding token is none of its tokens"):
        pad_id = tokenizer.pad_token_id
    if pad_id is None or pad_id >= rows:
        pad_id = 0
    shape = _shape(model, blocks, layers, length_limit(max_length, model, tokenizer))
    with library_errors(f"backbone {name}: {type(model).__name__} does not read padded text"):
        masks_padding = _masks_padding(model, pad_id, device)
    # The kernel for packed texts runs on GPUs only, and only on numbers of two bytes.
    packing = None
    whole = device.type == "cuda" and not is_spread(model)
    if masks_padding and whole and model.dtype.itemsize == 2:
        packing = find_packing(model, blocks, pad_id, shape.max_length, device)
    return Backbone(
        name=name,
        model=model,
        tokenizer=tokenizer,
        blocks=blocks,
        shape=shape,
        pad_id=pad_id,
        masks_padding=masks_padding,
        device=device,
        packing=packing,
    )


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
    return _shape(model, blocks, layers, limit)


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


def choose_device(device: str) -> torch.device:
    """Return the device that `auto` or a name stands for; of a model that is spread, the first.

    Raises:
        UserError: if this machine does not have the device.
    """
    if device in ("auto", SPREAD):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"extract.device={device}: this machine does not have it: {reason}"
        ) from error
    return chosen


def length_limit(asked: int | None, model: nn.Module, tokenizer: Any) -> int:
    """Return the largest number of tokens that a text may have.

    Args:
        asked: the configured limit, if there is one.
        model: the model, whose position table limits the length.
        tokenizer: the tokenizer, which may state a limit.

    Raises:
        UserError: if none of the three sets a limit.
    """
    limits = _stated_by(tokenizer)
    stated = [getattr(text_config(model), key, None) for key in LENGTH_KEYS]
    for positions in {number for number in stated if isinstance(number, int) and number > 0}:
        # In models like RoBERTa the positions start after the padding index.
        offsets = [
            module.padding_idx + 1
            for module in model.modules()
            if isinstance(module, nn.Embedding)
            and module.num_embeddings == positions
            and module.padding_idx is not None
        ]
        limits.append(positions - max(offsets, default=0))
    if asked is not None:
        limits.append(asked)
    limit = min(limits, default=math.inf)
    if limit > 1_000_000:
        raise UserError(
            "max_length: the model states no limit; set one (backbone.NAME.max_length=512)"
        )
    return int(limit)


def _stated_by(tokenizer: Any) -> list[int]:
    """Return the limit that a tokenizer states, if it states one.

    Raises:
        UserError: if what it states is no number.
    """
    stated = tokenizer.model_max_length
    try:
        return [int(stated)]
    except OverflowError:  # infinity
        return []
    except (TypeError, ValueError) as error:
        raise UserError(
            f"model_max_length in tokenizer_config.json: {short(stated)} is no number of tokens"
        ) from error


@torch.no_grad()
def _masks_padding(model: nn.Module, pad_id: int, device: torch.device) -> bool:
    """Compare the states of a few tokens alone with those of the same tokens padded.

    In numbers of two bytes, rounding alone changes the states of a deep and wide model by several
    percent whenever the shapes change. Padding may then change the states by about as much as
    other rows in the batch do, provided that other ids in the padding change nothing at all.
    """
    ids = torch.arange(1, 5, device=device)[None]
    padded = torch.cat([ids, torch.full((1, 3), pad_id, device=device)], dim=1)
    mask = torch.ones_like(padded)
    mask[:, ids.shape[1] :] = 0
    alone = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0].float()
    beside = model(input_ids=padded, attention_mask=mask)[0][:, : ids.shape[1]].float()
    moved = (alone - beside).norm()
    if moved <= PADDING_TOLERANCE * alone.norm():
        return True
    if model.dtype.itemsize > 2:  # type: ignore[union-attr, operator]
        return False
    company = ids.repeat(64, 1)
    among = model(input_ids=company, attention_mask=torch.ones_like(company))[0][:1].float()
    padded[:, ids.shape[1] :] = ids[:, :3]
    other = model(input_ids=padded, attention_mask=mask)[0][:, : ids.shape[1]].float()
    return bool(torch.equal(other, beside) and moved <= 3 * (alone - among).norm())


def _shape(
    model: Any, blocks: nn.ModuleList | None, layers: tuple[str, ...], max_length: int
) -> ModelShape:
    embeddings = model.get_input_embeddings().weight.numel()
    total = sum(parameter.numel() for parameter in model.parameters())
    if blocks is None:
        # The parameters of a shared block are stored once and multiplied at every layer.
        count = sum(layer != NORM for layer in layers) - 1
        matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1) - embeddings
        parameters = (total - embeddings, *(0,) * (count - 1))
        weights = (matrices,) * count
    else:
        parameters = tuple(sum(p.numel() for p in block.parameters()) for block in blocks)
        weights = tuple(
            sum(p.numel() for p in block.parameters() if p.dim() > 1) for block in blocks
        )
    return ModelShape(
        layers=layers,
        width=text_config(model).hidden_size,
        max_length=max_length,
        total_parameters=total,
        embedding_parameters=embeddings,
        block_parameters=parameters,
        block_weights=weights,
        ends_early=blocks is not None,
    )
