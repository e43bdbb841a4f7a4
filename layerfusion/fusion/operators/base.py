"""The base class of the operators, and the pieces that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerfusion.calls import plain_calls
from layerfusion.config.rules import RULE, Rule
from layerfusion.errors import UserError


class FusionOperator(nn.Module):
    """Fuses K sources of widths d_1 … d_K into one vector; the base class of every operator.

    A subclass must define `fuse`. Its constructor takes `widths` and `width`, and any arguments of
    its own, which are keys of the group `fusion`. Where it also takes `importance`, `num_classes`
    or `dropout`, it gets those of the head. A subclass may set the attributes below, and override
    `multiple_of` and `source_losses`.

    >>> import torch
    >>> class Largest(FusionOperator):
    ...     def __init__(self, widths, width):
    ...         super().__init__(widths, width)
    ...         self.projections = Projections(widths, width)
    ...
    ...     def fuse(self, sources):
    ...         return self.projections.activated(sources).amax(dim=1), None
    >>> Largest([3, 5], 4)([torch.zeros(2, 3), torch.zeros(2, 5)]).shape
    torch.Size([2, 4])

    Args:
        widths: width d_k of each source.
        width: width of the fused vector.
    """

    formula = ""
    """The fused vector in one line. z_k = GELU(W_k x_k), y_k = r(W_k x_k), and r brings a vector to
    mean square 1."""
    ordered = False
    """True where the order of the sources changes the result."""
    classifies = False
    """True where the fused vectors are log-probabilities of the classes, or log-odds of labels, so
    that no classification layer follows."""

    @plain_calls()
    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.width = width
        self.class_weights: Tensor | None = None
        """Weight of each class in the training loss, shape (classes,); None if all rows count
        alike. `source_losses` has to count it too."""
        self.was_finite = False
        """Whether a batch of training has given finite vectors, which is asked of users' own."""
        self.multilabel = False
        """Whether texts have any number of the classes. An operator that classifies then gives
        log-odds of each, and `target` has the shape (batch, classes)."""

    @classmethod
    def multiple_of(cls, **arguments: Any) -> int:
        """The number that `width` has to be a multiple of.

        Args:
            arguments: the operator's own arguments, as its constructor takes them.
        """
        return 1

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Fuse one batch.

        Args:
            sources: one standardised tensor for each source. Shapes: (batch, d_k).

        Returns:
            The fused vectors, shape (batch, width), and the weight of each source in them, shape
            (batch, K), rows that sum to 1. The weights are None where the operator has none.
        """
        raise NotImplementedError("it has no method `fuse(self, sources)`")

    def forward(self, sources: list[Tensor]) -> Tensor:
        """Return the fused vectors alone. Shape: (batch, width)."""
        return self.fuse(sources)[0]

    def output_layers(self) -> Iterable[nn.Linear]:
        """Return the linear layers that give the logits, where the operator classifies itself.

        Scaling their weights and biases by one number has to scale the logits by it, and adding one
        number to their biases has to add it to the logits. Without such layers a head is not
        calibrated.
        """
        return ()

    def source_losses(self, sources: list[Tensor], target: Tensor) -> Tensor | None:
        """Return a loss that is added to the head's in training, or None.

        `late` trains a head for each source this way.

        Args:
            sources: one standardised tensor for each source. Shapes: (batch, d_k).
            target: class indices. Shape: (batch,).
        """
        return None


class Projections(nn.Module):
    """Projects every source to one width: y_k = W_k x_k + b_k.

    Each source has a matrix product of its own. For 39 sources this costs the same (within 5 %) as
    products batched over sources of equal width.

    Args:
        widths: width d_k of each source.
        width: width to project to: one number, or one for each source.
    """

    def __init__(self, widths: Sequence[int], width: int | Sequence[int]) -> None:
        super().__init__()
        self.out_widths = [width] * len(widths) if isinstance(width, int) else list(width)
        pairs = zip(widths, self.out_widths, strict=True)
        self.linear = nn.ModuleList(nn.Linear(source, target) for source, target in pairs)

    def forward(self, sources: list[Tensor]) -> list[Tensor]:
        """Project each source. Shapes: (batch, width)."""
        return [project(x) for project, x in zip(self.linear, sources, strict=True)]

    def activated(self, sources: list[Tensor]) -> Tensor:
        """Return z_k = GELU(y_k), stacked. Shape: (batch, K, width)."""
        return F.gelu(torch.stack(self(sources), dim=1))


def rescale(vector: Tensor) -> Tensor:
    """Return r(v) = v √n / ‖v‖, whose n numbers have mean square 1. Shape: (…, n), as given."""
    return F.normalize(vector, dim=-1) * vector.shape[-1] ** 0.5


def log_shares(importance: Sequence[float] | None, num_sources: int) -> Tensor:
    """Return the logarithm of each source's share of the importance. Shape: (K,).

    Without an importance all are zero.

    Raises:
        UserError: if the importance is not one positive number for each source.
    """
    if importance is None:
        return torch.zeros(num_sources)
    shares = torch.tensor(list(importance), dtype=torch.float64)
    usable = shares.shape == (num_sources,) and bool((shares.isfinite() & (shares > 0)).all())
    if not usable:
        raise UserError(
            f"importance: one positive number is needed for each of the {num_sources} sources, "
            f"found {list(importance)}"
        )
    return (shares / shares.sum()).log()


def check_argument(key: str, value: object, rule: Mapping[str, Rule]) -> None:
    """Raise a UserError where an operator's own argument breaks a rule of `config.rules`."""
    rule[RULE].check(f"fusion.{key}", value)


def check_divides(operator: str, width: int, part: int, key: str) -> None:
    """Raise a UserError where a width cannot be split into parts."""
    if width % part:
        below = width - width % part
        near = " or ".join(str(size) for size in (below, below + part) if size)
        raise UserError(
            f"fusion.width={width}: {operator} needs a multiple of {part} ({key}), such as {near}"
        )
