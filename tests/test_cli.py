"""The command line as a user meets it, on a tiny model and a tiny file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from layerfusion.cli import COMMANDS, main
from layerfusion.composing.hydra import compose, config_folder, group_options
from layerfusion.config.check import load
from layerfusion.runs import job_texts
from tests.tiny import tiny_folder, tiny_job, tiny_texts


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_texts(tmp_path_factory.mktemp("data") / "reviews.csv", 160)


@pytest.fixture
def job(model: Path, reviews: Path, tmp_path: Path) -> list[str]:
    job = tiny_job(reviews, model, tmp_path / "cache")
    return [*job, f"paths.outputs={tmp_path / 'outputs'}", "logger=none", "seeds=1"]


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(arguments)
    return code, capsys.readouterr().err.strip()


# -- what works ---------------------------------------------------------------------------------


def test_a_job_leaves_its_record_and_is_not_run_twice(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(["train", *job, "layers=all"], capsys)
    assert code == 0, said
    (record,) = (tmp_path / "outputs/runs").glob("*/metrics.json")
    content = json.loads(record.read_text())
    assert [layer["layer"] for layer in content["layers"]] == ["0", "1", "2", "3", "norm"]
    gates = [layer["mean_gate"] for layer in content["layers"]]
    assert sum(gates) == pytest.approx(1, abs=1e-5)
    classes = content["gates"]["classes"]
    rows = sum(one["rows"] for one in classes)
    assert rows == content["dataset"]["rows"]["test"]
    for k, gate in enumerate(gates):
        whole = sum(one["rows"] * one["gates"][k] for one in classes) / rows
        assert gate == pytest.approx(whole, abs=1e-5)
    assert len(content["gates"]["epochs"]) == content["seeds"][0]["epochs"]
    assert content["test"]["accuracy"]["mean"] > 0.8  # the words give the label away
    predictions = pd.read_parquet(record.parent / "predictions.parquet")
    right = (predictions.pred == predictions.target).mean()
    assert right == pytest.approx(content["test"]["accuracy"]["mean"])
    baseline = (predictions.baseline == predictions.target).mean()
    assert baseline == pytest.approx(content["baseline"]["test"]["accuracy"])
    for figure in ("accuracy", "macro_f1", "consensus"):
        estimate = content["test"][figure]
        if figure == "macro_f1" and estimate["mean"] == 1:  # no resample can differ
            assert estimate["low"] is estimate["high"] is None
            continue
        assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    # With one seed there is nothing to agree on.
    alone, agreed = (content["test"][name] for name in ("accuracy", "consensus"))
    assert [agreed[key] for key in ("mean", "low", "high")] == [
        pytest.approx(alone[key]) for key in ("mean", "low", "high")
    ]
    assert load(_yaml(record.parent / "config.yaml")).layers.name == "all"
    before = record.stat().st_mtime_ns
    code, said = run(["train", *job, "layers=all"], capsys)
    assert code == 0
    assert "finished before" in said
    assert record.stat().st_mtime_ns == before


def test_changed_texts_are_not_answered_from_an_old_record(
    job: list[str], reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "changing.csv"
    data.write_text(reviews.read_text())
    arguments = ["train", *job, f"dataset.path={data}"]
    assert run(arguments, capsys)[0] == 0
    (path,) = (tmp_path / "outputs/runs").glob("*/metrics.json")
    before = json.loads(path.read_text())["dataset"]["fingerprint"]
    data.write_text(reviews.read_text().replace("plot", "wheat"))
    job_texts._datasets.clear()  # as in a new process
    code, said = run(arguments, capsys)
    assert code == 0
    assert "have changed since" in said
    assert json.loads(path.read_text())["dataset"]["fingerprint"] != before


def _yaml(path: Path) -> object:
    from omegaconf import OmegaConf

    return OmegaConf.load(path)


def test_a_sweep_has_one_folder_a_job_and_ends_in_a_report(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["train", "-m", *job, "layers=fixed", "layers.fixed.tiny=[0],[2],[-1],[norm]"]
    assert run(sweep, capsys)[0] == 0
    folder = tmp_path / "outputs/sweeps/main"
    records = sorted(folder.glob("*/metrics.json"))
    layers = {json.loads(path.read_text())["layers"][0]["layer"] for path in records}
    assert layers == {"0", "2", "3", "norm"}
    assert all(json.loads(path.read_text())["job"] == path.parent.name for path in records)
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").stat().st_size > 10_000


def test_a_failed_job_of_a_sweep_does_not_stop_the_others(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["train", "-m", *job, "layers=fixed", "layers.fixed.tiny=[99],[1]"]
    code, said = run(sweep, capsys)
    assert code == 1
    assert "there is no '99'; there are: 0, 1, 2, 3, norm" in said
    assert len(list((tmp_path / "outputs/sweeps/main").glob("*/metrics.json"))) == 1


def test_plan_counts_without_extracting(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(["plan", *job], capsys)
    assert code == 0
    assert "160 of 160 texts to extract" in said
    assert "this is an upper limit" not in said
    pilot = run(["plan", *job, "layers=adaptive", "layers.pilot=40"], capsys)[1]
    assert (
        "layers.pilot=40: this is an upper limit; the pilot extracts all layers of 40 rows of train"
        in pilot
    )
    assert not list(tmp_path.rglob("*.safetensors"))
    assert run(["extract", *job], capsys)[0] == 0
    assert "all 160 texts are in the store already" in run(["plan", *job], capsys)[1]
    assert main(["cache", "verify", str(tmp_path / "cache")]) == 0
    assert main(["cache", "ls", str(tmp_path / "cache")]) == 0
    assert "160 texts" in capsys.readouterr().out


def test_an_experiment_is_stronger_than_the_command() -> None:
    assert load(compose("profile", ["experiment=layer_scores"])).profile.judge
    assert not load(compose("profile", [])).profile.judge


@pytest.mark.parametrize("command", ["report", "status", "dashboard", "cache", "predict"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: layerfusion {command}")
    assert len(said.splitlines()) > 5


HEAVY = {"torch", "lightning", "hydra", "pandas", "numpy", "transformers"}


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, layerfusion.cli as c; c.main(['--help']); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert all(command in loaded for command in COMMANDS)  # the usage lists them
    assert not loaded & HEAVY


def test_no_commands_help_imports_what_takes_long() -> None:
    code = (
        "import sys, layerfusion.cli as c\n"
        "for command in c.COMMANDS:\n"
        "    try: c.main([command, '--help'])\n"
        "    except SystemExit: pass\n"
        "    print('\\nloaded', command, *sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("loaded ")]
    assert [words[0] for words in told] == [*COMMANDS]
    assert [words[0] for words in told if HEAVY & {*words}] == []


@pytest.mark.parametrize("dataset", group_options("dataset"))
def test_every_dataset_composes(dataset: str) -> None:
    extra = ["dataset.path=x.csv"] if dataset == "local" else []
    extra += ["dataset.hub=owner/name"] if dataset == "hub" else []
    config = load(compose("train", [f"dataset={dataset}", *extra]))
    assert config.dataset.name


@pytest.mark.parametrize("backbone", group_options("backbone"))
def test_every_backbone_composes(backbone: str) -> None:
    extra = ["backbone.local.path=x"] if backbone == "local" else []
    config = load(compose("train", [f"backbone=[{backbone}]", *extra]))
    assert list(config.backbone) == [backbone]


@pytest.mark.parametrize(
    "option",
    [
        f"{group}={option}"
        for group in ("layers", "fusion", "trainer", "logger", "paths", "extract", "pooling")
        for option in group_options(group)
    ]
    + [f"experiment={name}" for name in group_options("experiment")],
)
def test_every_other_option_composes(option: str) -> None:
    extra = ["layers.fixed.minilm=[1]"] if option == "layers=fixed" else []
    if option.startswith("fusion=published_"):
        extra = ["protocol=as_published"]
    if option.startswith("pooling="):
        option = f"pooling=[{option.partition('=')[2]}]"
    load(compose("train", [option, *extra]))


def test_every_config_file_lies_in_a_known_group() -> None:
    folders = {path.parent.name for path in config_folder().glob("*/*.yaml")}
    assert folders <= {
        *("dataset", "backbone", "pooling", "lexical", "layers", "fusion", "trainer"),
        *("logger", "paths", "extract", "experiment", "reproduce", "search"),
    }


# -- mistakes: one line, exit code 2 ------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "there is no 'trian'; there are: plan, extract, profile, train"),
        (
            ["report"],
            "arguments are required: DIR; usage: layerfusion report [-h]"
            " [-o FOLDER] [--block MODULE:FUNCTION] [--texts]",
        ),
        (["status", "a", "b"], "unrecognized arguments: b; usage: layerfusion status"),
        (["predict", "job"], "arguments are required: INPUT; usage: layerfusion predict"),
        (["cache", "wipe"], "there is no 'wipe'; there are: ls, verify"),
        (["cache", "ls", "nowhere"], "nowhere: no embeddings are cached there"),
        (["report", "nowhere"], "nowhere"),
        (["train", "backbone=[nope]"], "backbone: there is no 'nope'; there are: "),
        (["train", "dataset=nope"], "dataset: there is no 'nope'; there are: "),
        (
            ["train", "layers=nope"],
            "layers: there is no 'nope'; there are: adaptive, all, even, fixed, greedy, last,"
            " loes, sparse, top_k",
        ),
        (
            ["train", "fusion=nope"],
            "fusion: there is no 'nope'; there are: attention, auto, concat, cooccurrence, gated",
        ),
        (["train", "fusion.name=nope"], "fusion: there is no 'nope'; there are: attention, concat"),
        (["train", "limit.trian=3"], "limit: there is no 'trian'; there are: train, test"),
        (["train", "seeds=many"], "seeds"),
        (["train", "seeds=0"], "seeds=0: it must be at least 1"),
        (["train", "extract.device=spred"], "extract.device: there is no 'spred'; there are: auto"),
        (["extract", "extract.device=gpu"], "cuda, cuda:1, mps, xpu, spread"),
        (["train", "extract.device=spred"], "did you mean spread?"),
        (["train", "limit.train=1"], "limit.train=1: it must be at least 2"),
        (["train", "fusion.dropout=1"], "fusion.dropout=1.0: it must lie in [0, 1)"),
        (["train", "backbone.minilm.dtype=int9"], "there are: float32, bfloat16, float16, int8"),
        (
            ["train", "layers=fixed"],
            "layers=fixed: no layer of minilm is given, layers.fixed.minilm=[…]",
        ),
        (
            ["train", "layers=fixed", "layers.fixed.minilm=[1]", "layers.fixed.mpnet=[1]"],
            "there is no 'mpnet'",
        ),
        (["train", "trainer.devices=2"], "a head trains on 1 device"),
        (["train", "trainer.max_epochs=0"], "trainer.max_epochs=0: it must be at least 1"),
        (["train", "extract.num_shards=2", "dataset=sms_spam"], "extract.num_shards=2"),
        (["train", "extract.shard=2"], "extract.shard=2: it must lie between 0 and"),
        (["train", "dataset=local"], "dataset"),
        (["train", "-m", "--cfg", "job"], "leave -m out"),
        (["train", "seeds=[1"], "seeds"),
        (["train", "~layers=1"], "Hydra cannot read the overrides: Config group override deletion"),
        (["reproduce", "reproduce.dtyp=x"], "reproduce: there is no 'dtyp'; there are: profile,"),
        (["search", "search.trails=3"], "search: there is no 'trails'; there are: name, trials,"),
        (["reproduce", "reproduce=nope"], "there is no 'nope'; there are: full, paper, quick"),
    ],
)
def test_a_mistake_on_the_command_line(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run(arguments, capsys)
    assert says in said
    assert len(said.splitlines()) == 1
    assert said.startswith("layerfusion: ")
    assert code == 2
    monkeypatch.undo()


def test_keys_that_stand_under_no_name_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone/flat.yaml").write_text("description: flat\npath: models/flat\n")
    command = ["train", "--config-dir", str(tmp_path), "dataset=sms_spam", "backbone=[flat]"]
    code, said = run(command, capsys)
    assert code == 2
    assert "backbone.description: this is no backbone" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("words,label\nfine,a\n", "words"),
        ("text,label\nfine,a\n,b\nok,a\n", "row"),
        ("text,label\nfine,a\nok,a\n", "one label only (a); two are needed"),
        ("", "empty"),
    ],
)
def test_a_mistake_in_a_file(
    content: str,
    says: str,
    job: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "mistake.csv"
    path.write_text(content)
    code, said = run(["train", *job, f"dataset.path={path}"], capsys)
    assert code == 2
    assert says in said.splitlines()[-1]
    assert "Traceback" not in said


def test_layer_and_folder_mistakes_are_told_before_extraction(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["train", *job, "layers=fixed", "layers.fixed.tiny=[7]"]
    code, said = run(wrong, capsys)
    assert code == 2
    assert "layers of tiny: there is no '7'; there are: 0, 1, 2, 3, norm" in said
    assert "160 of 160 texts to extract" in run(["plan", *job], capsys)[1]
    (tmp_path / "empty").mkdir()
    code, said = run(["train", *job, f"backbone.tiny.path={tmp_path / 'empty'}"], capsys)
    assert code == 2
    for command in ("plan", "train"):
        code, missing = run([command, *job, f"backbone.tiny.path={tmp_path / 'none'}"], capsys)
        assert code == 2
        none = f"path {tmp_path / 'none'}: it does not exist"
        assert missing.splitlines()[-1].endswith(f"backbone.tiny: no source can serve: {none}")
    assert "Traceback" not in said


def test_an_experiment_without_its_package_line_is_told_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("seeds: 1\ndataset:\n  path: base.csv\n")
    code, error = run(["train", f"--config-dir={tmp_path}", "experiment=mine"], capsys)
    assert code == 2
    assert "experiment/mine: its keys are read as keys of `experiment`" in error
    assert error.endswith("# @package _global_")
    assert len(error.splitlines()) == 1


def test_a_kept_file_that_is_a_link_to_nothing_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / ".plans" / "plan.json"
    plan.parent.mkdir()
    plan.symlink_to("nowhere")
    assert main(["status", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"layerfusion: {plan}: it is a link to nothing; remove it, or bring back its file\n"
    )


def test_a_home_that_takes_no_files_is_no_matter_for_a_user(tmp_path: Path) -> None:
    names = ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "WANDB_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    code = (
        "import os; from layerfusion.cli import main; main(['explain', 'layers.mass'])\n"
        "import matplotlib; folder = matplotlib.get_cachedir(); print(folder)\n"
        "print(os.environ.get('WANDB_CACHE_DIR'))"
    )
    for home, own in ((tmp_path, True), (tmp_path / "none", False)):
        environment |= {"HOME": str(home), "TMPDIR": str(tmp_path)}
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        *_, folder, of_wandb = ran.stdout.splitlines()
        assert (ran.returncode, ran.stderr) == (0, "")
        if own:
            assert (folder, of_wandb) == (str(tmp_path / ".cache/matplotlib"), "None")
        else:
            assert folder == of_wandb
            assert Path(folder).parent == tmp_path
            assert not Path(folder).exists()


@pytest.mark.parametrize(
    "words",
    [["predict", "", "x"], ["drift", ".", ""], ["results", ""], ["cache", "ls", ""], ["serve", ""]],
)
def test_an_empty_word_names_no_present_folder(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a variable of the shell that is not set."""
    code, said = run(words, capsys)
    assert (code, said.count("\n")) == (2, 0)
    assert ": an empty word; usage: layerfusion " in said


def test_closed_streams_and_old_encodings_take_what_is_printed(tmp_path: Path) -> None:
    """As under a daemon that closes them, and on a terminal of another age."""
    old = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    shell = "-m layerfusion explain held out"
    said = subprocess.run(
        f"{sys.executable} {shell}", shell=True, env=old, capture_output=True, check=True
    )
    assert b"glossary" in said.stdout
    code = "import sys; sys.argv = ['layerfusion', '-V']; import layerfusion; "
    code += "layerfusion.__version__ = '1 \u2026'; from layerfusion.cli import main; main()"
    said = subprocess.run([sys.executable, "-c", code], env=old, capture_output=True, check=True)
    assert said.stdout == b"1 \\u2026\n"
    (tmp_path / "t.csv").write_text("text,label\na,b\n")
    for closed, words, expected in (
        (">&-", "-V", 0),
        (">&-", f"results {tmp_path}", 2),
        ("<&-", "train -", 2),
        ("2>&-", "-V", 0),
    ):
        ran = subprocess.run(
            f"{sys.executable} -m layerfusion {words} {closed}", shell=True, capture_output=True
        )
        assert ran.returncode == expected, ran.stderr
        assert b"Traceback" not in ran.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
@pytest.mark.parametrize("words", ["--help", "-V", "explain held out", "train --help"])
def test_a_full_disk_is_told_in_a_line_by_help_too(words: str) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "layerfusion", *words.split()], stdout=full, stderr=-1, text=True
        )
    assert ran.returncode == 2
    assert "No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr
