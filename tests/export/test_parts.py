"""What an export takes apart gives the same numbers as the whole: models, heads, words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from layerfusion.config.job import BackboneConfig, LexicalConfig, PoolingConfig
from layerfusion.config.operators import operator_names
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.forward import embed
from layerfusion.embeddings.lexical import LexicalFit
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError
from layerfusion.export import card
from layerfusion.export import cut as parts
from layerfusion.export import modeling_layerfusion as portable
from layerfusion.export.tokenization_layerfusion import encoded, tokenizer_of
from layerfusion.export.words_layerfusion import Words
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.head_files import Head, StackHead
from layerfusion.fusion.head_member import HeadMember
from layerfusion.fusion.operator_head import OperatorHead
from layerfusion.fusion.operators import FusionOperator, Projections
from layerfusion.fusion.pool import KEPT_FORMS
from layerfusion.fusion.pool_fitting import fit_pool
from layerfusion.fusion.stacking import Stack
from layerfusion.layers.labels import log_probabilities
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.lexical_regression import LexicalRegression
from layerfusion.layers.probe import LinearProbe
from tests.report.fabricate_sets import set_dataset, write_set_job
from tests.tiny import CONFIGS, NO_BLOCKS, PROJECTED, WITH_NORM, tiny_folder

TEXTS = ["the good film was bad", "oil", "the company said it rose " * 9]


def cut_of(backbone: Backbone, layers: list[str]) -> parts._Part:
    """Cut a model at the layers that a classifier would use."""
    bundle: Any = SimpleNamespace(
        layers=[LayerId("m", layer, "mean") for layer in layers],
        lexical={},
        backbone=lambda _name: backbone,
        config=SimpleNamespace(backbone={"m": BackboneConfig()}),
    )
    return parts._cut_model("m", bundle)


def assert_layers_are_those_of_the_whole(family: str, tmp_path: Path) -> Backbone:
    """Compare a model that is cut at some layers with the whole one."""
    config = BackboneConfig(path=str(tiny_folder(family, tmp_path)))
    backbone = load_backbone("m", tmp_path, config, "cpu")
    tokens = backbone.tokenize(TEXTS, config)
    order = sorted(range(len(TEXTS)), key=lambda row: -tokens[row].cost)
    bundle: Any = SimpleNamespace(
        backbone=lambda _name: backbone, config=SimpleNamespace(backbone={"m": config})
    )
    about = parts._tokenizer(bundle, "m")
    ids, mask = map(torch.from_numpy, encoded(tokenizer_of(about), about, TEXTS).values())
    for layers in (["0"], ["1", "2"], list(backbone.shape.layers)):
        part = cut_of(backbone, layers)
        model = portable.CutModel(part.about)
        model.load_state_dict(part.tensors)
        expected, _ = embed(backbone, [tokens[row] for row in order], {"mean": layers},
                            {"mean": PoolingConfig()}, budget=512)  # fmt: skip
        sizes = mask.sum(dim=1).tolist()
        batches = [(ids, mask)]
        if not backbone.masks_padding:  # then each text passes alone
            batches = [(ids[n : n + 1, :k], mask[n : n + 1, :k]) for n, k in enumerate(sizes)]
        with torch.inference_mode():
            passed = [(model.eval()(*batch, layers), batch[1]) for batch in batches]
        for layer in layers:
            rows = [portable.pooled(x[layer], m, "mean", skip_first=False) for x, m in passed]
            back = expected["mean", layer][np.argsort(order)]
            np.testing.assert_allclose(torch.cat(rows), back, atol=1e-5)
    return backbone


@pytest.mark.parametrize("family", CONFIGS)
def test_a_cut_model_gives_the_layers_of_the_whole(family: str, tmp_path: Path) -> None:
    backbone = assert_layers_are_those_of_the_whole(family, tmp_path)
    kept = cut_of(backbone, ["2"])
    assert kept.note == f"m: {'all' if family in NO_BLOCKS else '2 of'} its 3 blocks"
    assert bool(kept.about["norm"]) == (family in WITH_NORM)
    if kept.about["norm"]:  # a middle layer has none
        assert not any(
            name.startswith(("norm.", f"model.{kept.about['norm']}.")) for name in kept.tensors
        )


MAMBA2 = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "state_size": 8,
    "num_heads": 8,
    "head_dim": 8,
    "n_groups": 1,
    "chunk_size": 16,
}
"""Its config holds infinity (`time_step_limit`)."""


@pytest.mark.parametrize(("name", "settings"), [("Mamba2", MAMBA2), ("OPT", PROJECTED)])
def test_a_config_with_infinity_and_a_projection_at_the_end_are_cut(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, "odd", (f"{name}Config", settings))
    backbone = assert_layers_are_those_of_the_whole("odd", tmp_path)
    part = cut_of(backbone, ["3"])
    portable.LayerFusionConfig(backbones=[part.about]).save_pretrained(tmp_path / "written")
    kept = portable.LayerFusionConfig.from_pretrained(tmp_path / "written")
    portable.CutModel(kept.backbones[0]).load_state_dict(part.tensors)


def test_a_model_that_cannot_be_built_again_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone("m", tiny_folder("bert", tmp_path), BackboneConfig(), "cpu")
    monkeypatch.setattr(parts, "_cut_config", lambda *_: {"model_type": "bert", "dtype": 7})
    with pytest.raises(UserError, match=r"cannot be built again from its config; it fails with: "):
        cut_of(backbone, ["1"])


@pytest.mark.parametrize("pool", ["mean", "max", "first", "last"])
@pytest.mark.parametrize("skip_first", [False, True])
def test_padding_is_never_pooled(pool: str, skip_first: bool) -> None:
    from layerfusion.embeddings.pooling import first_pooled
    from layerfusion.embeddings.pooling import pool as pool_of_ours

    hidden = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    stop = torch.tensor([6, 3, 1, 2])
    mask = (torch.arange(6) < stop[:, None]).long()
    how = PoolingConfig(pool, skip_first)
    start = first_pooled(torch.zeros_like(stop), stop, torch.ones_like(stop).bool(), how)
    expected = pool_of_ours(hidden, start, stop, pool)
    torch.testing.assert_close(portable.pooled(hidden, mask, pool, skip_first), expected)


def rebuilt(head: Head) -> torch.nn.Module:
    about, tensors = parts._head(head)
    module = portable.HEADS[about["kind"]](about)
    parts._fill(module, tensors)
    return module


def features(sizes: list[int], rows: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [3 * torch.randn(rows, size, generator=generator) + 1 for size in sizes]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize(
    ("name", "residual"),
    [
        (name, residual)
        for name in operator_names()
        if not name.startswith("published")  # another protocol, which leaves no classifier
        for residual in ((False,) if name == "late" else (False, True))
    ],
)
def test_every_operator_says_the_same(name: str, residual: bool, multilabel: bool) -> None:
    sizes = [6, 9, 4]
    torch.manual_seed(2)
    classifier = FusionClassifier(sizes, 3, name, width=16, residual=residual,
                                  arguments={"side": 4} if name == "matmul" else {},
                                  multilabel=multilabel)  # fmt: skip
    with torch.no_grad():  # as after training: gates that start at zero no longer are
        for parameter in classifier.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    head = OperatorHead(classifier.eval(), Standardiser.fit(features(sizes, 40)))
    rows = features(sizes)
    torch.testing.assert_close(rebuilt(head)(rows), head.log_probs(rows), atol=2e-5, rtol=1e-5)


class Own(FusionOperator):
    """An operator of the user's."""

    def __init__(self, widths: list[int], width: int) -> None:
        super().__init__(widths, width)
        self.projections = Projections(widths, width)

    def fuse(self, sources: list[torch.Tensor]) -> tuple[torch.Tensor, None]:
        return self.projections.activated(sources).amax(dim=1), None


def test_an_operator_of_the_users_is_refused_in_words() -> None:
    head = OperatorHead(
        FusionClassifier([3, 4], 2, Own, width=4), Standardiser.fit(features([3, 4]))
    )
    with pytest.raises(UserError, match="operator Own is your own, and its code is not copied"):
        parts._head(head)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("shift", [None, torch.tensor([0.5, 0.0, -1.0, 2.0]).double()])
@pytest.mark.parametrize("form", KEPT_FORMS)
def test_every_form_of_a_stack_says_the_same(
    form: str, shift: Tensor | None, multilabel: bool
) -> None:
    sizes, generator = [5, 7, 3], torch.Generator().manual_seed(3)
    probes = tuple(
        LinearProbe(torch.randn(4, size, generator=generator), torch.randn(4, generator=generator))
        for size in sizes
    )
    held_out = torch.stack([
        log_probabilities(p.logits(x), multilabel=multilabel)
        for p, x in zip(probes, features(sizes, 60), strict=True)
    ])  # fmt: skip
    rows = torch.arange(60)
    target = torch.stack([rows % n == 0 for n in (2, 3, 5, 7)], dim=1) if multilabel else rows % 4
    pool = replace(fit_pool(held_out, target, form), shift=shift)
    head = StackHead(Stack(probes, pool, {}, ""))
    rows = [(3 if multilabel else 1) * x for x in features(sizes)]  # labels may be near certain
    torch.testing.assert_close(rebuilt(head)(rows), head.log_probs(rows), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_stack_with_a_head_says_the_same(multilabel: bool) -> None:
    sizes, generator = [5, 7, 3], torch.Generator().manual_seed(3)
    probes = tuple(
        LinearProbe(torch.randn(4, size, generator=generator), torch.randn(4, generator=generator))
        for size in sizes
    )
    torch.manual_seed(2)
    late = FusionClassifier(sizes[::2], 4, "late", width=8, multilabel=multilabel).eval()
    read = features(sizes, 40)[::2]
    member = HeadMember(OperatorHead(late, Standardiser.fit(read)), (0, 2))
    seen = features(sizes, 60)
    said = [
        log_probabilities(p.logits(x), multilabel=multilabel)
        for p, x in zip(probes, seen, strict=True)
    ]
    rows = torch.arange(60)
    target = torch.stack([rows % n == 0 for n in (2, 3, 5, 7)], dim=1) if multilabel else rows % 4
    pool = fit_pool(torch.stack([*said, member.log_probs(seen)]), target, "anchored")
    head = StackHead(Stack(probes, pool, {}, "", member))
    rows = features(sizes)
    torch.testing.assert_close(rebuilt(head)(rows), head.log_probs(rows), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["words", "words and pairs", "characters"])
def test_words_are_counted_as_scikit_learn_counts_them(kind: str, corpus: list[str]) -> None:
    """In texts of other scripts, with capitals, signs and runs of space between the words."""
    odd = ["Ünïcode İstanbul – naïve", "A  a\ta, a.b!", "हिन्दी में लिखा", "x", "…", "never seen"]
    texts = [*corpus, *odd]
    labels = np.arange(len(texts)) % 3
    config = LexicalConfig(features=kind, width=8)
    for part in (
        LexicalFit.learn(texts, config),
        LexicalRegression.fit(kind, texts, labels, 1.0, num_classes=3),
        LexicalRegression.fit(kind, texts, labels[:, None] <= [0, 1], 1.0, num_classes=2),
    ):
        bundle: Any = SimpleNamespace(
            lexical={"w": part}, config=SimpleNamespace(lexical={"w": config})
        )
        about, tensors, words = parts._words(bundle, "w")
        source = portable.Lexical(about)
        parts._fill(source, tensors)
        asked = [*odd, "the SHIP  said: profit,profit", "nothing-of-it §§"]
        ids, weights = map(torch.from_numpy, Words(words)(asked))
        torch.testing.assert_close(source(ids, weights), part.vectors(asked), atol=1e-5, rtol=1e-4)


def test_the_card_of_several_labels_a_text_speaks_of_exact_match(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(card, "shared_origin", lambda origin, _: origin)
    record = write_set_job(tmp_path, set_dataset(rows=30), [("minilm", "3")], 1.5, 0.6)
    bundle: Any = SimpleNamespace(config=SimpleNamespace(dataset=None))
    said = card._figures(bundle, record)
    assert "- Exact match of the averaged heads on test: " in said
    micro = f"{100 * record.test['micro_f1'].mean:.1f}"
    assert f"- Micro-F1 of a head on test: {micro}" in said
    assert "Accuracy" not in said


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("good", "good"),
        ("über alles_1", "über alles_1"),
        ("<b>|[x](y)", r"\<b\>\|\[x\](y)"),
        ("two\nlines", r"two\\nlines"),
        (" good", "' good'"),
    ],
)
def test_a_class_is_a_line_of_the_card_whatever_its_name(name: str, shown: str) -> None:
    bundle: Any = SimpleNamespace(label_names=[name, "bad"], multilabel=False)
    assert card._names(bundle) == f"- 0: {shown}\n- 1: bad"
