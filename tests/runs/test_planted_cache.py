"""A pickle in the place of any file of the cache is never run, and never a traceback."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from layerfusion.cli import main
from layerfusion.runs import job_texts, long_texts, select_layers
from tests.tiny import tiny_folder, tiny_job, tiny_texts


class Touch:
    """A pickle that leaves a file where it is loaded."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def test_no_file_of_the_cache_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    texts, model = tiny_texts(tmp_path / "texts.csv", 40), tiny_folder("bert", tmp_path / "bert")
    words = ["lexical=[words]", "layers=adaptive", "logger=none", "seeds=1", "fusion.width=4"]
    words += ["trainer.max_epochs=1", "long_texts=auto"]
    job = ["train", *tiny_job(texts, model, tmp_path / "cache"), *words]
    assert main([*job, "paths.outputs=first"]) == 0
    kept = shutil.copytree(tmp_path / "cache", tmp_path / "kept")
    planted = {}
    for path in kept.rglob("*"):
        # One of each kind: all shards, scores and lexical states are read by the same code.
        if path.is_file():
            planted[path.relative_to(kept).parts[0], path.suffix, path.stem[:5]] = path
    kinds = {key[:2]: path for key, path in planted.items() if key[1] == ".safetensors"}
    kinds |= {key: path for key, path in planted.items() if key[1] != ".safetensors"}
    folders = {"assets", "embeddings", "floors", "lexical", "readings", "scores"}
    assert {key[0] for key in kinds} == folders
    for path in kinds.values():
        shutil.rmtree(tmp_path / "cache")
        shutil.copytree(kept, tmp_path / "cache")
        (tmp_path / "cache" / path.relative_to(kept)).write_bytes(pickle.dumps(Touch()))
        monkeypatch.setattr(select_layers, "_selections", {})
        monkeypatch.setattr(job_texts, "_datasets", {})
        monkeypatch.setattr(long_texts, "_decided", {})
        shutil.rmtree("second", ignore_errors=True)
        code = main([*job, "paths.outputs=second"])
        said = capsys.readouterr().err.splitlines()
        assert code == 0 or said[-1].startswith("layerfusion: "), (path, said)
        assert not Path("ran").exists(), path
