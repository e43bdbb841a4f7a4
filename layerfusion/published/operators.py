"""The operators and the head of published scripts, for `protocol=as_published` only.

Source: arXiv 2504.05764 and its authors' code. Written n(v) = v/‖v‖₂, s = min(d_1, d_2), P a
linear map to s and A_i one from d_i to 1024, both with bias and without activation. Nothing is
standardised. The operators of the honest protocol are in `fusion.operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerfusion.config.job import FusionConfig
from layerfusion.errors import UserError, unknown
from layerfusion.fusion.operators.base import FusionOperator
from layerfusion.fusion.operators.products import hamilton
from layerfusion.published.settings import MOST_SOURCES

WIDTH = 1024
SIDE = 32
EXPERTS = 5
GATE = (512, 256)
HEAD = ((1024, 0.5), (256, 0.3))
"""Widths of the head's hidden layers, each with the dropout behind its ReLU."""


class PublishedConcat(FusionOperator):
    """fused = [x1; x2]; with one source the vector itself."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths, sum(widths))

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch; there are no gates."""
        return torch.cat(sources, dim=1), None


class PublishedHadamard(FusionOperator):
    """fused = n(P · larger) ⊙ smaller, of width s; the first is the larger of two alike."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths, min(widths))
        self.larger = 0 if widths[0] >= widths[1] else 1
        self.project = nn.Linear(max(widths), self.width)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch; there are no gates."""
        larger, smaller = sources[self.larger], sources[1 - self.larger]
        return F.normalize(self.project(larger), dim=1) * smaller, None


class PublishedSum(FusionOperator):
    """fused = n(P · x1) + n(P' · x2), of width s."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths, min(widths))
        self.project = nn.ModuleList(nn.Linear(width, self.width) for width in widths)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch; there are no gates."""
        first, second = (
            F.normalize(project(x), dim=1) for project, x in zip(self.project, sources, strict=True)
        )
        return first + second, None


class PublishedMatmul(FusionOperator):
    """fused = n(vec(M_1 M_2)), M_i = A_i x_i read as a 32 × 32 matrix, row by row."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths, WIDTH)
        self.project = nn.ModuleList(nn.Linear(width, WIDTH) for width in widths)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch; there are no gates."""
        first, second = (
            project(x).unflatten(1, (SIDE, SIDE))
            for project, x in zip(self.project, sources, strict=True)
        )
        return F.normalize((first @ second).flatten(1), dim=1), None


class PublishedQuaternion(FusionOperator):
    """fused = 256 Hamilton products of A_1 x_1 and A_2 x_2, each read as 256 × 4."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths, WIDTH)
        self.project = nn.ModuleList(nn.Linear(width, WIDTH) for width in widths)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch; there are no gates."""
        first, second = (
            project(x).unflatten(1, (-1, 4))
            for project, x in zip(self.project, sources, strict=True)
        )
        return hamilton(first, second).flatten(1), None


class PublishedExperts(FusionOperator):
    """fused = Σ_k softmax(g(x))_k ReLU(W_k x) with x = [n(x1); n(x2)] and 5 dense experts.

    The gate g is linear d → 512 → 256 → 5 with a ReLU behind each hidden layer.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths, WIDTH)
        steps = [sum(widths), *GATE, EXPERTS]
        layers: list[nn.Module] = []
        for source, target in pairwise(steps):
            layers += [nn.Linear(source, target), nn.ReLU()]
        self.gate = nn.Sequential(*layers[:-1])
        self.experts = nn.Linear(sum(widths), EXPERTS * WIDTH)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch; the gates are the experts', not the sources'."""
        x = torch.cat([F.normalize(source, dim=1) for source in sources], dim=1)
        vectors = F.relu(self.experts(x)).unflatten(1, (EXPERTS, WIDTH))
        return torch.einsum("be,bew->bw", self.gate(x).softmax(dim=1), vectors), None


class PublishedResidual(FusionOperator):
    """[x1; x2; fused]: the sources themselves beside what another operator makes of them."""

    def __init__(self, operator: FusionOperator) -> None:
        super().__init__(operator.widths, sum(operator.widths) + operator.width)
        self.operator = operator

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch; there are no gates."""
        return torch.cat([*sources, self.operator(sources)], dim=1), None


PUBLISHED: dict[str, Callable[[Sequence[int]], FusionOperator]] = {
    "published_concat": PublishedConcat,
    "published_hadamard": PublishedHadamard,
    "published_sum": PublishedSum,
    "published_matmul": PublishedMatmul,
    "published_quaternion": PublishedQuaternion,
    "published_moe": PublishedExperts,
}
"""Operator by the name it has in `fusion=NAME`."""


def build_published(config: FusionConfig, widths: Sequence[int]) -> FusionOperator:
    """Build a published operator; with one source each is the vector itself.

    Raises:
        UserError: for an operator that does not exist, or with more than two sources.
    """
    if config.name not in PUBLISHED:
        raise unknown("fusion", config.name, PUBLISHED)
    if not 1 <= len(widths) <= MOST_SOURCES:
        raise UserError(
            f"fusion={config.name}: published operators take one or two sources,"
            f" found {len(widths)}"
        )
    if len(widths) == 1:
        return PublishedConcat(widths)
    operator = PUBLISHED[config.name](widths)
    return PublishedResidual(operator) if config.residual else operator


def build_head(width: int, num_classes: int) -> nn.Sequential:
    """The head: width → 1024 → ReLU → dropout .5 → 256 → ReLU → dropout .3 → classes."""
    layers: list[nn.Module] = []
    for hidden, dropout in HEAD:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, num_classes))
