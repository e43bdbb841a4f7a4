"""A classifier of texts on layers of frozen language models, for transformers alone.

This file lies in the folder of an exported classifier and is read by
`AutoModel.from_pretrained(folder, trust_remote_code=True)`. It needs torch and transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

LEAST_PROBABILITY = 1e-7
"""Least probability of a class that the regression of a lexical source gives."""
MULTILABEL = "multi_label_classification"
"""The problem whose texts have any number of the classes, under its name in transformers."""


class LayerFusionConfig(PretrainedConfig):
    """Settings of an exported classifier.

    Args:
        backbones: for each language model its config, cut above the highest layer that is used; the
            path of its final norm; and whether padding leaves real tokens as they are.
        lexical: for each lexical source the kind of its projection, and its shape.
        sources: for each source of the heads its backbone or lexical source, layer and pooling.
        heads: for each head its kind, its settings, and the shapes of its tensors.
        embedding_width: width of all sources side by side.
    """

    model_type = "layerfusion"

    def __init__(
        self,
        backbones: Sequence[dict[str, Any]] = (),
        lexical: Sequence[dict[str, Any]] = (),
        sources: Sequence[dict[str, Any]] = (),
        heads: Sequence[dict[str, Any]] = (),
        embedding_width: int = 0,
        **more: Any,
    ) -> None:
        self.backbones = list(backbones)
        self.lexical = list(lexical)
        self.sources = list(sources)
        self.heads = list(heads)
        self.embedding_width = embedding_width
        super().__init__(**more)


class CutModel(nn.Module):
    """A language model without the blocks above the highest layer that is used.

    Args:
        about: its config, its dtype, the path of its final norm, and which layer it ends in.
    """

    def __init__(self, about: Mapping[str, Any]) -> None:
        super().__init__()
        settings = dict(about["config"])
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        model: Any = AutoModel.from_config(config, dtype=getattr(torch, about["dtype"]))
        if about["encoder"]:  # of an encoder and a decoder, the encoder reads the text
            model = model.get_encoder()
        self.norm: nn.Module | None = None
        self.at = about["norm"]
        if self.at:  # the final norm is a layer of its own, and no part of those below it
            if about["keeps_norm"]:
                self.norm = model.get_submodule(self.at)
            self._put(model, nn.Identity())
        self.model = model
        self.top = about["top"]

    def _put(self, model: nn.Module, norm: nn.Module) -> None:
        parent, _, name = self.at.rpartition(".")
        setattr(model.get_submodule(parent), name, norm)

    def whole(self) -> nn.Module:
        """Return the language model with its norm in its place, where it is kept."""
        if self.norm is not None:
            self._put(self.model, self.norm)
        return self.model

    def forward(self, ids: Tensor, mask: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute the wanted layers: "0" enters the first block, "i" leaves block i.

        Args:
            ids: token ids, padded on the right. Shape: (batch, tokens).
            mask: 1 on real tokens. Shape: (batch, tokens).
            layers: names of the layers; `norm` is the output of the final norm.

        Returns:
            Layer to token vectors. Shapes: (batch, tokens, width).
        """
        below = [layer for layer in layers if layer not in (self.top, "norm")]
        output = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=bool(below))
        states = {layer: output.hidden_states[int(layer)] for layer in below}
        states[self.top] = output[0]
        if self.norm is not None:
            states["norm"] = self.norm(output[0])
        return states


def pooled(hidden: Tensor, mask: Tensor, how: str, skip_first: bool) -> Tensor:
    """Pool the tokens of each row that count, in float32. Shape: (batch, width)."""
    hidden, count = hidden.float(), mask.sum(dim=1, keepdim=True)
    skipped = torch.clamp(count - 1, max=int(skip_first))
    counts = (mask > 0) & (mask.cumsum(dim=1) > skipped)
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    positions = torch.arange(hidden.shape[1], device=hidden.device).expand_as(mask)
    if how == "first":
        return hidden[rows, torch.where(counts, positions, hidden.shape[1]).amin(dim=1)]
    if how == "last":
        return hidden[rows, torch.where(counts, positions, -1).amax(dim=1)]
    if how == "max":
        return hidden.masked_fill(~counts[:, :, None], -torch.inf).amax(dim=1)
    return hidden.masked_fill(~counts[:, :, None], 0.0).sum(dim=1) / (count - skipped)


class Tensors(nn.Module):
    """Named tensors; a dot in a name leads into a module.

    Args:
        shapes: shape of each tensor by its name.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            *way, last = name.split(".")
            place: nn.Module = self
            for part in way:
                if not hasattr(place, part):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            values = torch.zeros(list(shape), dtype=torch.float32)
            place.register_parameter(last, nn.Parameter(values, requires_grad=False))

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor by its name."""
        return self.get_parameter(name)


class Lexical(nn.Module):
    """A lexical source: a projection of weighted words, or a regression on them."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.kind = about["kind"]
        self.tensors = Tensors(about["shapes"])

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Return vectors, or log-probabilities of the classes; of labels, log-odds.

        Args:
            ids: numbers of the words of each text. Shape: (batch, words).
            weights: TF-IDF weights; 0 is padding. Shape: (batch, words).
        """
        rows = F.embedding(ids, self.tensors["weight"]).double()
        values = (weights.double()[:, :, None] * rows).sum(dim=1)
        if self.kind == "projection":
            return values.float()
        values = values + self.tensors["bias"].double()
        if self.kind == "regression of labels":
            most = -math.log(LEAST_PROBABILITY)
            return values.clamp(-most, most).float()
        shares = torch.sigmoid(values).clamp(LEAST_PROBABILITY)
        return (shares / shares.sum(dim=1, keepdim=True)).log().float()


class OperatorHead(nn.Module):
    """A trained fusion operator on standardised sources, and a classification layer."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.about = about
        self.tensors = Tensors(about["shapes"])

    def standardised(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Standardise the sources by the means and deviations of train."""
        pairs = [
            (self.tensors[f"mean.{k}"], self.tensors[f"std.{k}"]) for k in range(len(features))
        ]
        return [(x.float() - mean) / std for x, (mean, std) in zip(features, pairs, strict=True)]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return log-probabilities of classes, or of labels one by one. Shape: (batch, classes)."""
        logits = self.logits(features)
        if self.about["multilabel"]:
            return log_sigmoid(logits.double()).float()
        return logits.float().log_softmax(dim=1)

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits of classes, or log-odds of labels. Shape: (batch, classes)."""
        x = self.standardised(features)
        fuse, residual = OPERATORS[self.about["operator"]], self.about["residual"]
        fused = fuse(self, "operator.operator." if residual else "operator.", x)
        if residual:
            beside = F.gelu(torch.cat(self.projected("operator.", x), dim=1))
            fused = torch.cat([beside, fused], dim=1)
        if "classify.weight" in self.about["shapes"]:
            fused = self.linear("classify", fused)
        return fused

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Apply a linear layer."""
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def projected(self, at: str, x: Sequence[Tensor]) -> list[Tensor]:
        """Project each source with the projections of an operator."""
        return [self.linear(f"{at}projections.linear.{k}", one) for k, one in enumerate(x)]

    def activated(self, at: str, x: Sequence[Tensor]) -> Tensor:
        """Return GELU of the projected sources, stacked. Shape: (batch, K, width)."""
        return F.gelu(torch.stack(self.projected(at, x), dim=1))

    def factors(self, at: str, x: Sequence[Tensor]) -> list[Tensor]:
        """Return the projected sources, each rescaled to mean square 1."""
        return [rescale(one) for one in self.projected(at, x)]


def log_sigmoid(x: Tensor) -> Tensor:
    """Logarithm of the probability that log-odds stand for, in steps that every graph has."""
    return x.clamp(max=0) - ((-x.abs()).exp() + 1).log()


def rescale(x: Tensor) -> Tensor:
    """Bring vectors to mean square 1."""
    return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5


def concat(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """GELU(W [x_1; …; x_K])."""
    return F.gelu(head.linear(f"{at}projection", torch.cat(x, dim=1)))


def total(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """Σ_k z_k with z_k = GELU(W_k x_k)."""
    return head.activated(at, x).sum(dim=1)


def average(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """1/K Σ_k z_k."""
    return head.activated(at, x).mean(dim=1)


def scalar_mix(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """γ Σ_k softmax(s)_k z_k."""
    gates = torch.softmax(head.tensors[f"{at}scores"], dim=0)
    return head.tensors[f"{at}scale"] * (gates[:, None] * head.activated(at, x)).sum(dim=1)


def gated(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """Σ_k g_k z_k with g = softmax((G [z_1; …; z_K] + b) / τ)."""
    z = head.activated(at, x)
    gates = torch.softmax(head.linear(f"{at}gate", z.flatten(1)) / head.about["temperature"], dim=1)
    return (gates[:, :, None] * z).sum(dim=1)


def experts(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """Σ_e softmax(G x)_e GELU(W_e x) with x = [x_1; …; x_K]."""
    together = torch.cat(x, dim=1)
    gates = torch.softmax(head.linear(f"{at}gate", together), dim=1)
    outputs = F.gelu(head.linear(f"{at}experts", together))
    return (gates[:, :, None] * outputs.unflatten(1, (gates.shape[1], -1))).sum(dim=1)


def attention(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """1/K Σ_k (z_k + MHA(z)_k)."""
    z, at = head.activated(at, x), f"{at}attention."
    heads = head.about["heads"]
    mixed = F.linear(z, head.tensors[f"{at}in_proj_weight"], head.tensors[f"{at}in_proj_bias"])
    query, key, value = (
        part.unflatten(2, (heads, -1)).transpose(1, 2) for part in mixed.chunk(3, dim=2)
    )
    scores = query @ key.mT / query.shape[-1] ** 0.5
    seen = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(2)
    return (z + head.linear(f"{at}out_proj", seen)).mean(dim=1)


def cooccurrence(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """[triu(2σ(s Z Zᵀ) − 1); 1/K Σ_k z_k]."""
    z = head.activated(at, x)
    together = 2 * torch.sigmoid(head.tensors[f"{at}scale"] * (z @ z.mT)) - 1
    upper = [together[:, k, k:] for k in range(len(x))]
    return torch.cat([*upper, z.mean(dim=1)], dim=1)


def hadamard(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """GELU(r(y_1 ⊙ … ⊙ y_K))."""
    product, *others = head.factors(at, x)
    for y in others:
        product = rescale(product * y)
    return F.gelu(product)


def matmul(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """GELU(r(vec(M_1 … M_K))) with the rescaled y_k as matrices."""
    side = head.about["side"]
    product, *others = head.factors(at, x)
    for y in others:
        left = product.unflatten(1, (-1, side))
        product = rescale((left @ y.unflatten(1, (side, side))).flatten(1))
    return F.gelu(product)


def quaternion(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """GELU(r(q_1 … q_K)) with the rescaled y_k as quaternions, by Hamilton products."""
    product, *others = head.factors(at, x)
    for y in others:
        a, b, c, d = product.unflatten(1, (-1, 4)).unbind(-1)
        e, f, g, h = y.unflatten(1, (-1, 4)).unbind(-1)
        parts = [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ]
        product = rescale(torch.stack(parts, dim=-1).flatten(1))
    return F.gelu(product)


def late(head: OperatorHead, at: str, x: list[Tensor]) -> Tensor:
    """Log softmax(Σ_k softmax(b)_k log softmax(C_k z_k)); of labels, Σ_k softmax(b)_k C_k z_k."""
    z = [F.gelu(one) for one in head.projected(at, x)]
    each = [head.linear(f"{at}heads.{k}", one) for k, one in enumerate(z)]
    gates = torch.softmax(head.tensors[f"{at}scores"], dim=0)
    if head.about["multilabel"]:
        return (gates[:, None] * torch.stack(each, dim=1)).sum(dim=1)
    each = [one.log_softmax(dim=1) for one in each]
    return (gates[:, None] * torch.stack(each, dim=1)).sum(dim=1).log_softmax(dim=1)


OPERATORS: dict[str, Callable[[OperatorHead, str, list[Tensor]], Tensor]] = {
    "ConcatFusion": concat,
    "SumFusion": total,
    "MeanFusion": average,
    "ScalarMix": scalar_mix,
    "GatedFusion": gated,
    "ExpertsFusion": experts,
    "AttentionFusion": attention,
    "CooccurrenceFusion": cooccurrence,
    "HadamardFusion": hadamard,
    "MatmulFusion": matmul,
    "QuaternionFusion": quaternion,
    "LateFusion": late,
}
"""Class of an operator in LayerFusion to the function that computes it."""


class StackHead(nn.Module):
    """A linear probe for each source, and a logarithmic pool of what the probes say.

    A trained head on some of the sources may be one more member of the pool.
    """

    def __init__(self, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.form = about["form"]
        self.multilabel = about["multilabel"]
        self.shapes = about["shapes"]
        self.tensors = Tensors(about["shapes"])
        self.member: OperatorHead | None = None
        if "member" in about:
            self.member = OperatorHead(about["member"])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return log-probabilities of classes, or of labels one by one. Shape: (batch, classes)."""
        tensors = self.tensors
        each = [
            F.linear(x.double(), tensors[f"weight.{k}"].double(), tensors[f"bias.{k}"].double())
            for k, x in enumerate(features)
        ]
        if self.member is not None:
            read = [features[k] for k in self.member.about["sources"]]
            each.append(self.member.logits(read).double())
        if self.multilabel:
            return self._of_labels(torch.stack(each).float().double())
        each = [logits.float().log_softmax(dim=1) for logits in each]
        pooled = self._pooled(torch.stack(each).double())  # (K, batch, classes)
        if "pool.shift" in self.shapes:
            pooled = (pooled + tensors["pool.shift"].double()).log_softmax(dim=1)
        return pooled.float()

    def _of_labels(self, logits: Tensor) -> Tensor:
        """Pool each label of a text as a text with the classes no and yes.

        Shape: (batch, labels), from log-odds, (K, batch, labels).
        """
        both = torch.stack([log_sigmoid(-logits), log_sigmoid(logits)], dim=-1)
        pooled = self._pooled(both.flatten(1, 2))
        odds = (pooled[:, 1] - pooled[:, 0]).unflatten(0, (-1, logits.shape[2]))
        if "pool.shift" in self.shapes:
            odds = odds + self.tensors["pool.shift"].double()
        return log_sigmoid(odds).float()

    def _pooled(self, log_probs: Tensor) -> Tensor:
        """Return log-probabilities, (rows, classes), from those of K sources."""
        tensors = self.tensors
        bias, scale, gate, mean, std = (
            tensors[f"pool.{name}"].double() for name in ("bias", "scale", "gate", "mean", "std")
        )
        if self.form == "anchored":
            gates = bias.expand(log_probs.shape[1], -1)
        elif self.form == "anchored_gated":
            gates = bias + (agreement(log_probs, scale * bias) - mean) / std @ gate.T
        else:
            gates = torch.softmax(bias + (evidence(log_probs) - mean) / std @ gate.T, dim=1)
        mixed = (gates.T[:, :, None] * log_probs).sum(dim=0)
        return (scale * mixed).log_softmax(dim=1)


def evidence(log_probs: Tensor) -> Tensor:
    """Say of each source how sure it is, and how far from the mean. Shape: (batch, 3 K)."""
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(dim=2)
    distance = (probs - probs.mean(dim=0)).abs().sum(dim=2)
    return torch.cat([entropy, log_probs.amax(dim=2), distance]).T


def agreement(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Say how sure the pool is, and how far its sources agree with it. Shape: (batch, 4)."""
    mixed = (weights[:, None, None] * log_probs).sum(dim=0).log_softmax(dim=1)
    sure, probs = mixed.exp(), log_probs.exp()
    entropy = -(sure * mixed).sum(dim=1)
    distance = (probs - sure).abs().sum(dim=2).mean(dim=0)
    spread = probs.amax(dim=2).std(dim=0, correction=0)
    return torch.stack([entropy, mixed.amax(dim=1), distance, spread], dim=1)


HEADS = {"operator": OperatorHead, "stack": StackHead}


class LayerFusionModel(PreTrainedModel):
    """The sources of a classifier: pooled layers of language models, and lexical vectors.

    Its `pooler_output` is the embedding that the heads see: all sources side by side, standardised
    by the means and deviations of train where the heads standardise them.
    """

    config_class = LayerFusionConfig
    base_model_prefix = ""
    _keep_in_fp32_modules_strict = {"heads", "lexical"}  # noqa: RUF012
    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.backbones = nn.ModuleList(CutModel(about) for about in config.backbones)
        self.lexical = nn.ModuleList(Lexical(about) for about in config.lexical)
        self.heads = nn.ModuleList(HEADS[about["kind"]](about) for about in config.heads)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: every weight comes from the file."""

    def features(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the vectors of each source. Shapes: (batch, d_k), float32.

        Args:
            inputs: what the tokenizer gives: `input_ids` and `attention_mask` of the first model,
                `input_ids_1` and so on of others, and `pooled_tokens` of those that read windows;
                `lexical_ids_0` and `lexical_weights_0` of lexical sources.
        """
        found: dict[int, Tensor] = {}
        for number in range(len(self.backbones)):
            own = {k: one for k, one in enumerate(self.config.sources) if one["backbone"] == number}
            ids, mask = (inputs[key_of(name, number)] for name in ("input_ids", "attention_mask"))
            layers = list(dict.fromkeys(one["layer"] for one in own.values()))
            if ids.ndim == 3:  # windows: all tokens of a text that count are pooled together
                counts = inputs[key_of("pooled_tokens", number)]
                if not torch.onnx.is_in_onnx_export():
                    longest = int(mask.sum(dim=2).max())
                    ids, mask, counts = (x[:, :, :longest] for x in (ids, mask, counts))
                states, mask = self._of_windows(number, ids, mask, layers), counts.flatten(1, 2)
            else:
                states = self._states(number, ids, mask, layers)
            found |= {
                k: pooled(states[one["layer"]], mask, one["pool"], one["skip_first"])
                for k, one in own.items()
            }
        for number, source in enumerate(self.lexical):
            ids, weights = inputs[f"lexical_ids_{number}"], inputs[f"lexical_weights_{number}"]
            vectors = source(ids, weights)
            found |= {
                k: vectors for k, one in enumerate(self.config.sources) if one["lexical"] == number
            }
        return [found[k] for k in range(len(self.config.sources))]

    def _of_windows(
        self, number: int, ids: Tensor, mask: Tensor, layers: Sequence[str]
    ) -> dict[str, Tensor]:
        """Compute layers of texts in windows. Shapes: (batch, windows * tokens, width).

        Windows without a token only fill the batch up. They do not pass through the model, but for
        that of a graph, whose steps are fixed: there they have one token, which does not count.
        """
        if torch.onnx.is_in_onnx_export():
            mask = torch.cat([torch.ones_like(mask[:, :, :1]), mask[:, :, 1:]], dim=2)
            states = self._states(number, ids.flatten(0, 1), mask.flatten(0, 1), layers)
            return {k: x.reshape(ids.shape[0], -1, x.shape[2]) for k, x in states.items()}
        there = mask.any(dim=2)
        found = {}
        for layer, rows in self._states(number, ids[there], mask[there], layers).items():
            whole = rows.new_zeros(*ids.shape, rows.shape[2])
            whole[there] = rows
            found[layer] = whole.flatten(1, 2)
        return found

    def _states(
        self, number: int, ids: Tensor, mask: Tensor, layers: Sequence[str]
    ) -> dict[str, Tensor]:
        """Compute layers of a language model. Shapes: (rows, tokens, width)."""
        backbone = self.backbones[number]
        if self.config.backbones[number]["masks_padding"]:
            return backbone(ids, mask, layers)
        # Padding would change the real tokens, so each row passes alone.
        lengths = mask.sum(dim=1).tolist()
        rows = [
            backbone(ids[n : n + 1, :size], mask[n : n + 1, :size], layers)
            for n, size in enumerate(lengths)
        ]
        return {
            k: torch.cat([F.pad(x[k], (0, 0, 0, ids.shape[1] - x[k].shape[1])) for x in rows])
            for k in layers
        }

    def embedding(self, features: Sequence[Tensor]) -> Tensor:
        """Put what the heads see side by side. Shape: (batch, Σ d_k)."""
        first = self.heads[0] if len(self.heads) else None
        standard = first.standardised(features) if isinstance(first, OperatorHead) else features
        return torch.cat(list(standard), dim=1)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        **more: Any,
    ) -> Any:
        """Embed texts that the tokenizer of the same folder has prepared."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **more}
        embedding = self.embedding(self.features(inputs))
        if return_dict is False:
            return (embedding[:, None], embedding)
        return BaseModelOutputWithPooling(
            last_hidden_state=embedding[:, None],  # type: ignore[arg-type]
            pooler_output=embedding,  # type: ignore[arg-type]
        )


class LayerFusionForSequenceClassification(LayerFusionModel):
    """The classifier: the mean of the probabilities that its heads, one for each seed, give.

    Its logits are the logarithms of these probabilities. Where texts have any number of labels,
    they are the log-odds of each.
    """

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Classify texts.

        Shape: (batch, classes), float32. Rows add up to 1; those of labels do not.
        """
        return self._mean(inputs).float()

    def _mean(self, inputs: Mapping[str, Tensor]) -> Tensor:
        features = self.features(inputs)
        each = [head(features).double().exp() for head in self.heads]
        return torch.stack(each).mean(dim=0)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
        **more: Any,
    ) -> Any:
        """Classify texts that the tokenizer of the same folder has prepared."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **more}
        if self.config.problem_type == MULTILABEL:
            logits = self._mean(inputs).logit(eps=1e-12).float()
            loss = None
            if labels is not None:
                loss = F.binary_cross_entropy_with_logits(logits, labels.float())
        else:
            logits = self.probabilities(inputs).clamp_min(torch.finfo(torch.float32).tiny).log()
            loss = None if labels is None else F.nll_loss(logits, labels)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)  # type: ignore[arg-type]


def key_of(name: str, number: int) -> str:
    """Name an input of one of several language models: the first has the usual name."""
    return name if number == 0 else f"{name}_{number}"
