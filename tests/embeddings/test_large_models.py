"""Models larger than a device, on a CPU: spread over memory and disk, and weights of fewer bits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig, TrainConfig
from layerfusion.embeddings import backbone_loading
from layerfusion.embeddings.backbone import Backbone, is_spread
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.source import open_source
from layerfusion.errors import UserError
from layerfusion.runs import resources
from tests.tiny import tiny_folder

TEXTS = ["the film was good", "oil price rose", "net profit fell in the year " * 4]
POOLING = {"mean": PoolingConfig()}


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


def test_states_of_other_devices_are_brought_to_that_of_the_inputs(
    tmp_path: Path, divided: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_folder("llama", tmp_path / "model")
    backbone = load_backbone("tiny", folder, BackboneConfig(), "spread")
    assert is_spread(backbone.model)
    assert not is_spread(load_backbone("tiny", folder, BackboneConfig(), "cpu").model)
    moved: list[torch.device] = []
    right = torch.Tensor.to

    def to(states: torch.Tensor, *where: Any, **more: Any) -> torch.Tensor:
        moved.extend(x for x in where if isinstance(x, torch.device))
        return right(states, *where, **more)

    seen: list[str] = []

    def visit(layer: str, _states: torch.Tensor) -> None:
        assert moved.pop() == backbone.device  # just before it was visited
        seen.append(layer)

    monkeypatch.setattr(torch.Tensor, "to", to)
    ids = torch.arange(1, 5)[None]
    backbone.forward(ids, torch.ones_like(ids), backbone.shape.layers, visit)
    assert tuple(seen) == backbone.shape.layers


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
    monkeypatch.setattr(resources, "gpu_names", lambda: ["b", "a"])
    monkeypatch.setattr(resources.tempfile, "gettempdir", lambda: str(tmp_path))
    config = SimpleNamespace(
        extract=ExtractConfig(device="spread"), trainer=SimpleNamespace(accelerator="cpu")
    )
    taken: list[list[str]] = []
    right = resources.free_gpu

    def free(names: list[str], folder: Path) -> Any:
        taken.append(names)
        return right(names, folder)

    monkeypatch.setattr(resources, "free_gpu", free)
    with resources.own_gpu(cast(TrainConfig, config)):
        assert taken == [["a"], ["b"]]
        folder = next(tmp_path.glob("layerfusion-gpus-*"))
        for name in ("a", "b"):
            lock = resources.FileLock(folder / f"{name}.lock", timeout=0)
            with pytest.raises(resources.Timeout):
                lock.acquire()
    monkeypatch.setattr(resources, "_free_memory", lambda: 64 * resources.GIB)
    assert resources.processes_that_fit(1, "spread", "cpu") == 1
