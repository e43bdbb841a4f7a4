"""The whole comparison on tiny models and a tiny file, by configs of a user's own."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from layerfusion.cli import main
from layerfusion.commands.reproduce_check import (
    differences,
    expected_by,
    read_results,
    replayed,
    write_results,
)
from layerfusion.errors import UserError
from tests.tiny import tiny_folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return own_configs(tmp_path)


def own_configs(tmp_path: Path) -> Path:
    """Make a `--config-dir` with two models, a data set and a profile."""
    generator = np.random.default_rng(0)
    rows = [
        (" ".join(generator.choice(["good", "bad"][n % 2 :], 5)) + f" {n}", n % 2)
        for n in range(90)
    ]
    data = tmp_path / "toy.csv"
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(data, index=False)
    folder = tmp_path / "own"
    for family in ("bert", "llama"):
        model = tiny_folder(family, tmp_path / family)
        _write(folder / f"backbone/{family}.yaml", f"{family}:\n  sources: [{{path: {model}}}]\n")
    _write(folder / "backbone/gone.yaml", "gone:\n  sources: [{path: /nowhere/at/all}]\n")
    _write(folder / "dataset/toy.yaml", f"name: toy\nsources: [{{path: {data}}}]\n")
    _write(
        folder / "reproduce/tiny.yaml",
        "profile: tiny\nbackbone: [bert, llama]\ndataset: {toy: {}}\n"
        "layer_seeds: 1\nfusion_seeds: 2\nmax_length: 32\n",
    )
    return folder


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def command(own: Path, tmp_path: Path, *more: str) -> list[str]:
    places = [f"paths.cache={tmp_path / 'cache'}", f"paths.outputs={tmp_path / 'outputs'}"]
    options = ["logger=none", "extract.token_budget=256", *more]
    return ["reproduce", f"--config-dir={own}", "reproduce=tiny", *places, *options]


@pytest.mark.slow
def test_every_row_is_trained_and_reported(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(own, tmp_path)) == 0
    said = capsys.readouterr().err
    folder = tmp_path / "outputs/reproduce"
    records = [json.loads(path.read_text()) for path in folder.glob("jobs/tiny/*/metrics.json")]
    rows = {
        (record["selection"], tuple(f"{x['backbone']}:{x['layer']}" for x in record["layers"]))
        for record in records
        if record["selection"] not in ("greedy", "adaptive")
    }
    (auto,) = [record for record in records if record["selection"] == "adaptive"]
    assert auto["chosen_by"] == "auto"
    lexical = {"words", "characters", "pairs_bayes", "characters_bayes"}
    assert set(auto["considered"]) == {"bert", "llama", *lexical}
    chosen = [record for record in records if record["selection"] == "greedy"]
    assert [record["fusion"] for record in chosen] == ["stacked"] * 3
    layers = {"bert": ["0", "1", "2", "3"], "llama": ["0", "1", "2", "3", "norm"]}
    singles = {("fixed", (f"{name}:{layer}",)) for name in layers for layer in layers[name]}
    everything = {name: tuple(f"{name}:{layer}" for layer in layers[name]) for name in layers}
    assert rows == singles | {
        ("all", everything["bert"]),
        ("all", everything["llama"]),
        ("last", ("bert:3", "llama:norm")),
        ("all", everything["bert"] + everything["llama"]),
    }
    assert {record["dataset"]["name"] for record in records} == {"toy"}
    page = (folder / "report.html").read_text()
    assert "toy" in page
    assert (folder / "report.md").exists()
    assert list((folder / "figures").glob("*.png"))
    assert f"open {folder / 'report.html'}" in said
    (last,) = [line for line in said.splitlines() if "[17/17]" in line]
    assert last.endswith("; about 0 s left")
    results = folder / "results.json"
    replay = [word for word in command(own, tmp_path) if word != "reproduce=tiny"]
    assert main([*replay, f"check={results}"]) == 0  # nothing is left to do
    said = capsys.readouterr().err
    assert "the same figures" in said
    assert " left" not in said.split("2 of 3")[1]  # nor is a pace known
    other = json.loads(results.read_text())
    jobs = other["data"]["toy"]["jobs"]
    jobs["bert layer 2"]["test"] -= 0.02
    jobs["bert layer 1"]["test"] -= 0.01  # within the tolerance
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(other))
    assert main(command(own, tmp_path, f"check={changed}")) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("changed")]
    assert len(said) == 1
    assert "bert layer 2" in said[0]


@dataclass(frozen=True)
class Ran:
    """What a comparison wrote, and what it said."""

    folder: Path
    out: str
    err: str

    @property
    def configs(self) -> list[dict[str, Any]]:
        paths = self.folder.glob("jobs/tiny/*/config.yaml")
        return [yaml.safe_load(path.read_text()) for path in paths]


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One model of two can be had, its texts are too long, and passes are asked for by the user."""
    place = tmp_path_factory.mktemp("one_model")
    own = own_configs(place)
    rows = pd.read_csv(place / "toy.csv")
    rows["text"] += " good" * 60
    rows.to_csv(place / "toy.csv", index=False)
    asked = ["reproduce.dtype=bfloat16", "reproduce.batch_size=16", "reproduce.auto=true"]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert main(command(own, place, "reproduce.backbone=[bert,gone]", *asked)) == 0
    return Ran(place / "outputs/reproduce", out.getvalue(), err.getvalue())


@pytest.mark.slow
def test_dtype_and_batch_size_are_those_of_every_row(one_model: Ran) -> None:
    assert len(one_model.configs) == 4 + 3
    for config in one_model.configs:
        assert config["backbone"]["bert"]["dtype"] == "bfloat16"
        assert config["trainer"]["batch_size"] == 16


@pytest.mark.slow
def test_texts_that_are_too_long_are_cut_for_every_row_and_pass_once(one_model: Ran) -> None:
    assert {config["long_texts"] for config in one_model.configs} == {"truncate"}
    assert "read whole" not in one_model.out


@pytest.mark.slow
def test_a_model_that_cannot_be_had_is_left_out_with_a_line(one_model: Ran) -> None:
    assert "left out: backbone gone: " in one_model.err
    assert len(list(one_model.folder.glob("jobs/tiny/*/metrics.json"))) == 4 + 3
    assert "/nowhere/at/all" in (one_model.folder / "report.html").read_text()


def test_without_any_model_there_is_nothing_to_report(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(own, tmp_path, "reproduce.backbone=[gone]")) == 2
    assert "nothing could be extracted" in capsys.readouterr().err
    assert not list(tmp_path.rglob("metrics.json"))


def test_what_it_would_take_is_said_without_running_anything(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(own, tmp_path, "plan=true")) == 0
    assert "of extraction in all" in capsys.readouterr().out
    assert not (tmp_path / "outputs").exists()


def test_figures_that_are_not_there_are_one_line(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And cost no work: nothing has run when it is said."""
    assert main(command(own, tmp_path, f"check={tmp_path / 'none.json'}")) == 2
    assert "none.json: no figures of an earlier run" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("content", ["[]", '{"data": {"toy": {"baseline": 1}}}', '{"version": 1}'])
def test_another_file_is_not_taken_for_figures(content: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"other\.json: not figures"):
        read_results(file)


def test_a_check_runs_what_the_figures_were_made_with(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    made = ["reproduce=tiny", "reproduce.dtype=bfloat16", "~reproduce.dataset.r8"]
    aside = ["--config-dir", "own", "paths.cache=c", "logger=none", "extract.device=cpu"]
    write_results(file, [*aside, *made, "hydra/launcher=joblib", f"check={file}"], {})
    assert read_results(file).overrides == made
    check = f"check={file}"
    kept = expected_by(["reproduce.dtype=float16", check])
    assert kept is not None
    assert replayed([check], kept) == [*made, check]
    given = ["reproduce.dtype=float16", check, "reproduce.dataset.r8={}"]
    assert replayed(given, kept) == ["reproduce=tiny", *given]
    assert replayed(["reproduce=tiny", check], kept) == [*made[1:], "reproduce=tiny", check]
    assert replayed(["reproduce=quick", check], kept) == ["reproduce=quick", check]
    assert expected_by(["reproduce=tiny"]) is expected_by(["check="]) is None


def test_every_kind_of_difference_is_told() -> None:
    job = {"layers": ["a:1:mean"], "test": 0.8}
    data = {"fingerprint": "f", "baseline": 0.7, "jobs": {"one": job, "two": job}}
    assert differences({"x": data}, {"x": data}) == []
    other = {
        "fingerprint": "f",
        "baseline": 0.706,
        "jobs": {"one": {"layers": ["a:2:mean"], "test": 0.84}, "three": job},
    }
    assert differences({"x": data, "y": data}, {"x": other, "z": data}) == sorted(
        [
            "data set y: not expected",
            "data set z: missing",
            "x, baseline: accuracy 70.00 %, expected 70.60 ± 0.5",
            "x, one: accuracy 80.00 %, expected 84.00 ± 1.5",
            "x, one: layers a:1:mean, expected a:2:mean",
            "x, row three: missing",
            "x, row two: not expected",
        ]
    )
    (line,) = differences({"x": data}, {"x": {**data, "fingerprint": "g"}})
    assert "texts or labels differ" in line
