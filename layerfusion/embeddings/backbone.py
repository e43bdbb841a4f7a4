"""A frozen pretrained model whose layers can all be visited in one pass."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerfusion.config.job import SPREAD, BackboneConfig
from layerfusion.embeddings.memory import out_of_memory
from layerfusion.embeddings.packing import PackedBatch, Packing, find_packing, run_packed
from layerfusion.embeddings.prepacking import Prepacked
from layerfusion.embeddings.shape import NORM, ModelShape
from layerfusion.embeddings.taps import (
    TopReached,
    Visit,
    find_layers,
    taps,
    text_config,
)
from layerfusion.embeddings.tokens import TokenizedText, tokenize
from layerfusion.errors import UserError, library_errors, short

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
    prepacked: Prepacked | None = None
    """Copies of weights by which a CPU multiplies faster; None to multiply by the weights."""

    @property
    def is_fed(self) -> bool:
        """Return true if the model is on a GPU, which the host has to keep busy meanwhile."""
        return self.device.type == "cuda"

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

        A model that shares its blocks (`blocks` is None) always runs to its end. The states of a
        model that is spread over devices are visited where they lie.

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
        failed = self._failed(f"{rows} x {tokens} tokens")
        faster: AbstractContextManager[object] = self.prepacked or nullcontext()
        with library_errors(failed, passing=out_of_memory), faster:
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
            UserError: if the model fails.
            ValueError: if the model does not take packed texts.
        """
        if self.blocks is None or self.packing is None:
            raise ValueError(f"backbone {self.name} does not take packed texts")
        failed = self._failed(f"{batch.input_ids.shape[1]} packed tokens")
        with library_errors(failed, passing=out_of_memory), taps(self.blocks, layers, visit):
            try:
                output = run_packed(self.model, batch)
            except TopReached:
                return
        visit(NORM, output)

    def _failed(self, size: str) -> str:
        """Say in what batch the model failed, in front of its own words."""
        return f"backbone {self.name}: {type(self.model).__name__} fails at {size}"


def is_spread(model: nn.Module) -> bool:
    """Return true if parts of a model lie on different devices."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1


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
    shape = shape_of(model, blocks, layers, length_limit(max_length, model, tokenizer))
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


def probe_device(device: str) -> torch.device:
    """Return the device that fits probes, discriminants and stacks: a CUDA device, or the CPU.

    They need float64 and solvers that other accelerators lack.

    Args:
        device: device of the models, as for `choose_device`.

    Raises:
        UserError: if this machine does not have the device.
    """
    chosen = choose_device(device)
    return chosen if chosen.type == "cuda" else torch.device("cpu")


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


def shape_of(
    model: Any, blocks: nn.ModuleList | None, layers: tuple[str, ...], max_length: int
) -> ModelShape:
    """Count the parameters of a model whose blocks and layers are known."""
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
