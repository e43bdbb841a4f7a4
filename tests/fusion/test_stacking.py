"""Stacks on features and predictions made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from layerfusion.fusion.head_files import StackHead, head_from, head_state
from layerfusion.fusion.stacking import fit_stack, refit
from layerfusion.layers.discriminant import Blend
from layerfusion.layers.logistic import Problem
from layerfusion.layers.probe import cross_validate
from tests.fusion.test_pool import CLASSES, _said


def regressions(features: list[Tensor], labels: Tensor, folds: Tensor) -> list[Blend]:
    found = cross_validate(features, labels, folds, num_classes=2, text_of=None)
    return [Blend(one.log_probs, one.target, one.strength, text_of=None) for one in found]


def test_what_a_source_predicted_passes_unchanged() -> None:
    """The features of a lexical source are log-probabilities already."""
    generator = torch.Generator().manual_seed(0)
    said, target = _said(300, [1.5, 1.0])
    x = torch.randn(300, 4, generator=generator)
    held = [Blend(one.float(), target, 0.1, text_of=None) for one in said]
    features = [x, said[1].float()]
    stack = fit_stack([x, None], target, held, num_classes=CLASSES)
    torch.testing.assert_close(stack.probes[1].logits(features[1]), said[1].float())
    assert stack.probes[0].weight.shape == (CLASSES, 4)
    again = refit(stack, [x, None], target, held)
    torch.testing.assert_close(again.predict(features)[0], stack.predict(features)[0])


def test_a_stack_of_one_source_is_its_calibrated_probe() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(150, 6, generator=generator)
    labels = (x[:, 0] + 0.5 * torch.randn(150, generator=generator) > 0).long()
    folds = torch.arange(150) % 5
    held = regressions([x], labels, folds)
    stack = fit_stack([x], labels, held, num_classes=2)
    log_probs, gates = stack.predict([x])
    assert torch.equal(gates, torch.ones(150, 1))
    logits = stack.probes[0].logits(x)
    assert torch.equal(log_probs.argmax(dim=1), logits.argmax(dim=1))
    assert stack.num_parameters == 2 * 7 + 1
    assert stack.num_flops == 2 * 2 * 6 + 2 * 2  # the probe's product, and the scale of two classes


def test_a_stack_at_equal_weights_knows_nothing_of_held_out_rows_but_its_probes() -> None:
    generator = torch.Generator().manual_seed(7)
    x = [torch.randn(120, 5, generator=generator), torch.randn(120, 8, generator=generator)]
    labels = ((x[0][:, 0] + x[1][:, 0]) > 0).long()
    held = regressions(x, labels, torch.arange(120) % 5)
    stack = fit_stack(x, labels, held, num_classes=2, class_weights="balanced")
    plain, gates = stack.at_equal_weights().predict(x)
    mean = stack.each_source(x).double().mean(dim=0).log_softmax(dim=1)
    torch.testing.assert_close(plain, mean.float())
    assert torch.equal(gates, torch.full((120, 2), 0.5))
    assert not torch.allclose(stack.predict(x)[0], plain, atol=1e-3)


def test_a_stack_refitted_keeps_its_pool_and_strengths_and_learns_from_all_rows() -> None:
    generator = torch.Generator().manual_seed(6)
    x = [torch.randn(120, 5, generator=generator), torch.randn(120, 8, generator=generator)]
    labels = ((x[0][:, 0] + x[1][:, 0]) > 0).long()
    inside = [one[:80] for one in x]
    held = regressions(inside, labels[:80], torch.arange(80) % 5)
    stack = fit_stack(inside, labels[:80], held, num_classes=2)
    kept = refit(stack, x, labels, held)
    assert kept.pool is stack.pool
    for probe, one, source in zip(kept.probes, held, x, strict=True):
        scaler = StandardScaler().fit(source)
        assert one.strength is not None
        oracle = LogisticRegression(C=one.strength, tol=1e-8).fit(scaler.transform(source), labels)
        expected = oracle.decision_function(scaler.transform(source))
        logits = probe.logits(source)
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=0.02)
    before = stack.probes[0].logits(x[0])
    assert not torch.allclose(kept.probes[0].logits(x[0]), before, atol=0.02)


def test_a_refit_starts_where_the_fit_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(7)
    x = [torch.randn(400, 20, generator=generator), torch.randn(400, 20, generator=generator)]
    labels = ((x[0] + x[1])[:, :5].sum(dim=1) + torch.randn(400, generator=generator) > 0).long()
    inside = [one[:380] for one in x]
    held = regressions(inside, labels[:380], torch.arange(380) % 5)
    stack = fit_stack(inside, labels[:380], held, num_classes=2)
    search, steps = Problem.search, []

    def counting(problem: Problem, *args: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps[-1] += 1
        return search(problem, *args)

    monkeypatch.setattr(Problem, "search", counting)
    found = []
    for one in (stack, replace(stack, regressions={})):
        steps.append(0)
        found.append(refit(one, x, labels, held).predict(x)[0])
    assert steps[0] < steps[1]
    torch.testing.assert_close(found[0], found[1], atol=0.05, rtol=0)


def test_a_stack_that_is_read_from_a_file_says_what_was_added_for_the_objective() -> None:
    said, target = _said(300, [1.5, 1.0])
    held = [Blend(one.float(), target, 0.1, text_of=None) for one in said]
    features = [None, None]
    stack = fit_stack(features, target, held, num_classes=CLASSES, class_weights="balanced")
    assert stack.shift == "100% of the classes' log-frequencies are taken off"
    tensors, facts = head_state(StackHead(stack))
    read = head_from(tensors, json.loads(json.dumps(facts)))
    assert isinstance(read, StackHead)
    assert read.stack.shift == stack.shift
    del facts["shift"]  # as in files of older versions
    former = head_from(tensors, facts)
    assert isinstance(former, StackHead)
    assert former.stack.shift == ""
