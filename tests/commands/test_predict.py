"""The classifier that a job leaves, from its folder to the labels of new texts."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from layerfusion.cli import main
from layerfusion.commands.outputs import Partial
from layerfusion.errors import UserError
from layerfusion.runs.bundle_files import DESCRIPTION, HEADS
from layerfusion.runs.bundle_loading import load_bundle
from tests.commands.conftest import FUSIONS, job, told

OTHER = {"neg": "pos", "pos": "neg"}


PREDICTS = """
import sys
from layerfusion.cli import main
import layerfusion.runs.bundle
print(*sorted({"sklearn", "scipy", "transformers"} & {*sys.modules}))
trains = {"lightning", "torchmetrics", "wandb", "optuna", "hydra", "submitit", "matplotlib"}
texts, *jobs = sys.argv[1:]
for job in jobs:
    assert main(["predict", job, texts, "-o", f"{job}/said.csv"]) == 0
    print(*sorted(trains & {*sys.modules}))
"""


def test_it_imports_nothing_that_only_trains_sweeps_or_tracks(folder: Path, tmp_path: Path) -> None:
    """And scikit-learn only where the classifier counts words."""
    jobs = [shutil.copytree(folder / fusion, tmp_path / fusion) for fusion in FUSIONS]
    command = [sys.executable, "-c", PREDICTS, f"{folder}/test.csv", *map(str, jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["", *("" for _ in jobs)]
    assert [len(pd.read_csv(job / "said.csv")) for job in jobs] == [30] * len(FUSIONS)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_it_says_of_test_what_the_job_recorded(fusion: str, folder: Path, tmp_path: Path) -> None:
    """From the texts on, without the cache, which keeps the vectors as whole as they are here."""
    out = tmp_path / "said.parquet"
    assert main(["predict", f"{folder}/{fusion}", f"{folder}/test.csv", "-o", str(out)]) == 0
    said = pd.read_parquet(out)
    recorded = pd.read_parquet(folder / fusion / "predictions.parquet").sort_values(["seed", "row"])
    each = np.stack(recorded["prob"].tolist()).reshape(2, 30, 2)
    found = said[["p(neg)", "p(pos)"]].to_numpy()
    np.testing.assert_allclose(found, each.mean(axis=0), atol=1e-5)
    assert said["text"].tolist() == pd.read_csv(folder / "test.csv")["text"].tolist()
    assert set(said["predicted_label"]) <= {"neg", "pos"}  # test.csv has a label of its own
    truth = pd.read_csv(folder / "test.csv")["label"].to_numpy()
    metrics = json.loads((folder / fusion / "metrics.json").read_text())
    right = float(np.mean(said["predicted_label"].to_numpy() == truth))
    assert right == pytest.approx(metrics["test"]["consensus"]["mean"])


def test_a_stack_is_judged_on_validation_without_it_and_kept_with_it(
    folder: Path, tmp_path: Path
) -> None:
    """Validation's own figures are of a stack that has not seen it, those of test of one that has:
    with the labels of validation turned round, that is wrong."""
    rows = pd.read_csv(folder / "train.csv")
    rows[:40].to_csv(tmp_path / "train.csv", index=False)
    records = []
    for name, flipped in (("right", False), ("wrong", True)):
        judge = rows[40:].replace({"label": OTHER}) if flipped else rows[40:]
        judge.to_csv(tmp_path / f"{name}.csv", index=False)
        assert main([
            "train", *job(folder), "fusion=stacked", f"dataset.train={tmp_path}/train.csv",
            f"dataset.validation={tmp_path}/{name}.csv", f"hydra.run.dir={tmp_path}/{name}",
        ]) == 0  # fmt: skip
        records.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    right, wrong = records
    assert right["validation"]["accuracy"]["mean"] == 1
    # The same stack, so that it is right about none of the labels turned round.
    assert wrong["validation"]["accuracy"]["mean"] == 0
    assert wrong["test"]["log_loss"]["mean"] > 2 * right["test"]["log_loss"]["mean"]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gates_and_what_each_source_says_alone(fusion: str, folder: Path, tmp_path: Path) -> None:
    plain, out = tmp_path / "plain.parquet", tmp_path / "out.parquet"
    command = ["predict", f"{folder}/{fusion}", f"{folder}/test.csv", "-o"]
    assert main([*command, str(plain)]) == 0
    assert main([*command, str(out), "--gates"]) == 0
    said = pd.read_parquet(out)
    before = pd.read_parquet(plain)
    pd.testing.assert_frame_equal(said.loc[:, before.columns], before)
    layers = [str(layer) for layer in load_bundle(folder / fusion).layers]
    gates = [f"gate({layer})" for layer in layers]
    alone = [f"alone({layer})" for layer in layers]
    assert [*said.columns[len(before.columns) :]] == [
        *(gates if fusion != "concat" else []),
        *alone,
    ]
    assert set(said[alone].to_numpy().ravel()) <= {"neg", "pos"}
    if fusion == "gated":
        np.testing.assert_allclose(said[gates].sum(axis=1), 1, atol=1e-5)


def test_texts_do_not_depend_on_their_neighbours(folder: Path) -> None:
    bundle = load_bundle(folder / "gated")
    texts = pd.read_csv(folder / "test.csv")["text"].tolist()
    together = bundle.probabilities(texts)
    assert together.shape == (30, 2)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    alone = np.concatenate([bundle.probabilities([f"  {text}\n"]) for text in texts[:3]])
    np.testing.assert_allclose(alone, together[:3], atol=1e-4)
    assert bundle.probabilities([]).shape == (0, 2)
    assert list(bundle.predict(texts[:2])) == [
        bundle.label_names[k] for k in together[:2].argmax(1)
    ]


def test_unknown_tokens_are_told_of_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("layerfusion.runs.bundle.PIECE", 2)
    load_bundle(folder / "concat", device="cpu").probabilities(["zebra", "quagga"] * 2 + ["the"])
    said = [line for line in caplog.messages if "unknown to its tokenizer" in line]
    assert said == [line for line in said if line.startswith("backbone bert: 80% of")]
    assert len(said) == 1


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_form_of_input_and_output_says_the_same(
    suffix: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["a good film, said the bank", 'a "bad" one']
    given, out = tmp_path / f"given{suffix}", tmp_path / f"out{suffix}"
    table = pd.DataFrame({"review": texts, "stars": [1, 2]})
    readers = {
        ".csv": pd.read_csv,
        ".tsv": lambda path: pd.read_csv(path, sep="\t"),
        ".jsonl": lambda path: pd.read_json(path, lines=True),
        ".parquet": pd.read_parquet,
    }
    if suffix == ".parquet":
        table.to_parquet(given)
    elif suffix == ".jsonl":
        table.to_json(given, orient="records", lines=True)
    else:
        table.to_csv(given, index=False, sep="\t" if suffix == ".tsv" else ",")
    command = ["predict", f"{folder}/concat", str(given), "--text", "review", "-o", str(out)]
    assert main(command) == 0
    found = readers[suffix](out)
    assert found["review"].tolist() == texts
    assert found["stars"].tolist() == [1, 2]
    (tmp_path / "lines.txt").write_text("\n".join(texts) + "\n")
    capsys.readouterr()
    assert main(["predict", f"{folder}/concat/bundle", f"{tmp_path}/lines.txt"]) == 0
    printed = tmp_path / "printed.csv"
    printed.write_text(capsys.readouterr().out)
    expected = pd.read_csv(printed)
    assert found["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(found["p(pos)"], expected["p(pos)"], atol=1e-5)


def test_it_can_be_taken_elsewhere(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle is a folder of its own; the models may lie anywhere, if they are the same."""
    shutil.copytree(folder / "gated" / "bundle", tmp_path / "taken")
    shutil.copytree(folder / "bert", tmp_path / "models" / "b")
    given = ["predict", f"{tmp_path}/taken", f"{folder}/test.csv", "--cache", f"{tmp_path}/cache"]
    capsys.readouterr()
    assert main([*given, "--model", f"bert={tmp_path}/models/b"]) == 0
    moved = capsys.readouterr().out
    assert main(["predict", f"{folder}/gated", f"{folder}/test.csv"]) == 0
    assert moved == capsys.readouterr().out
    said = told([*given[1:], "--model", f"bert={folder}/llama"], capsys)
    assert "backbone bert" in said
    assert "does not hold the files" in said
    said = told([*given[1:], "--model", f"bert={tmp_path}/gone"], capsys)
    assert said.endswith(
        f"path {tmp_path}/gone: it does not exist; where its files lie now, say with --model"
        ' bert=FOLDER (in Python load(…, models={"bert": FOLDER}))'
    )
    assert "there are: bert, llama" in told([*given[1:], "--model", "brt=x"], capsys)
    assert "NAME=FOLDER" in told([*given[1:], "--model", "bert"], capsys)


def test_jobs_of_a_sweep_keep_none_unless_told_to(folder: Path, tmp_path: Path) -> None:
    words = [*job(folder), f"paths.outputs={tmp_path}", "fusion=concat", "seeds=1", "sweep=s"]
    assert main(["train", "-m", *words]) == 0
    (record,) = tmp_path.glob("sweeps/s/*/metrics.json")
    assert not (record.parent / "bundle").exists()
    with pytest.raises(UserError, match="bundle=true"):
        load_bundle(record.parent)
    # The job is the same one: it is run again for its classifier, and then finished for good.
    assert main(["train", "-m", *words, "bundle=true"]) == 0
    made = (record.parent / "bundle" / DESCRIPTION).stat().st_mtime_ns
    assert main(["train", "-m", *words, "bundle=true"]) == 0
    assert (record.parent / "bundle" / DESCRIPTION).stat().st_mtime_ns == made


def test_what_is_wrong_with_a_classifier_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    shutil.copytree(folder / "gated" / "bundle", taken)
    given = [str(taken), f"{folder}/test.csv"]
    (taken / HEADS).write_bytes((taken / HEADS).read_bytes()[:-100])
    assert "damaged" in told(given, capsys)
    (taken / HEADS).unlink()
    assert f"{HEADS} is missing" in told(given, capsys)
    (taken / DESCRIPTION).write_text('{"schema": 99}')
    assert "schema 99" in told(given, capsys)
    (taken / DESCRIPTION).unlink()
    assert "no classifier" in told(given, capsys)


def test_words_that_are_no_file_are_a_text(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    long = "a good film, is it? " + 300 * "long "  # longer than the name of a file may be
    for text in (long, "这部电影很好看", "とても良い映画だ", "หนังเรื่องนี้ดีมาก"):
        assert main(["predict", f"{folder}/gated", text]) == 0
        out, err = capsys.readouterr()
        (row,) = csv.DictReader(io.StringIO(out))
        assert row["text"] == text
        assert 0 < float(row["probability"]) <= 1
        assert "no such file, so the words are taken as a text" in err
    for name in ("a good film.csv", "电影.csv", "数据/电影", "großartig"):
        assert "there is no such file" in told([f"{folder}/gated", name], capsys)


def test_what_is_wrong_with_the_texts_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, lines = f"{folder}/gated", tmp_path / "lines.txt"
    lines.write_text("good film\nbad film\n")
    same = table_at(tmp_path)
    assert "this is the input itself" in told([bundle, same, "-o", same], capsys)
    lines.write_bytes("caf\xe9\n".encode("latin-1"))
    said = told([bundle, str(lines), "--encoding", "ascii", "--gates"], capsys)
    assert "set --encoding, for example to latin-1" in said
    assert said.endswith(f"layerfusion predict {bundle} {lines} --gates --encoding latin-1")
    assert "no such file" in told([bundle, f"{tmp_path}/none.csv"], capsys)
    table = f"{folder}/test.csv"
    said = told([bundle, table, "--text", "body"], capsys)
    assert "there is no column 'body' (--text)" in said
    assert "there are: .csv" in told([bundle, table, "-o", "out.xls"], capsys)
    assert "there is no folder" in told([bundle, table, "-o", f"{tmp_path}/no/out.csv"], capsys)
    with pytest.raises(UserError, match=r"text 2 of 2 is .*; a string with a word is needed"):
        load_bundle(bundle).probabilities(["good", " "])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["good", None], "text 2 of 2 is None"),
        ([b"good"], "text 1 of 1 is b'good'"),
        ("good film", "takes a list of strings, found 'good film'; write"),
        ({"good"}, "found an object of type set"),
        (None, "takes a list of strings, found None"),
    ],
)
def test_what_is_no_list_of_texts_is_one_line(texts: Any, message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_bundle(folder / "concat", device="cpu").predict(texts)


def test_strings_of_pyarrow_are_texts(folder: Path) -> None:
    bundle = load_bundle(folder / "concat", device="cpu")
    assert (
        bundle.predict(pa.array(["good film"])).tolist() == bundle.predict(["good film"]).tolist()
    )


def test_texts_that_are_read_in_part_are_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text(f"good film\n{'good ' * 400}\n")
    assert main(["predict", f"{folder}/concat", str(lines), "-o", f"{tmp_path}/said.csv"]) == 0
    said = capsys.readouterr().err
    assert "note: bert reads 1 text up to its longest length, and not to the end" in said


def test_a_txt_whose_first_line_makes_it_a_table_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("text, good\nbad, plot\ngood, film\n")
    assert main(["predict", f"{folder}/concat", str(lines), "-o", f"{tmp_path}/said.csv"]) == 0
    assert "lines.txt: read as a table, as its first line reads like" in (capsys.readouterr().err)


def table_at(folder: Path) -> str:
    """A small table of texts, whatever stood there before."""
    path = folder / "table.csv"
    path.write_text("id,text,label,price\nA1,good film,x,3\nA2,,y,4\nA3, bad film ,x,5\n")
    return str(path)


def test_all_columns_are_kept_and_a_row_without_a_text_has_no_label(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    assert main(["predict", f"{folder}/concat", table_at(tmp_path), "-o", str(out)]) == 0
    notes = capsys.readouterr().err
    assert "note: 1 empty text has no label" in notes
    assert "has a column 'label'; the new one is predicted_label" in notes
    found = pd.read_csv(out, dtype=str, keep_default_na=False)
    assert found["id"].tolist() == ["A1", "A2", "A3"]
    assert found["label"].tolist() == ["x", "y", "x"]
    assert found["price"].tolist() == ["3", "4", "5"]
    assert found["text"].tolist() == ["good film", "", " bad film "]
    assert [bool(name) for name in found["predicted_label"]] == [True, False, True]
    assert found["probability"].tolist()[1] == ""


def predicted(
    arguments: list[str], given: bytes, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, str]]:
    """What predict prints for some bytes on the standard input, as rows of strings."""
    printed = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        patch.setattr("sys.stdout", io.TextIOWrapper(printed, "ascii"))
        assert main(["predict", *arguments]) == 0
        table = printed.getvalue().decode("utf-8")
        delimiter = ";" if ";" in table.partition("\n")[0] else ","
        return list(csv.DictReader(io.StringIO(table), delimiter=delimiter))


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        ("good film é\nbad film\n", ["text"]),
        ("text\ngood film é\nbad film\n", ["text"]),
        ('text\n"good film é"\nbad film\n', ["text"]),
        ("n;text\n1;good film é\n2;bad film\n", ["n", "text"]),
        ("sep=;\nn; text\n1;good film é\n2;bad film\n", ["n", " text"]),
        ('{"text": "good film é"}\n{"text": "bad film", "n": 1}\n', ["text", "n"]),
        ('[{"n": 1, "text": "good film é"},\n {"text": "bad film"}]', ["n", "text"]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_standard_input_and_output_are_a_dash(
    given: str, columns: list[str], packed: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = gzip.compress(given.encode()) if packed else given.encode()
    rows = predicted([f"{folder}/concat", "-", "-o", "-"], raw, monkeypatch)
    assert list(rows[0]) == [*columns, "label", "probability", "p(neg)", "p(pos)"]
    texts = [row[next(name for name in columns if name.strip() == "text")] for row in rows]
    assert texts == ["good film é", "bad film"]


def test_a_csv_has_the_delimiter_of_the_file_that_it_is_made_of(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ["text;número;a", "un film;1,5;x", '"good; and, so";2;y', "awful;3;", "great;4;z"]
    Path("in.csv").write_text("\n".join(rows) + "\n")
    Path("in.tsv").write_text("text\tn\ngood\t1\nbad, so\t2\n")
    command = ["predict", str(folder / "concat")]

    def header(given: str, out: str) -> str:
        assert main([*command, given, "-o", out]) == 0
        return Path(out).read_text().splitlines()[0]

    assert header("in.csv", "out.csv") == "text;número;a;label;probability;p(neg);p(pos)"
    frame = pd.read_csv("out.csv", sep=";", dtype=str)
    assert frame["número"].tolist() == ["1,5", "2", "3", "4"]
    assert frame["text"].tolist()[1] == "good; and, so"
    whole = Path("out.csv").read_bytes()
    assert header("in.csv", "out.tsv").startswith("text\tnúmero\t")
    assert header("in.tsv", "of_tabs.csv").startswith("text,n,label")
    Path("in.tsv").rename("tabs.csv")
    assert header("tabs.csv", "out2.csv").startswith("text\tn\tlabel")
    capfdbinary.readouterr()
    assert main([*command, "in.csv"]) == 0
    assert capfdbinary.readouterr().out == whole

    # In parts, and by a run that goes on; one after which the delimiter is another starts anew.
    monkeypatch.setattr("layerfusion.texts.streaming.ROWS", 2)
    monkeypatch.setattr("layerfusion.texts.streaming.WHOLE", 1)
    for other in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(Partial, "finish", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                main([*command, "in.csv", "-o", "parts.csv"])
        if other:
            pd.read_csv("in.csv", sep=";", dtype=str).to_csv("in.csv", index=False)
            assert header("in.csv", "parts.csv").startswith("text,número,a,label")
        else:
            assert header("in.csv", "parts.csv").startswith("text;número;a;label")
            assert pd.read_csv("parts.csv", sep=";", dtype=str)["a"].tolist()[:2] == ["x", "y"]


def test_gzip_and_upper_case_suffixes(folder: Path, tmp_path: Path) -> None:
    lines, table = tmp_path / "A.TXT.GZ", tmp_path / "B.CSV.GZ"
    lines.write_bytes(gzip.compress(b"good film\nbad film\n"))
    for given, out in ((lines, table), (table, tmp_path / "C.JSONL.gz")):
        assert main(["predict", f"{folder}/concat", str(given), "-o", str(out)]) == 0
    rows = [json.loads(line) for line in gzip.decompress(out.read_bytes()).splitlines()]
    assert [row["text"] for row in rows] == ["good film", "bad film"]
    assert [row["label"] for row in rows] == [row["predicted_label"] for row in rows]


def test_what_stands_in_other_columns_is_kept_as_it_is(folder: Path, tmp_path: Path) -> None:
    given, out = tmp_path / "given.jsonl", tmp_path / "out.jsonl"
    first = {"text": "good film", "n": 1, "x": 0.12345678901234568, "list": ["a"], "yes": True}
    second = {"text": "bad film", "label": 3, "predicted_label": 4, "half \ud83d": "\udc00"}
    given.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    assert main(["predict", f"{folder}/concat", str(given), "-o", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {name: rows[0][name] for name in first} == first
    assert type(rows[0]["n"]) is int
    assert rows[1]["label"] == 3
    assert rows[1]["predicted_label"] == 4
    assert rows[1]["half \ufffd"] == "\ufffd"
    assert {rows[1]["predicted_label_2"]} <= {"neg", "pos"}
    table = tmp_path / "given.csv"
    table.write_bytes(b'id,id,text\n1,2,"good\rfilm"\n3,4,bad film\n')
    out = tmp_path / "out.csv"
    assert main(["predict", f"{folder}/concat", str(table), "-o", str(out)]) == 0
    with out.open(newline="") as file:
        found = list(csv.reader(file))
    assert [row[:3] for row in found[:2]] == [["id", "id.1", "text"], ["1", "2", "good\rfilm"]]


def test_the_output_is_never_the_input_under_another_name(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Path(table_at(tmp_path))
    content = table.read_bytes()
    (tmp_path / "soft.csv").symlink_to("table.csv")
    (tmp_path / "hard.csv").hardlink_to(table)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    for name in ("soft.csv", "hard.csv", "folder.csv/../table.csv"):
        said = told([f"{folder}/concat", str(table), "-o", name], capsys)
        assert "this is the input itself" in said
    assert "it is a folder" in told([f"{folder}/concat", str(table), "-o", "folder.csv"], capsys)
    assert "it is a folder" in told([f"{folder}/concat", "folder.csv"], capsys)
    assert table.read_bytes() == content


def test_the_output_is_never_the_jobs_own_predictions(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = folder / "concat" / "predictions.parquet"
    content = own.read_bytes()
    said = told([f"{folder}/concat", table_at(tmp_path), "-o", str(own)], capsys)
    assert "these are the job's own predictions of test" in said
    assert own.read_bytes() == content


def test_messages_name_the_options_of_predict(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    for content, wanted in {
        "id,text (en)\n1,good film\n": "did you mean --text 'text (en)'?",
        "1,a film that was good\n2,bad film\n": "its columns go by number: --text 2",
        "text\ncaf\xe9\n": "set --encoding, for example to latin-1",
    }.items():
        table.write_bytes(content.encode("latin-1"))
        said = told([f"{folder}/concat", str(table)], capsys)
        assert wanted in said
        if "--text" in wanted:
            assert f" layerfusion predict {folder}/concat {table} --text " in said
    lines = tmp_path / "table.txt"
    lines.write_text("id\tsentence\n1\tgood film\n2\tbad film\n3\tgood\n")
    assert "did you mean --text sentence?" in told([f"{folder}/concat", str(lines)], capsys)


def test_lines_end_at_line_feeds_and_a_table_named_txt_is_a_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes("\ufeffgood\u2028film\r\nbad\x0bfilm\n".encode())
    out = tmp_path / "out.csv"
    command = ["predict", f"{folder}/concat", str(lines), "-o", str(out)]
    assert main(command) == 0
    assert pd.read_csv(out)["text"].tolist() == ["good\u2028film", "bad\x0bfilm"]
    lines.write_text("text\tstars\ngood film\t1\nbad film\t2\n")
    assert main(command) == 0
    assert pd.read_csv(out)["stars"].tolist() == [1, 2]


def test_a_file_that_is_not_there_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    words = ["predict", str(tmp_path), str(tmp_path / "none.csv")]
    script = (
        "import sys\nfrom layerfusion.cli import main\n"
        f"print(main({words}), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "False"]
    assert done.stderr == f"layerfusion: {tmp_path}/none.csv: there is no such file\n"
