"""The random numbers of a training step, drawn beforehand.

Heads that are trained as one model compute as one, but each draws from a generator of its own, so
that it drops what it would drop alone. So the draws of a step are recorded once, made for each head
outside of the model, and played to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Draw:
    """One draw of a step: what `dropout` keeps of a tensor, or numbers between 0 and 1."""

    shape: tuple[int, ...]
    dropped: float | None = None
    """Share that dropout drops; None for uniform numbers."""

    def by(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """Draw as PyTorch does on a CPU: 0 or the factor of what is kept. Shape: `shape`."""
        drawn = torch.empty(self.shape, device=device)
        if self.dropped is None:
            return drawn.uniform_(generator=generator)
        kept = 1 - self.dropped
        return drawn.bernoulli_(kept, generator=generator).div_(kept)


@contextmanager
def recorded() -> Iterator[list[Draw]]:
    """List what is drawn inside the block."""
    draws: list[Draw] = []
    with _Draws(draws.append):
        yield draws


@contextmanager
def playing(drawn: Sequence[Tensor]) -> Iterator[None]:
    """Give what is drawn inside the block these numbers, in the order of `recorded`."""
    if not drawn:
        yield
        return
    left = iter(drawn)
    with _Draws(lambda _: next(left)):
        yield
    if next(left, None) is not None:
        raise ValueError("fewer numbers were drawn than when the draws were recorded")


def drawn_by(
    draws: Sequence[Draw], generator: torch.Generator, device: torch.device
) -> list[Tensor]:
    """Make the draws of a step with a generator of a device, which goes on from step to step."""
    return [draw.by(generator, device) for draw in draws]


class _Draws(TorchFunctionMode):
    """Asks for each draw, and uses what it is given; draws itself where that is None."""

    def __init__(self, ask: Callable[[Draw], Tensor | None]) -> None:
        super().__init__()
        self.ask = ask

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        given = None
        if func is torch.rand_like:
            given = self.ask(Draw(tuple(args[0].shape)))
        return func(*args, **kwargs) if given is None else given

    def _dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        given = self.ask(Draw(tuple(x.shape), p)) if training and p > 0 else None
        return x if given is None else x * given
