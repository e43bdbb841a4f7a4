"""Jobs on a GPU, on machines without one: see `pretended_gpu`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401 - looks at kernels when it is imported
import pytest
import torch
from torch import Tensor

import layerfusion as lf
from layerfusion.embeddings import batch_size, forward
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.fusion.stacking import Stack, fit_stack, refit
from layerfusion.layers.discriminant import Discriminant, blend, cross_validate_discriminant
from layerfusion.layers.eigenbasis import set_up
from layerfusion.layers.folds import stratified_folds
from layerfusion.layers.probe import HeldOut, cross_validate
from tests import pretended_gpu as pretended_gpu_module
from tests.pretended_gpu import on_gpu, pretended_gpu

TEXTS = [f"{word} {tone} {number}" for number in range(12) for word, tone in zip(
    ("rain", "music", "bread"), ("fell", "rang", "rose"), strict=True)]  # fmt: skip
LABELS = ["weather", "sound", "food"] * 12


def test_it_refuses_what_a_gpu_does() -> None:
    with pretended_gpu() as gpu:
        here, there = torch.ones(3), torch.zeros(3, device=gpu)
        wrong: list[Callable[[], Any]] = [
            lambda: here + there,
            lambda: torch.cat([here, there]),
            lambda: torch.where(here > 0, there, 0.0),
            lambda: here[there == 0],
            lambda: there.index_add_(0, torch.arange(3), there),
            lambda: there.numpy(),
        ]
        for call in wrong:
            with pytest.raises((RuntimeError, TypeError), match="cuda:0"):
                call()
        there[:2] = here[:2]
        assert there.tolist() == [1, 1, 0]
        kept = [there + 1, there.sum(), there[here > 0], there.new_zeros(2), here.to(there)]
        assert all(map(on_gpu, [*kept, torch.arange(3, device=there.device), *there.sort()]))
        assert not any(map(on_gpu, [there.cpu(), there.to("cpu"), here.copy_(there)]))


def every_tensor(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif dataclasses.is_dataclass(found):
        for field in dataclasses.fields(found):
            yield from every_tensor(getattr(found, field.name))
    elif isinstance(found, list | tuple | dict):
        for one in found.values() if isinstance(found, dict) else found:
            yield from every_tensor(one)


@pytest.mark.parametrize("classes", [2, 5, 40])
@pytest.mark.parametrize(("rows", "width"), [(200, 12), (80, 90)])
def test_stacks_are_those_of_the_cpu(classes: int, rows: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % classes
    layers = [torch.randn(rows, width, generator=generator) for _ in range(3)]
    for layer in layers:
        layer[:, 0] += labels
    folds = stratified_folds(labels.numpy(), [str(n) for n in range(rows)], 2, seed=0)

    def fitted(
        device: torch.device | None,
    ) -> tuple[list[HeldOut], list[tuple[Tensor, Discriminant]], Stack]:
        probes = cross_validate(
            layers, labels, folds, num_classes=classes, device=device, text_of=None
        )
        others = [
            cross_validate_discriminant(x, labels, folds, num_classes=classes, device=device)
            for x in layers
        ]
        blends = [blend(probe, *other) for probe, other in zip(probes, others, strict=True)]
        stack = fit_stack(layers, labels, blends, num_classes=classes, device=device)
        return probes, others, refit(stack, layers, labels, blends, device=device)

    expected = fitted(None)
    with pretended_gpu() as gpu:
        found = fitted(gpu)
    pairs = list(zip(every_tensor(found), every_tensor(expected), strict=True))
    assert not any(on_gpu(one) for one, _ in pairs)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sets", [1, 3])
def test_probes_are_set_up_on_the_gpu_from_one_copy_of_each_layer(
    sets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, which takes the host longer than the fit takes the GPU."""
    copied: list[int] = []
    transfer = pretended_gpu_module._transfer

    def noted(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        found = transfer(func, args, kwargs)
        copied.append(id(args[0]) if on_gpu(found) and not on_gpu(args[0]) else 0)
        return found

    fit = Standardiser.fit

    def fitted(features: list[Tensor]) -> Standardiser:
        assert all(map(on_gpu, features))
        return fit(features)

    monkeypatch.setattr(pretended_gpu_module, "_transfer", noted)
    monkeypatch.setattr(Standardiser, "fit", fitted)
    layers = [torch.randn(60, 4, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    rows = torch.arange(60) % 3 != torch.arange(sets)[:, None]
    with pretended_gpu() as gpu:
        problem = set_up(layers, torch.arange(60) % 2, rows, 2, [1.0], gpu)
    assert on_gpu(problem.x)
    assert problem.spread is None or on_gpu(problem.spread)
    assert [copied.count(id(layer)) for layer in layers] == [1, 1, 1]


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        ("float32", {}),
        ("bfloat16", {"fusion": "gated_stack"}),
        ("bfloat16", {"layers": "adaptive", "layers.score": "gradient"}),
        ("float32", {"layers.score": "attention_entropy", "layers": "loes"}),
        ("bfloat16", {"fusion": "gated", "trainer.accelerator": "gpu", "trainer.max_epochs": 2}),
    ],
)
def test_a_classifier_is_fitted_saved_and_asked(
    dtype: str,
    settings: dict[str, Any],
    bert_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_size, "GPU_BUDGETS", (256, 512))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as Lightning sets it for a GPU
    packed, pack = [], forward.pack

    def noted(*args: Any) -> Any:
        packed.append(True)
        return pack(*args)

    monkeypatch.setattr(forward, "pack", noted)
    (tmp_path / "tiny").symlink_to(bert_folder)
    with pretended_gpu():
        classifier = lf.LayerFusionClassifier(
            tmp_path / "tiny",
            device="cuda",
            settings={"backbone.tiny.dtype": dtype, **settings},
            cache=tmp_path / "cache",
        ).fit(TEXTS, LABELS)
        said = classifier.predict(TEXTS)
        classifier.save(tmp_path / "bundle")
        again = lf.load(tmp_path / "bundle", device="cuda", cache=tmp_path / "cache")
        assert list(again.predict(TEXTS)) == list(said)
    assert bool(packed) == (dtype == "bfloat16")
    on_cpu = lf.load(tmp_path / "bundle", device="cpu")
    assert list(on_cpu.predict(TEXTS)) == list(said)
