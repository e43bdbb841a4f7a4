"""Bundles of a stranger: they run no code, read nothing outside, and choose no place to write."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerfusion.cli import main
from layerfusion.config.imports import import_from
from layerfusion.errors import UserError
from layerfusion.runs.bundle_files import DESCRIPTION, HEADS
from layerfusion.runs.bundle_loading import load_bundle
from tests.tiny import tiny_folder, tiny_job, tiny_texts

Settings = dict[str, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    job = tiny_job(tiny_texts(root / "texts.csv", 60), tiny_folder("bert", root / "bert"), root)
    words = ["lexical=[words]", "logger=none", "seeds=1", "fusion.width=4", "trainer.max_epochs=1"]
    assert main(["train", *job, *words, "layers=all", f"hydra.run.dir={root}/job"]) == 0
    return root / "job/bundle"


@pytest.fixture
def bundle(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundle in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "bundle"))


@pytest.fixture
def change(bundle: Path) -> Callable[[Callable[[Settings], None]], None]:
    def write(how: Callable[[Settings], None]) -> None:
        content = json.loads((bundle / DESCRIPTION).read_text())
        how(content)
        content.pop("checksum", None)  # whoever changes a file can leave its checksum out
        (bundle / DESCRIPTION).write_text(json.dumps(content))

    return write


class Touch:
    """A pickle that leaves a file where it is loaded."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def refused(bundle: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    Path("new.txt").write_text("a good film\n")
    capsys.readouterr()
    assert main(["predict", str(bundle), "new.txt", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert not Path("ran").exists()
    return said


def test_a_pickle_in_the_place_of_any_file_is_refused(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in sorted(path.name for path in bundle.iterdir()):
        kept = (bundle / name).read_bytes()
        (bundle / name).write_bytes(pickle.dumps(Touch()))
        said = refused(bundle, capsys)
        assert "the classifier is damaged" in said or "not a classifier" in said, name
        (bundle / name).write_bytes(kept)


@pytest.mark.parametrize("operator", ["os:system", "evil:Op", "evil.Op", "layerfusion.cli:main"])
def test_an_operator_of_another_module_is_not_imported(
    operator: str, bundle: Path, change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("evil.py").write_text("open('ran', 'w')\n")
    change(lambda raw: raw["heads"][0]["settings"].update(operator=operator))
    assert f"operator {operator}: it is not part of LayerFusion" in refused(bundle, capsys)


def test_a_description_that_does_not_fit_its_heads_is_refused(
    bundle: Path, change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    change(lambda raw: raw["label_names"].append("more"))
    assert "it names 3 classes, and a head has 2" in refused(bundle, capsys)
    change(lambda raw: raw["label_names"].pop())
    change(lambda raw: raw["layers"].pop())
    assert "it names 4 layers, and a head has 5" in refused(bundle, capsys)
    change(lambda raw: raw["layers"].append(raw["layers"][0]))
    change(lambda raw: raw["heads"].clear())
    assert "it describes 0 heads, and heads.safetensors holds 1" in refused(bundle, capsys)


@pytest.mark.parametrize("path", ["os:system", "evil:pool", "subprocess:getoutput"])
def test_a_pooling_of_another_module_is_not_imported(
    path: str, bundle: Path, change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("evil.py").write_text("open('ran', 'w')\n")
    change(lambda raw: raw["config"]["pooling"]["mean"].update(pool=path))
    assert f"pooling.mean.pool {path}: it is not part of LayerFusion" in refused(bundle, capsys)


def test_a_reader_of_another_module_is_not_called(
    bundle: Path, change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.sh").write_text("#!/bin/sh\ntouch ran\n")
    Path("run.sh").chmod(0o755)
    change(lambda raw: raw["config"]["dataset"].update(reader="os:system"))
    capsys.readouterr()
    assert main(["predict", str(bundle), "./run.sh"]) == 2
    assert "dataset.reader os:system: it is not part of LayerFusion" in capsys.readouterr().err
    assert not Path("ran").exists()


def test_a_module_that_the_user_names_is_imported(
    bundle: Path, change: Any, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/own_pool.py").write_text(
        "from layerfusion.embeddings.pooling import mean_tokens as pool\n"
    )
    change(lambda raw: raw["config"]["pooling"]["mean"].update(pool="own_pool:pool"))
    Path("new.txt").write_text("a good film\n")
    assert main(["predict", str(bundle), "new.txt", "--config-dir", str(tmp_path / "mine")]) == 0


def test_code_of_a_model_needs_a_file_of_the_users(
    bundle: Path, change: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    change(lambda raw: raw["config"]["backbone"]["tiny"].update(trust_remote_code=True))
    assert "its model comes with code (trust_remote_code)" in refused(bundle, capsys)
    (tmp_path / "mine/backbone").mkdir(parents=True)
    path = json.loads((bundle / DESCRIPTION).read_text())["config"]["backbone"]["tiny"]["path"]
    file = tmp_path / "mine/backbone/tiny.yaml"
    file.write_text(f"tiny:\n  path: {path}\n  trust_remote_code: true\n")
    import_from([tmp_path / "mine"])
    assert load_bundle(bundle).config.backbone["tiny"].trust_remote_code
    file.write_text("tiny:\n  path: elsewhere\n  trust_remote_code: true\n")
    with pytest.raises(UserError, match="trust_remote_code"):
        load_bundle(bundle)


def test_variables_of_this_machine_are_not_read(
    bundle: Path, change: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted_secret_of_this_machine")
    change(lambda raw: raw["config"]["dataset"].update(name="${oc.env:HF_TOKEN}"))
    said = refused(bundle, capsys)
    assert "interpolation" in said
    assert "planted" not in said


@pytest.mark.parametrize("name", [DESCRIPTION, HEADS, "words.json", "words.safetensors"])
def test_a_link_out_of_the_folder_is_refused(
    name: str, bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (bundle / name).rename(tmp_path / name)
    (bundle / name).symlink_to(tmp_path / name)
    assert f"{bundle / name}: a link to a file outside the classifier's" in refused(bundle, capsys)


def test_only_files_of_the_classifier_are_copied(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("private")
    (bundle / "notes.txt").symlink_to(tmp_path / "secret")
    (bundle / "more").symlink_to(tmp_path)
    names = {DESCRIPTION, HEADS, "words.json", "words.safetensors"}
    saved = load_bundle(bundle).save(tmp_path / "copy")
    assert {path.name for path in saved.iterdir()} == names
    assert load_bundle(saved).label_names == ("neg", "pos")


@pytest.mark.parametrize("name", ["../../words", "/tmp/words", "a/b", "..", "w\0", "x" * 300])
def test_a_source_cannot_be_named_like_a_path(
    name: str, bundle: Path, change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(raw: Settings) -> None:
        raw["config"]["lexical"] = {name: raw["config"]["lexical"]["words"]}
        for layer in raw["layers"]:
            layer["backbone"] = name if layer["backbone"] == "words" else layer["backbone"]

    change(rename)
    assert "lexical: a name must" in refused(bundle, capsys)


def test_it_chooses_no_place_to_write_to(
    bundle: Path, change: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(lambda raw: raw["config"]["paths"].update(cache=str(tmp_path / "chosen")))
    Path("new.txt").write_text("a good film\n")
    assert main(["predict", str(bundle), "new.txt"]) == 0
    assert not (tmp_path / "chosen").exists()
    assert (tmp_path / "outputs/cache").is_dir()


def test_a_folder_that_it_names_is_no_model(
    bundle: Path, change: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    change(lambda raw: raw["config"]["backbone"]["tiny"].update(path="/etc"))
    assert "backbone.tiny: /etc has no config.json" in refused(bundle, capsys)
    other = tiny_folder("llama", tmp_path / "other")
    change(lambda raw: raw["config"]["backbone"]["tiny"].update(path=str(other)))
    assert "does not hold the files that the classifier was trained with" in refused(bundle, capsys)


@pytest.mark.parametrize("wrong", [[], {}, 7, None, "text", {"schema": 2}, {"schema": 2, "x": 1}])
def test_another_json_is_one_line(
    wrong: Any, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / DESCRIPTION).write_text(json.dumps(wrong))
    assert f"{DESCRIPTION}: not a classifier" in refused(bundle, capsys)
