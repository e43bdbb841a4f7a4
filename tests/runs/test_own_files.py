"""Files of the user's where a command is to write, and results where a job runs again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from layerfusion.cli import main
from layerfusion.runs import job as jobs
from tests.tiny import run, tiny_job, tiny_texts


@pytest.fixture
def words(tmp_path: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    texts = tiny_texts(tmp_path / "texts.csv", 60)
    quick = ["layers=last", "fusion=stacked", "layers.folds=2", "logger=none", "seeds=1"]
    return [*tiny_job(texts, bert_folder, tmp_path / "cache"), *quick]


@pytest.mark.parametrize(
    "name", ["config.yaml", "predictions.parquet", "metrics.json", "bundle/bundle.json"]
)
def test_a_job_writes_over_no_file_of_the_users(
    name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path("mine") / name
    own.parent.mkdir(parents=True)
    own.write_text('{"lr": 1}')
    code, said = run(["train", *words, "hydra.run.dir=mine"], capsys)
    assert code == 2
    (line,) = [x for x in said.splitlines() if x.startswith("layerfusion: ")]
    assert (
        f"{Path(name).parts[0]}: it is there already, and not known as a file of LayerFusion's"
        in line
    )
    assert "hydra.run.dir" in line
    assert own.read_text() == '{"lr": 1}'


def test_a_job_that_was_cut_off_goes_on_in_its_folder(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "save_bundle", cut_off)  # settings and predictions are there by then
        assert main(["train", *words, "hydra.run.dir=job"]) != 0
    assert Path("job/predictions.parquet").exists()
    assert main(["train", *words, "hydra.run.dir=job"]) == 0


def test_an_earlier_result_stays_until_there_is_a_new_one(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", *words, "hydra.run.dir=job"]
    assert main(train) == 0
    texts = Path("texts.csv")
    before, record = texts.read_bytes(), Path("job/metrics.json").read_bytes()
    texts.write_text("\n".join(texts.read_text().splitlines()[:50]) + "\n")

    def cut_off(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "make_record", cut_off)
        capsys.readouterr()
        assert main(train) != 0
        assert "so it runs again" in capsys.readouterr().err
    assert Path("job/metrics.json").read_bytes() == record
    texts.write_bytes(before)
    assert main(train) == 0
    assert "finished before" in capsys.readouterr().err
    texts.write_text("\n".join(texts.read_text().splitlines()[:50]) + "\n")
    assert main(train) == 0
    assert Path("job/metrics.json").read_bytes() != record


@pytest.mark.parametrize("name", ["profile.json", "profile.csv", "profile.png"])
def test_a_profile_writes_over_no_file_of_the_users(
    name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path("mine") / name
    own.parent.mkdir()
    own.write_text('{"spans": []}')
    profile = [word for word in words if not word.startswith(("layers=", "fusion=", "seeds="))]
    code, said = run(["profile", *profile, "profile.scores=[probe]", "hydra.run.dir=mine"], capsys)
    assert code == 2
    assert f"{name}: it is there already, and not known as a file of LayerFusion's" in said
    assert own.read_text() == '{"spans": []}'


def test_a_report_writes_over_no_file_of_the_users(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words, "hydra.run.dir=outputs/job"]) == 0
    own = Path("outputs/report.md")
    own.write_text("mine")
    code, said = run(["report", "outputs"], capsys)
    assert (code, own.read_text()) == (2, "mine")
    assert "report.md: it is there already, and not known as a file of LayerFusion's" in said
    assert not Path("outputs/tables").exists()
    own.unlink()
    assert main(["report", "outputs"]) == 0
    assert main(["report", "outputs"]) == 0  # its own it writes anew
    table = next(Path("outputs/tables").iterdir())
    manifest = Path("outputs/.report-files.json")
    listed = [name for name in json.loads(manifest.read_text()) if name != f"tables/{table.name}"]
    manifest.write_text(json.dumps(listed))
    table.write_text("mine")
    code, said = run(["report", "outputs"], capsys)
    assert (code, table.read_text()) == (2, "mine")
    assert f"{table.name}: it is there already" in said


def test_an_export_of_a_store_writes_over_no_file(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words, "hydra.run.dir=job"]) == 0
    own = Path("labelled.parquet")
    own.write_text("mine")
    (store,) = Path("cache/embeddings").iterdir()
    export = ["cache", "export", store.name, own.name, "--cache", "cache"]
    code, said = run(export, capsys)
    assert (code, own.read_text()) == (2, "mine")
    assert "labelled.parquet: it is there already; remove it, or name another file" in said
    own.unlink()
    assert main(export) == 0
    names = Path("vectors.npy.texts.txt")
    names.write_text("mine")
    code, said = run([*export[:3], "vectors.npy", *export[4:]], capsys)
    assert (code, names.read_text()) == (2, "mine")
    assert "vectors.npy.texts.txt: it is there already" in said
