"""Find the blocks of a model, and visit the hidden states between them.

This code names no model family. The blocks are the `ModuleList` with as many members as the config
states layers. Each time a model is loaded, a forward pass of a few tokens checks this choice
against the model's own `output_hidden_states`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from layerfusion.embeddings.shape import NORM
from layerfusion.errors import UserError, library_errors

Visit = Callable[[str, Tensor], None]
"""Function that receives a layer's name and its token vectors, shape (batch, tokens, width)."""

log = logging.getLogger(__name__)


class TopReached(Exception):
    """Signal that ends the forward pass once the highest wanted layer has been visited."""


@contextmanager
def taps(blocks: nn.ModuleList, layers: Sequence[str], visit: Visit) -> Iterator[None]:
    """Hook the blocks, so that a pass visits the input of each wanted block and the last output."""
    wanted = set(layers)
    top = -1 if NORM in wanted else max(int(layer) for layer in wanted)

    def reached(layer: int, hidden: Tensor) -> None:
        if str(layer) in wanted:
            visit(str(layer), hidden)
        if layer == top:
            raise TopReached

    def enters(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            reached(layer, args[0] if args else kwargs["hidden_states"])

        return hook

    def leaves(_module: nn.Module, _args: Any, output: Any) -> None:
        reached(len(blocks), output if isinstance(output, Tensor) else output[0])

    handles = [
        block.register_forward_pre_hook(enters(number), with_kwargs=True)
        for number, block in enumerate(blocks)
        if str(number) in wanted
    ]
    handles.append(blocks[-1].register_forward_hook(leaves))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def find_layers(
    name: str, model: nn.Module, device: torch.device
) -> tuple[nn.ModuleList | None, tuple[str, ...]]:
    """Choose the list of blocks that reproduces the model's own hidden states on a few tokens.

    This pass does not use inference mode, since a model may keep a table from its first pass, such
    as its rotary positions, and a table made in inference mode can never take part in a gradient.

    Returns:
        The blocks, or None if the model shares them; and the names of the layers.

    Raises:
        UserError: if the layers cannot be told apart.
    """
    kind = type(model).__name__
    count = block_count(name, model)
    ids = torch.arange(1, 5, device=device)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    settings = getattr(model.config, "quantization_config", None)
    fault = "does not read text alone"
    if settings is not None:
        fault = (
            f"cannot run on {device} as config.json quantizes it; take one in float16 or float32"
        )
    with library_errors(f"backbone {name}: {kind} {fault}"):
        output = model(**inputs, output_hidden_states=True)
    if output[0].shape[:-1] != ids.shape:
        raise UserError(
            f"backbone {name}: {kind} gives {tuple(output[0].shape)} numbers for {ids.shape[1]}"
            " tokens, not a vector for each of them"
        )
    reference = [*(getattr(output, "hidden_states", None) or ())]
    for number, state in enumerate(reference):
        _refuse_other_state(f"backbone {name}, layer {number}: {kind}", state, ids)
        if not bool(state.isfinite().all()):
            raise _not_finite(name, model, number)
        if torch.equal(state, state[:, :1].expand_as(state)):
            raise _all_alike(name, model, number)
    indices = tuple(str(number) for number in range(count + 1))
    leaving = False
    for blocks in block_lists(model, count):
        seen: dict[str, Tensor] = {}
        with (
            taps(blocks, (*indices, NORM), seen.__setitem__),
            _steps_outside(model, blocks) as steps,
        ):
            final = model(**inputs)[0]
        same = len(reference) == len(indices) and all(
            layer in seen and torch.equal(seen[layer], state)
            for layer, state in zip(indices[:-1], reference, strict=False)
        )
        if not same:
            outputs = zip(indices[1:], reference, strict=False)
            leaving |= all(x in seen and torch.equal(seen[x], state) for x, state in outputs)
            continue
        last = seen[indices[-1]]
        if torch.equal(last, final):
            return blocks, indices
        if last.shape != final.shape and any(entered is last for entered, _ in steps):
            return blocks, indices  # what follows, such as a projection of OPT, is no layer
        # A list of attentions beside a list of feed-forwards passes the test above as well, but the
        # output of its last member is no layer of the model.
        if any(torch.equal(entered, last) and torch.equal(left, final) for entered, left in steps):
            return blocks, (*indices, NORM)
    if len(reference) != count + 1:
        raise UserError(f"backbone {name}: its {count} layers cannot be told apart")
    if widths := {state.shape[-1] for state in reference if state.shape != reference[0].shape}:
        raise UserError(
            f"backbone {name}: the layers of {kind} have {reference[0].shape[-1]} numbers for a"
            f" token, and {', '.join(map(str, sorted(widths)))}; choose a model with as many in all"
        )
    if leaving and reference:
        log.info(
            "%s: %s counts its layers from what leaves the first block: layer i leaves block i + 1"
            " here, and layer %d is its last state",
            name,
            kind,
            count,
        )
        return None, indices
    log.info("%s: its layers are not a list of blocks, so a pass keeps all hidden states", name)
    return None, indices


def _refuse_other_state(what: str, state: Any, ids: Tensor) -> None:
    """Refuse a state that is no vector for each token, as of parts of texts or of a decoder."""
    if not isinstance(state, Tensor):
        raise UserError(f"{what} gives a {type(state).__name__} for its states; choose another one")
    if state.shape[:-1] != ids.shape:
        raise UserError(
            f"{what} gives {tuple(state.shape)} numbers for {ids.shape[1]} tokens; a layer needs a"
            " vector for each"
        )


def _not_finite(name: str, model: nn.Module, layer: int) -> UserError:
    """Build the error for a model whose states of a few tokens are NaN or infinite."""
    damaged = [path for path, x in model.named_parameters() if not bool(x.isfinite().all())]
    if damaged:
        return UserError(
            f"backbone {name}: weights hold NaN or infinity, {damaged[0]} for one (of"
            f" {len(damaged)}); the files are damaged, or the numbers too large for the dtype"
        )
    return UserError(
        f"backbone {name}, layer {layer}: a value that is not finite, although all weights are; try"
        f" backbone.{name}.dtype=float32"
    )


def _all_alike(name: str, model: nn.Module, layer: int) -> UserError:
    """Build the error for a model that gives different tokens the same state."""
    empty = [path for path, x in model.named_parameters() if x.ndim > 1 and not bool(x.any())]
    why = f"weights hold nothing but zeros, {empty[0]} for one (of {len(empty)})" if empty else ""
    return UserError(
        f"backbone {name}, layer {layer}: different tokens have the same state"
        + (f", as {why}" if why else "")
        + "; the files are damaged, or were written before they were filled"
    )


@contextmanager
def _steps_outside(
    model: nn.Module, blocks: nn.ModuleList
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Record the input and output of each module outside the blocks, such as a final norm."""
    inside = set(blocks.modules())
    steps: list[tuple[Tensor, Tensor]] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            steps.append((args[0], output))

    handles = [m.register_forward_hook(keep) for m in model.modules() if m not in inside]
    try:
        yield steps
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def ends_in_norm(name: str, model: nn.Module, blocks: nn.ModuleList) -> bool:
    """Return true if a model without weights changes the output of its last block once more.

    Tensors of the meta device pass through the model, so nothing is computed. Some models read the
    values of a given mask and others those of a mask that they make, so we try both ways. A model
    that needs values in both counts as having a norm.

    Raises:
        UserError: if the model does not read text alone.
    """
    ids = torch.zeros((1, 4), dtype=torch.int64, device="meta")
    last = str(len(blocks))
    seen: dict[str, Tensor] = {}
    fault = f"backbone {name}: {type(model).__name__} does not read text alone"
    for mask in ({}, {"attention_mask": torch.ones_like(ids)}):
        try:
            with (
                library_errors(fault, passing=_needs_values),
                taps(blocks, (last, NORM), seen.__setitem__),
            ):
                return model(input_ids=ids, **mask)[0] is not seen[last]
        except RuntimeError:
            continue
    return True


def _needs_values(error: Exception) -> bool:
    """Tell the error of a model that needs the values of a tensor of the meta device."""
    return isinstance(error, RuntimeError)  # and NotImplementedError, which is one


def block_count(name: str, model: nn.Module) -> int:
    """Return the number of blocks that the config of a model states.

    Raises:
        UserError: if it states none.
    """
    count = getattr(text_config(model), "num_hidden_layers", None)
    if not count:
        raise UserError(f"backbone {name}: config.json states no layers of {type(model).__name__}")
    return count


def block_lists(model: nn.Module, count: int) -> list[nn.ModuleList]:
    """Return the lists that may hold the blocks, the outermost first."""
    return [module for _, module in _lists_by_depth(model, count)]


def likely_blocks(model: nn.Module, count: int) -> nn.ModuleList | None:
    """Guess without a pass which list holds the blocks.

    Return None if there is no list, or if several lists at the same depth hold parts of the blocks.
    XLM, for example, has a list of attentions beside a list of feed-forwards.
    """
    lists = _lists_by_depth(model, count)
    if not lists or (len(lists) > 1 and lists[0][0] == lists[1][0]):
        return None
    return lists[0][1]


def _lists_by_depth(model: nn.Module, count: int) -> list[tuple[int, nn.ModuleList]]:
    lists = [
        (path.count("."), module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    return sorted(lists, key=lambda item: item[0])


def text_config(model: nn.Module) -> Any:
    """Return the config of the part of a model that reads text."""
    config: Any = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config
