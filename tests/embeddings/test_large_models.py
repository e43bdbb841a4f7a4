"""Models larger than a device, on a CPU: spread over memory and disk, and weights of fewer bits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers
from torch.utils._pytree import tree_map

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig, TrainConfig
from layerfusion.embeddings import backbone_loading, gpus
from layerfusion.embeddings.backbone import Backbone, is_spread
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.forward import pool_layers
from layerfusion.embeddings.source import open_source
from layerfusion.embeddings.tokens import Batch, collate
from layerfusion.errors import UserError
from layerfusion.layers import backbone_scores
from layerfusion.layers.gradient import gradient_times_activation
from layerfusion.layers.probe import LinearProbe
from layerfusion.runs import resources
from tests.pretended_gpu import GPU, on_gpu, pretended_gpu
from tests.tiny import tiny_folder

TEXTS = ["the film was good", "oil price rose", "net profit fell in the year " * 4]
POOLING = {"mean": PoolingConfig()}
ZEROS = torch.zeros(3)


def vectors(folder: Path, cache: Path, device: str = "cpu", **config: Any) -> tuple[str, Any]:
    """The name of the store, and the layers of the texts."""
    asked = BackboneConfig(path=str(folder), **config)
    source = open_source("tiny", asked, POOLING, cache, "float32")
    source.extract([TEXTS], ExtractConfig(device=device, token_budget=64))
    store = source.stores["mean"]
    assert source.shape.layers
    return store.name, store.read([text_hash(text) for text in TEXTS], source.shape.layers)


@pytest.fixture
def divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where a model is spread over all devices, part of it goes to the disk instead of a GPU."""
    asked: list[str] = []
    right = transformers.AutoModel.from_pretrained

    def load(folder: Path, **more: Any) -> Any:
        if more.get("device_map") == "auto":
            asked.append("auto")
            plain = right(folder)
            names = [name for name, _ in plain.named_children()]
            blocks = next(
                name
                for name, x in plain.named_modules()
                if name.endswith("layer") or name.endswith("layers")
            )
            places = {name: "cpu" for name in names if name != blocks.split(".")[0]}
            for number in range(plain.config.num_hidden_layers):
                places[f"{blocks}.{number}"] = "disk" if number == 1 else "cpu"
            more |= {"device_map": places, "offload_folder": str(tmp_path / "offloaded")}
        return right(folder, **more)

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", load)
    return asked


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_model_that_is_spread_gives_the_same_vectors(
    tmp_path: Path, divided: list[str], family: str
) -> None:
    folder = tiny_folder(family, tmp_path / "model")
    name, whole = vectors(folder, tmp_path / "whole")
    again, spread = vectors(folder, tmp_path / "spread", "spread")
    assert divided == ["auto"]
    assert name == again  # where a model lies does not change its vectors
    assert whole.keys() == spread.keys()
    for layer, values in whole.items():
        np.testing.assert_allclose(spread[layer], values, atol=1e-6)


def test_a_model_that_is_spread_is_told_from_one_that_is_not(
    tmp_path: Path, divided: list[str]
) -> None:
    folder = tiny_folder("llama", tmp_path / "model")
    assert is_spread(load_backbone("tiny", folder, BackboneConfig(), "spread").model)
    assert not is_spread(load_backbone("tiny", folder, BackboneConfig(), "cpu").model)


# -- one half on the CPU, the other on a GPU that is only pretended -----------------------------


def halved(folder: Path, *, eager: bool = False) -> Backbone:
    """Load a llama of which the blocks above the first lie on a GPU, as accelerate places them."""
    backbone = load_backbone("tiny", folder, BackboneConfig(), "cpu", eager=eager)
    assert backbone.blocks is not None

    def placed(module: torch.nn.Module) -> None:
        right = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = tree_map(
                lambda x: x.to(GPU) if isinstance(x, torch.Tensor) else x, (args, kwargs)
            )
            return right(*args, **kwargs)

        module.to(GPU)
        module.forward = forward

    for block in backbone.blocks[1:]:
        placed(block)
    placed(cast(Any, backbone.model).norm)
    return backbone


def both(folder: Path) -> tuple[Backbone, Backbone, Batch]:
    """Return the model on the CPU, the same in halves, and a batch for both."""
    whole = load_backbone("tiny", folder, BackboneConfig(), "cpu")
    windows = [text.windows[0] for text in whole.tokenize(TEXTS, BackboneConfig())]
    return whole, halved(folder), collate(windows, whole.pad_id)


def test_states_are_pooled_on_the_device_of_the_inputs(llama_folder: Path) -> None:
    with pretended_gpu():
        whole, halves, batch = both(llama_folder)
        seen: dict[str, bool] = {}
        halves.forward(
            batch.input_ids,
            batch.attention_mask,
            halves.shape.layers,
            lambda layer, hidden: seen.__setitem__(layer, on_gpu(hidden)),
        )
        assert set(seen.values()) == {False, True}
        layers = {"mean": whole.shape.layers}
        expected = pool_layers(whole, batch, layers, POOLING)
        for key, values in pool_layers(halves, batch, layers, POOLING).items():
            torch.testing.assert_close(values, expected[key])


def test_gradients_reach_the_states_of_each_device(llama_folder: Path) -> None:
    """A copy on the device of the inputs would be no part of the loss."""
    head = LinearProbe(torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), ZEROS)
    target = torch.arange(len(TEXTS)) % 3
    with pretended_gpu():
        whole, halves, batch = both(llama_folder)
        expected, found = (
            gradient_times_activation(model, batch, target, {"mean": head}, POOLING)
            for model in (whole, halves)
        )
    for key, sizes in expected.items():
        assert not on_gpu(found[key])
        torch.testing.assert_close(found[key], sizes)


def test_attention_is_measured_on_the_device_of_each_block(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = BackboneConfig(path=str(llama_folder))
    source = open_source("tiny", asked, POOLING, tmp_path, "float32")
    options = ExtractConfig(device="cpu")
    expected = backbone_scores._attention_means(source, TEXTS, options)
    monkeypatch.setattr(
        backbone_scores, "load_backbone", lambda *_, eager: halved(llama_folder, eager=eager)
    )
    with pretended_gpu():
        found = backbone_scores._attention_means(source, TEXTS, options)
    assert found.keys() == expected.keys()
    for layer, heads in expected.items():
        np.testing.assert_allclose(found[layer], heads, rtol=1e-5)


# -- weights of fewer bits ----------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "near"), [("int8", 0.2), ("nf4", 0.7)])
def test_weights_of_fewer_bits_have_vectors_of_their_own(
    tmp_path: Path, dtype: str, near: float
) -> None:
    sizes: dict[str, Any] = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 128}
    folder = tiny_folder("llama", tmp_path / "model", **sizes)
    plain, exact = vectors(folder, tmp_path / "cache")
    own, fewer = vectors(folder, tmp_path / "cache", dtype=dtype)
    assert own != plain
    for layer, values in exact.items():
        error = np.linalg.norm(fewer[layer] - values) / np.linalg.norm(values)
        assert 0 < error < near
    weights = load_backbone("tiny", folder, BackboneConfig(dtype=dtype), "cpu")
    whole: Backbone = load_backbone("tiny", folder, BackboneConfig(), "cpu")
    assert weights.shape == whole.shape  # costs are those of all weights, however they are packed
    kinds = {p.dtype for p in weights.model.parameters()}
    assert kinds & {torch.int8, torch.uint8}


def test_weights_of_fewer_bits_stay_on_the_cpu_beside_a_gpu(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a map of devices, transformers would put them on the GPU that it finds."""
    asked: list[Any] = []
    right = transformers.AutoModel.from_pretrained

    def load(folder: Path, *, device_map: Any = None, **more: Any) -> Any:
        asked.append(device_map)
        return right(folder, device_map=device_map, **more)

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", load)
    load_backbone("tiny", llama_folder, BackboneConfig(dtype="int8"), "cpu")
    assert asked == [{"": torch.device("cpu")}]


def test_without_bitsandbytes_the_way_out_is_told(
    tmp_path: Path, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone_loading, "find_spec", lambda _name: None)
    with pytest.raises(
        UserError, match=r"backbone.tiny.dtype=nf4: needs bitsandbytes; pip install"
    ):
        vectors(llama_folder, tmp_path, dtype="nf4")


def test_a_model_that_is_spread_waits_for_all_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "gpu_names", lambda: ["b", "a"])
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    config = SimpleNamespace(
        extract=ExtractConfig(device="spread"),
        trainer=SimpleNamespace(accelerator="cpu"),
        time_limit=None,
    )
    taken: list[list[str]] = []
    right = gpus.free_gpu

    def free(names: list[str], folder: Path) -> Any:
        taken.append(names)
        return right(names, folder)

    monkeypatch.setattr(gpus, "free_gpu", free)
    with resources.own_gpu(cast(TrainConfig, config)):
        assert taken == []
        with gpus.gpu_turn("spread"):
            assert taken == [["a"], ["b"]]
            folder = next(tmp_path.glob("layerfusion-gpus-*"))
            for name in ("a", "b"):
                lock = gpus.FileLock(folder / f"{name}.lock", timeout=0)
                with pytest.raises(gpus.Timeout):
                    lock.acquire()
