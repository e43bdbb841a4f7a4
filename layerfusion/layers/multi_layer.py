"""Probes of several layers at once: the learned scalar mix, and the group lasso over all layers.

Both are linear in the vectors of all their layers. They tell what layers are worth together, beside
what `probe` tells of each alone. As there, features are standardised by the rows that a probe is
fitted on, and held-out rows choose how strongly it is regularised.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.imports import import_object
from layerfusion.config.job import STRENGTHS
from layerfusion.config.registry import MULTI_LAYER_PROBES, import_path
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError
from layerfusion.layers.eigenbasis import axes
from layerfusion.layers.labels import is_multilabel, log_probabilities
from layerfusion.layers.probe import NEVER, HeldOut, LinearProbe, cross_fitted

PENALTIES = tuple(2.0**-power for power in range(1, 11))
"""Penalties of the group lasso, as shares of the smallest that keeps no layer."""
PATIENCE = 2
"""Settings that the first fold tries beyond its best so far; the others try the same ones."""
MAX_STEPS = 150
"""Most steps of L-BFGS for a fit of a scalar mix."""
INNER_STEPS = 20
"""Most steps of L-BFGS between two estimates of the layers' norms in a group lasso."""
OUTER_STEPS = 10
"""Most estimates of the layers' norms for one penalty."""
SETTLED = 0.01
"""The norms have settled once none changes by this share of the largest."""
LEAST_NORM = 0.01
"""Norms below this share of the largest count as this large: one of 0 could never grow again."""
TOLERANCE = 1e-5
"""A fit ends once no entry of the gradient of the mean loss is larger."""
SLOPE = 0.1
"""What p(1 - p) is about, for the step lengths along each feature."""
BIAS_PENALTY = 1e-5
"""Penalty on squared biases: that of a label which no row or every row has would have no end."""


@dataclass(frozen=True)
class MultiLayerProbe:
    """A probe of several layers, fitted on all rows, and what it says of rows held out."""

    shares: tuple[float, ...]
    """Share of each layer, in the order of the features. They add up to 1."""
    held_out: HeldOut
    """Predictions of rows that a probe was not fitted on. `strength` is the C of a scalar mix, and
    the penalty of a group lasso as a share of the smallest that keeps no layer."""
    probe: LinearProbe
    """The probe, for the vectors of the layers side by side."""


FitMultiLayer = Callable[..., MultiLayerProbe]
"""(features, labels, fold_of, num_classes) to a probe; see `scalar_mix` for their shapes."""


@dataclass(frozen=True)
class MultiLayerKind:
    """A kind of probe of several layers."""

    name: str
    fit: FitMultiLayer
    same_width: bool = False
    """True if it adds vectors, so that it takes the layers of one model under one pooling."""
    takes_strengths: bool = False
    """True if `fit` takes the C to choose among, those of `layers.strengths`, as a fifth."""


def scalar_mix(
    features: Sequence[Tensor],
    labels: Tensor,
    fold_of: Tensor,
    num_classes: int,
    strengths: Sequence[float] = STRENGTHS,
) -> MultiLayerProbe:
    """Fit a probe on a weighted mean of layers, and the weights with it.

    h = γ Σ_k s_k x_k with s = softmax(a) (Peters et al., NAACL 2018). γ is not learned: it gives
    the features of h variance 1 on average, as those of a single layer have, so that one C means
    the same for every mix. Without that, layers whose mix has the largest variance would be
    preferred, as the penalty costs them least, and nearly all weight would go to one layer.

    Args:
        features: the vectors of each layer, of one width d. Shapes: (rows, d).
        labels: class indices, shape (rows,), or labels, shape (rows, labels).
        fold_of: the fold in which a row is held out, 0, 1, …; -1 if it never is. Shape: (rows,).
        num_classes: number of classes.
        strengths: the C to choose among.
    """

    def build(seen: Tensor) -> _Model:
        return _ScalarMix(features, seen, _Target(labels, num_classes))

    return _cross_validate(build, labels, fold_of, sorted(strengths))


def group_lasso(
    features: Sequence[Tensor], labels: Tensor, fold_of: Tensor, num_classes: int
) -> MultiLayerProbe:
    """Fit a probe on all layers side by side, whose penalty leaves whole layers out.

    The mean loss plus λ Σ_k ‖W_k‖, with W_k the weights of layer k (Yuan and Lin, Journal of the
    Royal Statistical Society B 68, 2006), is minimised by ridge regressions, each with a ridge of
    λ / ‖W_k‖ for a layer, from the norms before (Bach et al., Foundations and Trends in Machine
    Learning 4, 2012, section 5). Norms come close to 0 then, but not to it, and the loss within
    some 0.0002 nats of the lowest.

    Args:
        features: the vectors of each layer. Shapes: (rows, d_k).
        labels: class indices, shape (rows,), or labels, shape (rows, labels).
        fold_of: the fold in which a row is held out, 0, 1, …; -1 if it never is. Shape: (rows,).
        num_classes: number of classes.
    """

    def build(seen: Tensor) -> _Model:
        return _GroupLasso(features, seen, _Target(labels, num_classes))

    return _cross_validate(build, labels, fold_of, PENALTIES)


def find_multi_layer(name: str) -> MultiLayerKind:
    """Find the kind of probe that `profile.multi_layer` names.

    Args:
        name: one of `config.registry.MULTI_LAYER_PROBES`, or `package.module:name` of a
            `MultiLayerKind`.

    Raises:
        UserError: for a name that does not exist, or an object that is no such kind.
    """
    key = "profile.multi_layer"
    kind = import_object(key, import_path(key, name, MULTI_LAYER_PROBES))
    if not isinstance(kind, MultiLayerKind):
        raise UserError(
            f"{key}={name}: it is of type {type(kind).__name__}; a MultiLayerKind is needed"
        )
    return kind


SCALAR_MIX = MultiLayerKind("scalar_mix", scalar_mix, same_width=True, takes_strengths=True)
GROUP_LASSO = MultiLayerKind("group_lasso", group_lasso)


def _cross_validate(
    build: Callable[[Tensor], _Model], labels: Tensor, fold_of: Tensor, settings: Sequence[float]
) -> MultiLayerProbe:
    """Fit along a path of settings on all folds but one; then once more on all rows.

    Args:
        build: makes a model that is fitted on some rows, given as a mask of shape (rows,).
        labels: those of all rows.
        fold_of: the fold in which each row is held out.
        settings: from the strongest regularisation to the weakest.
    """
    predicted: dict[float, Tensor] = {}
    tried = list(settings)
    for fold in range(int(fold_of.max()) + 1):
        here = fold_of == fold
        losses: list[float] = []
        for setting, log_probs in build(~here).path(tried, here):
            if setting not in predicted:
                predicted[setting] = log_probs.new_zeros(len(labels), log_probs.shape[1])
            predicted[setting][here] = log_probs
            losses.append(HeldOut(log_probs, labels[here], setting, text_of=None).log_loss)
            if not fold and len(losses) - losses.index(min(losses)) > PATIENCE:
                break
        tried = tried[: len(losses)]
    judged = fold_of != NEVER
    said = {setting: predicted[setting][judged] for setting in tried}
    best = cross_fitted(said, labels[judged], fold_of[judged], text_of=None)
    everything = torch.ones(len(labels), dtype=torch.bool)
    model = build(everything)
    for setting, _ in model.path(tried, ~everything):
        if setting == best.strength:
            break
    shares = model.shares()
    return MultiLayerProbe(tuple((shares / shares.sum()).tolist()), best, model.probe())


@dataclass(frozen=True)
class _Target:
    """What a model is to predict, and its loss."""

    labels: Tensor
    num_classes: int

    @property
    def columns(self) -> int:
        """Number of logits a row: one is enough for two classes."""
        return 1 if self.num_classes == 2 and not is_multilabel(self.labels) else self.num_classes

    def loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Mean loss of some rows, in nats; of labels, summed over them. Shape: ()."""
        target = self.labels[rows]
        if is_multilabel(target):
            return F.binary_cross_entropy_with_logits(logits, target.float()) * logits.shape[1]
        return F.cross_entropy(self.full(logits), target)

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probabilities of the classes or labels. Shape: (rows, classes)."""
        return log_probabilities(self.full(logits), multilabel=is_multilabel(self.labels))

    def full(self, logits: Tensor) -> Tensor:
        """Give two classes a logit each, of which the first is 0. Shape: (rows, classes)."""
        return logits if logits.shape[1] == self.num_classes else F.pad(logits, (1, 0))


class _Model(ABC):
    """A probe of several layers that is fitted on some rows, and knows the others' features.

    Args:
        features: the vectors of each layer. Shapes: (rows, d_k).
        seen: the rows that it is fitted on. Shape: (rows,), bool.
        target: what it is to predict.
    """

    def __init__(self, features: Sequence[Tensor], seen: Tensor, target: _Target) -> None:
        self.seen, self.target = seen, target
        self.scale = Standardiser.fit([layer[seen] for layer in features])
        self.bias = torch.zeros(target.columns, requires_grad=True)

    def path(self, settings: Sequence[float], rows: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Fit with one setting after the other, each from the weights before.

        Yields:
            The setting, and log-probabilities of some rows. Shape: (rows, classes).
        """
        for setting in settings:
            self.fit(setting)
            with torch.no_grad():
                yield setting, self.target.log_probs(self.logits(rows))

    @abstractmethod
    def fit(self, setting: float) -> None:
        """Fit with a strength of regularisation."""

    @abstractmethod
    def logits(self, rows: Tensor) -> Tensor:
        """Logits of some rows. Shape: (rows, columns)."""

    @abstractmethod
    def shares(self) -> Tensor:
        """How much each layer counts. Shape: (layers,)."""

    @abstractmethod
    def weights(self) -> list[Tensor]:
        """Weights of the standardised features of each layer. Shapes: (columns, d_k)."""

    def probe(self) -> LinearProbe:
        """The probe, for vectors as they come from the store, side by side."""
        with torch.no_grad():
            pairs = zip(self.weights(), self.scale.std, strict=True)
            weight = torch.cat([one / std for one, std in pairs], dim=1)
            bias = self.bias - weight @ torch.cat(self.scale.mean)
            return LinearProbe(self.target.full(weight.T).T, self.target.full(bias[None])[0])

    def minimise(self, loss: Callable[[], Tensor], free: Sequence[Tensor], steps: int) -> None:
        """Minimise a loss by L-BFGS, and with it the bias's own penalty."""
        optimizer = torch.optim.LBFGS(
            [*free, self.bias],
            max_iter=steps,
            history_size=20,
            tolerance_grad=TOLERANCE,
            line_search_fn="strong_wolfe",
        )

        def evaluate() -> float:
            optimizer.zero_grad()
            value = loss() + BIAS_PENALTY * self.bias.square().sum()
            value.backward()
            return float(value.detach())

        optimizer.step(evaluate)


class _ScalarMix(_Model):
    """See `scalar_mix`. All layers are turned to the eigenbasis of their mean covariance."""

    def __init__(self, features: Sequence[Tensor], seen: Tensor, target: _Target) -> None:
        super().__init__(features, seen, target)
        standard = torch.stack(self.scale(features))
        spectrum, self.basis = axes(standard[:, seen].flatten(0, 1))
        self.spectrum = spectrum.clamp_min(0)
        self.vectors = standard @ self.basis
        flat = self.vectors[:, seen].flatten(1)
        self.alike = flat @ flat.T / flat.shape[1]
        """Mean covariance of a feature in two layers. Shape: (layers, layers)."""
        self.raw = torch.zeros(len(features), requires_grad=True)
        self.weight = torch.zeros(target.columns, self.vectors.shape[2])

    def shares(self) -> Tensor:
        return self.raw.softmax(dim=0)

    def _scaled(self) -> Tensor:
        """The shares times γ. Shape: (layers,)."""
        shares = self.shares()
        return shares / (shares @ self.alike @ shares).clamp_min(1e-12).sqrt()

    def fit(self, setting: float) -> None:
        vectors, rows = self.vectors[:, self.seen], int(self.seen.sum())
        penalty = 1 / (setting * rows)
        # Along each axis of the basis, a unit is as long as the loss is steep.
        unit = (SLOPE * self.spectrum + penalty).rsqrt()
        free = (self.weight / unit).requires_grad_()

        def loss() -> Tensor:
            weight = free * unit
            mixed = torch.einsum("k,knd->nd", self._scaled(), vectors)
            mean = self.target.loss(mixed @ weight.T + self.bias, self.seen)
            return mean + penalty / 2 * weight.square().sum()

        self.minimise(loss, [free, self.raw], MAX_STEPS)
        self.weight = free.detach() * unit

    def logits(self, rows: Tensor) -> Tensor:
        mixed = torch.einsum("k,knd->nd", self._scaled(), self.vectors[:, rows])
        return mixed @ self.weight.T + self.bias

    def weights(self) -> list[Tensor]:
        plain = self.weight @ self.basis.T
        return [share * plain for share in self._scaled()]


class _GroupLasso(_Model):
    """See `group_lasso`. Each layer is turned to the eigenbasis of its own covariance."""

    def __init__(self, features: Sequence[Tensor], seen: Tensor, target: _Target) -> None:
        super().__init__(features, seen, target)
        standard = self.scale(features)
        found = [axes(layer[seen]) for layer in standard]
        self.bases = [basis for _, basis in found]
        self.spectrum = torch.cat([values for values, _ in found]).clamp_min(0)
        self.sizes = [len(values) for values, _ in found]
        turned = [layer @ basis for layer, basis in zip(standard, self.bases, strict=True)]
        self.vectors = torch.cat(turned, dim=1)
        places = torch.arange(len(features))
        self.layer_of = places.repeat_interleave(torch.tensor(self.sizes))
        """The layer of each feature. Shape: (all features,)."""
        self.weight = torch.zeros(target.columns, self.vectors.shape[1])
        self.highest = self._least_penalty_that_keeps_nothing()

    def _norms(self, weight: Tensor) -> Tensor:
        """Norm of each layer's weights. Shape: (layers,)."""
        squares = torch.zeros(len(self.sizes))
        return squares.index_add(0, self.layer_of, weight.square().sum(dim=0)).sqrt()

    def _least_penalty_that_keeps_nothing(self) -> float:
        """Fit the bias alone, and return the largest norm of a layer's gradient there."""

        def loss() -> Tensor:
            rows = int(self.seen.sum())
            return self.target.loss(self.bias.expand(rows, -1), self.seen)

        self.minimise(loss, [], MAX_STEPS)
        weight = self.weight.clone().requires_grad_()
        logits = self.vectors[self.seen] @ weight.T + self.bias
        self.target.loss(logits, self.seen).backward()
        assert weight.grad is not None
        return max(float(self._norms(weight.grad).max()), 1e-12)

    def shares(self) -> Tensor:
        norms = self._norms(self.weight)
        return norms if bool(norms.any()) else torch.ones_like(norms)

    def fit(self, setting: float) -> None:
        vectors, strength = self.vectors[self.seen], setting * self.highest
        norms = self.shares()
        for _ in range(OUTER_STEPS):
            before = norms.clamp_min(LEAST_NORM * float(norms.max()))
            penalty = (strength / before)[self.layer_of]
            unit = (SLOPE * self.spectrum + penalty).rsqrt()
            free = (self.weight / unit).requires_grad_()

            def loss(free: Tensor = free, unit: Tensor = unit, penalty: Tensor = penalty) -> Tensor:
                weight = free * unit
                mean = self.target.loss(vectors @ weight.T + self.bias, self.seen)
                return mean + (penalty * weight.square()).sum() / 2

            self.minimise(loss, [free], INNER_STEPS)
            self.weight = free.detach() * unit
            norms = self._norms(self.weight)
            if float((norms - before).abs().max()) < SETTLED * float(norms.max()):
                break

    def logits(self, rows: Tensor) -> Tensor:
        return self.vectors[rows] @ self.weight.T + self.bias

    def weights(self) -> list[Tensor]:
        parts = self.weight.split(self.sizes, dim=1)
        return [part @ basis.T for part, basis in zip(parts, self.bases, strict=True)]
