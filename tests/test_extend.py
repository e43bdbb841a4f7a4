"""docs/extend.md, door by door: its files alone in an empty folder, run through every command."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import layerfusion as lf
from layerfusion.cli import main
from layerfusion.commands.overrides import config_of
from layerfusion.config.imports import import_from
from layerfusion.embeddings.cache_key import pooling_identity
from layerfusion.embeddings.pooling import pool
from layerfusion.records.job import find_records, read_record
from layerfusion.records.profile import read_profile
from tests.pages import ROOT, Block
from tests.tiny import tiny_job, tiny_texts

PAGE = ROOT / "docs/extend.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_LINES = 30
"""Lines of a door's files, the most that the page promises."""


def doors() -> dict[str, list[Block]]:
    """Heading to the blocks below it, for the headings with files."""
    sections = PAGE.read_text().split("\n## ")[1:]
    found = {part.partition("\n")[0]: [Block(*m) for m in FENCE.findall(part)] for part in sections}
    return {title: blocks for title, blocks in found.items() if any(b.file for b in blocks)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def job(place: Path, bert_folder: Path) -> list[str]:
    """What every job here shares: texts, a tiny model, one quick seed."""
    texts = tiny_texts(place / "texts.csv", 60)
    quick = ["--config-dir=mine", "seeds=1", "logger=none", "layers.folds=2"]
    return [*tiny_job(texts, bert_folder, place / "cache"), *quick]


def open_door(title: str, place: Path) -> None:
    """Write the files of a door, and nothing else of the page."""
    for block in doors()[title]:
        if block.file:
            (place / block.file).parent.mkdir(parents=True, exist_ok=True)
            (place / block.file).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, "a python block", "exec"), {})


def follow(job: list[str], *settings: str) -> Path:
    """Run train, predict and report with some settings; the folder of the job."""
    assert main(["train", *job, *settings, "hydra.run.dir=outputs/job"]) == 0
    predict = ["predict", "outputs/job", "texts.csv", "-o", "predictions.csv", "--config-dir=mine"]
    assert main(predict) == 0
    assert len(Path("predictions.csv").read_text().splitlines()) == 61
    assert main(["report", "outputs"]) == 0
    return Path("outputs/job")


def profile(job: list[str], *settings: str) -> Path:
    """Run profile with some settings; the folder of the profile."""
    assert main(["profile", *job, *settings, "hydra.run.dir=outputs/profile"]) == 0
    return Path("outputs/profile")


@pytest.mark.parametrize("title", doors())
def test_a_door_takes_few_lines(title: str) -> None:
    for block in doors()[title]:
        assert len(block.text.splitlines()) < MOST_LINES, block.text


def test_an_operator(job: list[str], place: Path) -> None:
    open_door("An operator", place)
    assert read_record(follow(job, "layers=all", "fusion=sharpest")).fusion == "sharpest"
    sweep = ["-m", *job, "layers=all", "fusion=sharpest", "fusion.power=2,8"]
    assert main(["train", *sweep, f"paths.outputs={place / 'sweep'}"]) == 0
    assert len(find_records(place / "sweep")) == 2
    assert sorted(lf.results(place / "sweep").settings) == ["fusion.power=2", "fusion.power=8"]
    assert main(["report", str(place / "sweep")]) == 0
    page = (place / "sweep/report.md").read_text()
    assert "sharpest (fusion.power=2)" in page.replace("\\", "")
    profile(job, "profile.scores=[logme]")


def test_a_score(job: list[str], place: Path) -> None:
    open_door("A score", place)
    scores = "profile.scores=[probe,my_scores:margin,my_brier:brier]"
    found = read_profile(profile(job, scores))
    values = [layer.scores for layer in found.layers]
    assert all(scores["margin"] is not None and scores["margin"] > 0 for scores in values)
    assert not found.score_facts["margin"].low_is_good
    assert found.score_facts["brier"].low_is_good
    assert "best by margin" in {selection.name for selection in found.selections}
    best = max(found.layers, key=lambda layer: layer.scores["margin"] or 0)
    record = read_record(follow(job, "layers=top_k", "layers.k=1", "layers.score=my_scores:margin"))
    assert [layer.layer for layer in record.layers] == [best.layer]
    assert "margin" in record.layers[0].reason


def test_a_score_of_held_out_rows_is_compared_row_by_row(job: list[str], place: Path) -> None:
    open_door("A score", place)
    found = read_profile(profile(job, "profile.scores=[my_brier:brier]"))
    best = min(found.layers, key=lambda layer: layer.scores["brier"] or 9)
    record = read_record(follow(job, "layers=top_k", "layers.k=1", "layers.score=my_brier:brier"))
    assert [layer.layer for layer in record.layers] == [best.layer]


def test_a_pooling(job: list[str], place: Path) -> None:
    open_door("A pooling", place)
    record = read_record(follow(job, "pooling=[mean,median]"))
    assert [layer.pooling for layer in record.layers] == ["mean", "median"]
    stores = [json.loads(path.read_text()) for path in (place / "cache").rglob("store.json")]
    (own,) = {store["spec"]["pool"] for store in stores} - {"mean"}
    assert re.fullmatch(r"my_poolings:median [0-9a-f]{16}", own)
    profile(job, "pooling=[median]", "profile.scores=[logme]")


def test_a_partial_is_known_by_the_file_that_names_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module of a partial is functools, which does not change when its numbers do."""
    monkeypatch.syspath_prepend(place)
    known = set()
    for power in (1, 2):
        name = f"partial_poolings_{power}"
        code = f"from functools import partial\nown = partial(pow, {power})\n"
        (place / f"{name}.py").write_text(code)
        known.add(pooling_identity(f"{name}:own").partition(" ")[2])
    assert len(known) == 2
    assert "" not in known


@pytest.mark.parametrize(
    ("title", "settings", "own"),
    [
        ("An operator", ("layers=all", "fusion=sharpest"), "my_operator.Sharpest"),
        ("A pooling", ("layers=all", "pooling=[median]"), "my_poolings:median"),
    ],
)
def test_code_that_changed_after_the_training_is_told(
    title: str,
    settings: tuple[str, ...],
    own: str,
    job: list[str],
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    open_door(title, place)
    follow(job, *settings)
    line = f"the code of {own} is another one than in training"
    assert line not in capsys.readouterr().err
    (file,) = place.rglob(f"{re.split('[.:]', own)[0]}.py")
    file.write_text(file.read_text() + "\n# another\n")
    predict = ["predict", "outputs/job", "texts.csv", "--config-dir=mine"]
    assert main(predict) == 0
    assert capsys.readouterr().err.count(line) == 1
    follow(job, *settings)  # the same command trains again, and what it leaves is of the file
    said = capsys.readouterr().err
    assert "finished before" not in said
    assert line not in said
    follow(job, *settings)
    assert "finished before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("title", "settings", "own"),
    [
        ("A selection", ("layers=best_of_each",), "my_selection:best_of_each"),
        ("A score", ("layers=top_k", "layers.score=my_scores:margin"), "my_scores:margin"),
    ],
)
def test_a_job_whose_own_choice_of_layers_changed_runs_again(
    title: str,
    settings: tuple[str, ...],
    own: str,
    job: list[str],
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    open_door(title, place)
    train = ["train", *job, *settings, "hydra.run.dir=outputs/job"]
    assert main(train) == 0
    (file,) = place.rglob(f"{own.partition(':')[0]}.py")
    file.write_text(file.read_text() + "\n# another\n")
    assert main(train) == 0
    assert f"the code of {own} has changed since" in capsys.readouterr().err
    assert main(train) == 0
    assert "finished before" in capsys.readouterr().err


def test_a_selection(job: list[str], place: Path) -> None:
    open_door("A selection", place)
    record = read_record(follow(job, "layers=best_of_each"))
    assert (record.selection, record.scored) == ("my_selection:best_of_each", True)
    values = [layer.scores["logme"] for layer in read_profile(profile(job)).layers]
    (chosen,) = record.layers
    assert "best of its model" in chosen.reason
    layers = [layer.layer for layer in read_profile(Path("outputs/profile")).layers]
    assert layers.index(chosen.layer) == max(range(len(values)), key=lambda n: values[n] or 0)


def test_a_reader(job: list[str], place: Path) -> None:
    open_door("A reader", place)
    own = ["dataset.path=reviews.xml", "dataset.reader=my_readers:read_xml"]
    record = read_record(follow(job, *own))
    assert sum(record.dataset.rows.values()) == 80
    profile(job, *own, "profile.scores=[logme]")
    words = ["predict", "outputs/job", "reviews.xml", "-o", "xml.csv"]
    assert main(words) == 2  # a bundle may come from someone else, and its reader with it
    assert main([*words, "--config-dir", "mine"]) == 0
    assert len(Path("xml.csv").read_text().splitlines()) == 81


def test_a_launcher(job: list[str], place: Path) -> None:
    open_door("A launcher", place)
    sweep = ["-m", *job, "layers=last,all", "hydra/launcher=patient", "hydra.launcher.seconds=0"]
    # In a process of its own: Hydra looks for plugins once in each.
    command = [sys.executable, "-m", "layerfusion", "train", *sweep, "sweep=patient"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(find_records(Path("outputs/sweeps/patient")))) == 2


def test_a_block_of_the_report(job: list[str], place: Path) -> None:
    open_door("A block of the report", place)
    (place / "mine").mkdir()
    follow(job, "layers=all", "fusion=gated")
    assert main(["report", "outputs", "--block", "my_blocks:calibration"]) == 0
    assert "How well fusions are calibrated" in Path("outputs/report.md").read_text()
    tables = [path.name for path in Path("outputs/tables").iterdir()]
    assert any("calibration-of-fusions" in name for name in tables), tables


def test_what_is_misspelt_or_missing_is_told_in_one_line(
    job: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_door("A score", place)
    (place / "my_names.py").write_text("logme = lambda features, labels: 1.0\nnumber = 3\n")
    for setting, message in {
        "layers.score=margin": "layers.score: there is no 'margin'; there are: probe, .*own",
        "layers.score=my_scores:margins": "layers.score=my_scores:margins: my_scores has no",
        "layers.score=their_scores:margin": "there is no module 'their_scores'",
        "layers.score=my_names:logme": "my_names:logme: LayerFusion itself has a score logme",
        "layers.score=my_names:number": "my_names:number: it is of type int; a Score or a function",
        "pooling.mean.pool=median": "pooling.mean.pool: there is no 'median'",
        "layers.name=my_scores:squash": "layers.name=my_scores:squash: my_scores has no",
        "dataset.reader=no_readers:read": "there is no module 'no_readers'",
    }.items():
        capsys.readouterr()
        assert main(["train", *job, "layers=top_k", setting]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("layerfusion: ")]
        assert re.search(message, line), line


def test_a_selection_of_ones_own_needs_a_name_in_its_file(
    job: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place / "mine" / "layers"
    folder.mkdir(parents=True)
    (folder / "few.yaml").write_text("k: 2\nscore: logme\n")
    (folder / "fewest.yaml").write_text("defaults: [top_k]\nk: 1\n")
    capsys.readouterr()
    assert main(["train", *job, "layers=few"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"layerfusion: layers\.name: there is none; .*`name: top_k`", line), line
    for choice in (["layers=few", "layers.name=top_k", "layers.k=1"], ["layers=fewest"]):
        words = ["train", *job, *choice, "hydra.run.dir=outputs/named"]
        assert main(words) == 0
        record = read_record(Path("outputs/named"))
        assert (record.selection, len(record.layers)) == ("top_k", 1)
        shutil.rmtree("outputs/named")


SCORE = "def own(features, labels):\n    return {}\n"
POOL = "def own(hidden, start, stop):\n    return {}\n"
CHOOSE = "def own(scores, similarity, budget, config):\n    return {}\n"
READ = "def own(path):\n    return {}\n"
DOORS = {
    "score": ["layers=top_k", "layers.score=my_code:own"],
    "pooling": ["layers=last", "pooling.mean.pool=my_code:own"],
    "selection": ["layers=top_k", "layers.name=my_code:own"],
    "reader": ["layers=last", "dataset.reader=my_code:own"],
}


@pytest.mark.parametrize(
    ("role", "code", "says"),
    [
        ("score", SCORE.format("1 / 0"), r"ZeroDivisionError: .* \(my_code\.py, line 2\)"),
        ("score", SCORE.format("features.mean(dim=0)"), r"it gave tensor\(.*; a number is needed"),
        ("pooling", POOL.format("hidden.men(1)"), "AttributeError: 'Tensor' object has no"),
        ("pooling", POOL.format("None"), "it returned None; a tensor of the shape"),
        ("selection", CHOOSE.format("scores.layer"), "AttributeError: .*line 2"),
        ("pooling", POOL.format("hidden[:, 0] / 0 - hidden[:, 0] / 0"), "it returned NaN or inf"),
        ("selection", CHOOSE.format("{scores.layers[0]: None}"), "its reason for .* is no text"),
        ("reader", READ.format("{'text': 'abc', 'label': 'xyx'}"), "column text is one str for"),
        ("reader", READ.format("path.nothing"), "AttributeError: .*line 2"),
    ],
)
def test_a_mistake_in_a_users_function_is_one_line(
    job: list[str],
    place: Path,
    capsys: pytest.CaptureFixture[str],
    role: str,
    code: str,
    says: str,
) -> None:
    (place / "mine").mkdir()
    (place / "my_code.py").write_text(code)
    assert main(["train", *job, *DOORS[role]]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("layerfusion: ")]
    assert "my_code:own" in line or "score own" in line
    assert re.search(says, line), line


def test_a_file_that_is_no_yaml_is_told_with_its_line(
    job: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine/pooling").mkdir(parents=True)
    (place / "mine/pooling/broken.yaml").write_text("broken:\n  pool: [\n")
    assert main(["train", *job, "pooling=[broken]"]) == 2
    assert "broken.yaml: no valid YAML in line 3: expected" in capsys.readouterr().err


BLOCKS = {
    "def own(group):\n    return None\n": r"block my_block:own: TypeError: own\(\) takes 1",
    "class own:\n    pass\n": "it is of type type; a function .group, findings.",
    "def own(group, findings):\n    return 'words'\n": "has to be a Block or None",
    """
from layerfusion.report import Block, Column, Table
def own(group, findings):
    return Block("B", (Table("T", group.jobs, Column("C", lambda job: job.nothing)),))
""": r"block my_block:own: AttributeError: .*'nothing' \(my_block\.py, line 4\)",
    """
from layerfusion.report import Block
def own(group, findings):
    return Block("B", (3,))
""": "block my_block:own: a part of type int; paragraphs, tables,",
}


def test_a_mistake_in_a_block_is_one_line(
    job: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine").mkdir()
    assert main(["train", *job, "layers=last", "hydra.run.dir=outputs/job"]) == 0
    for code, says in BLOCKS.items():
        (place / "my_block.py").write_text(code)
        sys.modules.pop("my_block", None)
        capsys.readouterr()
        assert main(["report", "outputs", "--block", "my_block:own"]) == 2
        assert re.search(says, capsys.readouterr().err)


def test_a_pooling_that_writes_into_states_changes_none(place: Path) -> None:
    (place / "my_writing.py").write_text(POOL.format("hidden.zero_()[:, 0]"))
    import_from([place])
    hidden = torch.ones(2, 3, 4)
    pooled = pool(hidden, torch.tensor([0, 0]), torch.tensor([3, 2]), "my_writing:own")
    assert pooled.eq(0).all()
    assert hidden.eq(1).all()


def test_code_of_ones_own_is_named_in_python_too() -> None:
    score = lf.Score("own", lambda features, labels: 1.0)
    for settings in ({"profile.scores": ["probe", score]}, {"fusion.name": lf.FusionOperator}):
        with pytest.raises(lf.UserError, match="is no value of a setting; code of your own is"):
            config_of("sms_spam", "minilm", settings, command="profile")
