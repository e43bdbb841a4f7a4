"""Inputs that are read in parts: the output of a whole file, in flat memory, also after kills."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from layerfusion.cli import main
from layerfusion.commands import outputs
from layerfusion.runs import bundle_loading
from layerfusion.texts import streaming as parts

LENGTHS = 97
"""A prime, so that the probabilities of neighbours differ."""


class ByLength:
    """A classifier that goes by the length of a text, and counts the texts that it is given."""

    label_names = ("neg", "pos")
    multilabel = False
    folder = None
    unasked = ()
    config = SimpleNamespace(dataset=SimpleNamespace(text="text", reader=None))

    def __init__(self) -> None:
        self.texts = 0
        self.stop_at = sys.maxsize

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += len(texts)
        if self.texts > self.stop_at:
            raise KeyboardInterrupt
        high = np.array([len(text) % LENGTHS / LENGTHS for text in texts], np.float32)
        return np.stack([1 - high, high], axis=1)

    def labels_of(self, probabilities: np.ndarray) -> list[str]:
        return [self.label_names[k] for k in probabilities.argmax(axis=1)]


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> ByLength:
    found = ByLength()
    monkeypatch.setattr(bundle_loading, "load_bundle", lambda *_args, **_options: found)
    monkeypatch.setattr(parts, "ROWS", 50)
    return found


def predicted(given: Path, out: Path) -> bytes:
    assert main(["predict", "job", str(given), "-o", str(out)]) == 0
    assert [path.name for path in out.parent.glob("*.partial*")] == []
    return out.read_bytes()


ROWS = [
    {"id": n, "text": f"film {n}" + ", good" * (n % 5) if n % 7 else "", "note": f'said "{n}"'}
    for n in range(1, 331)
]


def written(folder: Path, suffix: str) -> Path:
    path, frame = folder / f"in{suffix}", pd.DataFrame(ROWS)
    frame.loc[3, "text"] = "two\nlines, one cell"
    if suffix == ".txt":
        path.write_text("text\n" + "".join(f"{row['text']}\r\n" for row in ROWS))
    elif suffix == ".jsonl":
        rows = [*ROWS[:200], *({**row, "new": {"a": 1}} for row in ROWS[200:])]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif suffix == ".parquet":
        frame["raw"] = [bytes([200 if n == 300 else 65]) for n in range(len(frame))]
        frame.to_parquet(path, row_group_size=80)
    elif suffix == ".fasttext.txt":
        path.write_text("".join(f"__label__a {row['text']}\n" for row in ROWS))
    elif suffix == ".stray.tsv":
        lines = [f'{row["id"]}\t"{row["text"]}" by x\n' for row in ROWS]
        path.write_text("id\ttext\n" + "".join(lines))
    elif suffix == ".spaced.csv":
        path.write_text('id, "text"\n' + "".join(f'{r["id"]}, "{r["text"]}, "\n' for r in ROWS))
    elif suffix == ".comment.csv.gz":
        content = "# made by hand\nid;text\n" + "".join(f"{r['id']};{r['text']}\n" for r in ROWS)
        path.write_bytes(gzip.compress(content.encode()))
    elif suffix == ".returns.csv":
        lines = [f"{n},film\r\rgood \ue000\ue001 {n}\r\n" for n in range(250)]
        path.write_bytes(("id,text\r\n" + "".join(["-1,first\r\n"] * 90 + lines)).encode())
    elif suffix == ".returns.stray.csv":
        lines = [f'{n},x,"film" and\r{n}\n' for n in range(250)]
        path.write_bytes(("id,kind,text\n" + "".join(lines)).encode())
    elif suffix == ".utf16.csv":
        frame.to_csv(path, index=False, encoding="utf-16")
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    return path


@pytest.mark.usefixtures("classifier")
@pytest.mark.parametrize("to", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "suffix",
    [".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".fasttext.txt", ".stray.tsv", ".spaced.csv",
     ".comment.csv.gz", ".returns.csv", ".returns.stray.csv"],
)  # fmt: skip
def test_parts_give_what_a_whole_file_gives(
    suffix: str,
    to: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given, out = written(tmp_path, suffix), tmp_path / f"out{to}"
    monkeypatch.setattr(parts, "ROWS", 1000)
    whole = predicted(given, out)
    of_whole = capsys.readouterr().err
    monkeypatch.setattr(parts, "WHOLE", 0)
    monkeypatch.setattr(parts, "read_table", None)
    for rows in (50, 1000):
        monkeypatch.setattr(parts, "ROWS", rows)
        found = predicted(given, out)
        assert capsys.readouterr().err == of_whole
        if to == ".parquet":
            tables = [pd.read_parquet(io.BytesIO(one)) for one in (found, whole)]
            pd.testing.assert_frame_equal(tables[0], tables[1])
        assert found == whole


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl.gz", "out.parquet"])
def test_a_stopped_run_goes_on_after_its_last_part(
    name: str, classifier: ByLength, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = written(tmp_path, ".jsonl"), tmp_path / name
    whole = predicted(given, out)
    of_all, classifier.texts, classifier.stop_at = classifier.texts, 0, 150
    out.unlink()
    capsys.readouterr()
    assert main(["predict", "job", str(given), "-o", str(out)]) == 130
    assert not out.exists()
    data, journal = tmp_path / f"{name}.partial", tmp_path / f"{name}.partial.jsonl"
    done = sum(json.loads(line)["rows"] for line in journal.read_text().splitlines()[1:])
    assert done == 150
    # A part of which the journal does not say that it is whole, and half a line of the journal.
    data.write_bytes(data.read_bytes() + b"half a part")
    journal.write_text(journal.read_text() + '{"of": "ab')
    classifier.texts, classifier.stop_at = 0, sys.maxsize
    assert predicted(given, out) == whole
    assert classifier.texts == of_all - sum(bool(row["text"]) for row in ROWS[:done])
    assert f"the first 150 rows are of an earlier run; {data} had them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "stays", "said"),
    [
        ("row 120", 100, "the first 100 rows are of an earlier run"),
        ("row 1", 0, "is of other rows: started anew"),
        ("options", 0, "is of another classifier or of other options: started anew"),
        ("data is gone", 0, "is of other rows: started anew"),
        ("nothing", 150, "the first 150 rows are of an earlier run"),
    ],
)
def test_only_what_is_the_same_stays(
    change: str,
    stays: int,
    said: str,
    classifier: ByLength,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given, out = written(tmp_path, ".txt"), tmp_path / "out.csv"
    classifier.stop_at = 150
    command = ["predict", "job", str(given), "-o", str(out)]
    assert main(command) == 130
    lines = given.read_text().split("\n")
    for row in (1, 120):
        if change == f"row {row}":
            lines[row] = "another film\r"
    given.write_text("\n".join(lines))
    if change == "options":
        command += ["--device", "cpu"]
    if change == "data is gone":
        (tmp_path / "out.csv.partial").unlink()
    classifier.texts, classifier.stop_at = 0, sys.maxsize
    capsys.readouterr()
    assert main(command) == 0
    assert said in (capsys.readouterr().err if change != "data is gone" else said)
    texts = [line.strip() for line in lines[1:] if line.strip()]
    kept = [line.strip() for line in lines[1 : 1 + stays] if line.strip()]
    assert classifier.texts == len(texts) - len(kept)
    resumed = out.read_bytes()
    assert predicted(given, tmp_path / "anew.csv") == resumed


def test_a_kill_while_the_journal_gets_another_identity_keeps_no_part_of_the_old_one(
    classifier: ByLength, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, out = written(tmp_path, ".txt"), tmp_path / "out.csv"
    classifier.stop_at = 150
    command = ["predict", "job", str(given), "-o", str(out), "--device"]
    assert main([*command, "cuda"]) == 130
    journal = tmp_path / "out.csv.partial.jsonl"
    before = journal.read_bytes()

    def killed(self: outputs.Partial, at: int, content: bytes) -> None:
        assert at == 0
        assert before[len(content) - 1 :].startswith(b"\n")  # both first lines are as long
        journal.write_bytes(content + before[len(content) :])
        raise KeyboardInterrupt

    classifier.stop_at = sys.maxsize
    with monkeypatch.context() as patch:
        patch.setattr(outputs.Partial, "_write", killed)
        assert main([*command, "auto"]) == 130
    classifier.texts = 0
    assert main([*command, "auto"]) == 0
    assert classifier.texts == sum(bool(row["text"]) for row in ROWS)


def test_no_file_of_anyone_else_is_written_over(
    classifier: ByLength, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = written(tmp_path, ".txt"), tmp_path / "out.csv"
    for name in ("out.csv.partial", "out.csv.partial.jsonl"):
        theirs = tmp_path / name
        theirs.write_text("mine\n")
        assert main(["predict", "job", str(given), "-o", str(out)]) == 2
        said = capsys.readouterr().err
        assert f"{theirs}: `layerfusion predict` would write its parts there" in said
        assert said.count("\n") == 1
        assert theirs.read_text() == "mine\n"
        theirs.unlink()
        (tmp_path / "out.csv.partial.jsonl").unlink(missing_ok=True)
    assert classifier.texts <= 100


def test_two_runs_do_not_write_one_file(
    classifier: ByLength, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = written(tmp_path, ".txt"), tmp_path / "out.csv"
    command = ["predict", "job", str(given), "-o", str(out)]
    other: list[int] = []
    usual = classifier.probabilities

    def at_once(texts: Sequence[str]) -> np.ndarray:
        if classifier.texts > 60 and not other:
            other.append(0)
            other[0] = main(command)
        return usual(texts)

    classifier.probabilities = at_once
    assert main(command) == 0
    assert other == [2]
    assert "another `layerfusion predict` writes it" in capsys.readouterr().err


def test_what_is_wrong_in_a_large_file_is_said_before_the_work(
    classifier: ByLength,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(parts, "WHOLE", 0)
    monkeypatch.setattr(parts, "BLOCK", 1000)
    monkeypatch.setattr("layerfusion.texts.packed.BLOCK", 1000)
    rows = "".join(f"{n},film {n}\n" for n in range(1, 401))
    cases = {
        "a.csv": (
            f'id,text\n{rows}4,"a, b"\n5,"film\n'.encode(),
            "row 402 (line 403): a quotation mark",
        ),
        "b.csv": (f"id,text\n{rows}401,a,b\n".encode(), "row 401 (line 402): it has 3 cells"),
        "c.csv": (
            f"id,text\n{rows}401,é\n".encode("latin-1"),
            "position 4,996 is not utf-8; set --enc",
        ),
        "d.csv": (f"id,text\n{rows}401,\0\n".encode(), "it holds NUL characters"),
        "e.csv": (f"id,body\n{rows}".encode(), "there is no column 'text' (--text)"),
        "f.csv": (f'id,text\n{rows}1,"a\n2,b"\n'.encode(), "(line 402): a cell runs on over 2"),
        "g.jsonl": (b'{"text": "a"}\n' * 400 + b'{"text": \n', "line 401: not readable as json"),
        "h.jsonl": (b'{"text": "a"}\n' * 400 + b"[1]\n", "line 401: an object is needed"),
        "i.jsonl": (b'{"text": "a"}\n' * 400 + b'{"a": 1, "a": 2}\n', "has the key 'a' twice"),
        "j.txt.gz": (gzip.compress(rows.encode())[:-9], "cannot be read"),
        "k.csv.gz": (rows.encode(), "its name ends in .gz, and it is not packed so"),
        "m.csv": (b"<!DOCTYPE html>\n" + rows.encode(), "it is a web page"),
        "n.csv": (
            f"id,text\n{rows}401,a\rb\n402,a,b\n".encode(),
            "row 402 (line 403): it has 3 cells",
        ),
        "l.parquet": (b"PAR1 and no more", "not readable as parquet"),
    }
    for name, (content, wanted) in cases.items():
        (tmp_path / name).write_bytes(content)
        assert main(["predict", "job", str(tmp_path / name), "-o", f"{tmp_path}/out.csv"]) == 2
        said = capsys.readouterr().err
        assert wanted in said, name
        assert said.count("\n") == 1, name
        assert classifier.texts == 0 or name == "j.txt.gz"


def test_columns_that_parquet_cannot_keep_together_are_one_line(
    classifier: ByLength, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    values = [1] * 60 + ["one"]
    given.write_text("".join(f"{json.dumps({'text': 'a', 'n': n})}\n" for n in values))
    assert main(["predict", "job", str(given), "-o", str(out)]) == 2
    assert "parquet cannot keep together" in capsys.readouterr().err
    assert classifier.texts == len(values)
    mixed = [1] * 60 + [None] * 60 + [1.5] + [{}] * 0
    rows = [{"text": "a", "n": n, "o": {f"k{k // 60}": k}} for k, n in enumerate(mixed)]
    given.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    predicted(given, out)
    found = pyarrow.parquet.read_table(out)
    assert found["n"].to_pylist() == mixed
    assert found["o"].to_pylist()[60] == {"k0": None, "k1": 60, "k2": None}


def test_memory_stays_flat(
    classifier: ByLength, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "WHOLE", 0)
    monkeypatch.setattr(parts, "ROWS", 500)
    given = tmp_path / "in.csv"
    peaks = []
    for rows in (15_000, 30_000):
        given.write_text("id,text\n" + "".join(f"{n},film number {n}\n" for n in range(rows)))
        tracemalloc.start()
        assert main(["predict", "job", str(given), "-o", f"{tmp_path}/out.jsonl"]) == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert classifier.texts == 45_000
    assert peaks[1] < 1.2 * peaks[0]


WAITS = """
import sys
from tests.commands.test_large_inputs import ByLength
from layerfusion.cli import main
from layerfusion.commands import outputs
from layerfusion.runs import bundle_loading
bundle_loading.load_bundle = lambda *_args, **_options: ByLength()
code = main(["predict", "job", "-", *sys.argv[1:]])
assert not {"wandb", "hydra", "optuna", "datasets", "submitit", "ray"} & {*sys.modules}
sys.exit(code)
"""
"""A process that predicts from its standard input, without what only trains, sweeps and tracks."""


def test_answers_come_while_texts_still_come() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(f"film, number {number}\n".encode())
            if not number:
                assert process.stdout.readline() == b"text,label,probability,p(neg),p(pos)\n"
            assert process.stdout.readline().startswith(f'"film, number {number}",neg,'.encode())
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait() == 0


def slowly(monkeypatch: pytest.MonkeyPatch, blocks: Sequence[bytes], out: str) -> int:
    """Predict from a standard input that comes a hundred bytes at a time, or a block."""
    some = [block[at : at + 100] for block in blocks for at in range(0, len(block) or 1, 100)]

    class Slow(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return some.pop(0) if some else b""

    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(Slow()))
        return main(["predict", "job", "-", "-o", out])


@pytest.mark.usefixtures("classifier")
@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.jsonl", "out.parquet", "-"])
def test_a_header_without_rows_is_one_line_and_leaves_no_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = name if name == "-" else str(tmp_path / name)
    monkeypatch.setattr(parts, "_HEAD", 5)  # as after a pause in what comes
    assert slowly(monkeypatch, [b"id,text\n"], out) == 2
    assert capsys.readouterr() == ("", "layerfusion: standard input: no rows\n")
    assert list(tmp_path.iterdir()) == []
    assert slowly(monkeypatch, [b"text\n"], out) == 0  # a text, where nothing follows
    assert "1 text" in capsys.readouterr().err or name == "-"


@pytest.mark.usefixtures("classifier")
def test_a_row_of_a_single_column_that_is_empty_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, out = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = ["film", "", "good"] * 40
    for content in (pd.DataFrame({"text": rows}).to_csv(index=False), "\n".join(["text", *rows])):
        given.write_text(content)
        for largest in (64 << 20, 0):
            monkeypatch.setattr(parts, "WHOLE", largest)
            predicted(given, out)
            assert pd.read_csv(out)["text"].fillna("").tolist() == rows


@pytest.mark.usefixtures("classifier")
def test_a_text_longer_than_any_name_is_a_text(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("an old file\n")
    assert main(["predict", "job", "a good film " * 40, "-o", str(out)]) == 0
    assert pd.read_csv(out)["text"].tolist() == ["a good film " * 40]


@pytest.mark.usefixtures("classifier")
def test_a_pipe_is_read_as_a_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "_HEAD", 200)

    def piped(content: bytes) -> tuple[int, str]:
        code = slowly(monkeypatch, [content], f"{tmp_path}/piped.csv")
        return code, capsys.readouterr().err

    for suffix in (".csv", ".txt", ".comment.csv.gz", ".fasttext.txt"):
        given = written(tmp_path, suffix)
        whole = predicted(given, tmp_path / "out.csv")
        assert piped(given.read_bytes())[0] == 0
        assert (tmp_path / "piped.csv").read_bytes() == whole, suffix
    listed = json.dumps([{"id": n, "text": "film"} for n in range(100)], indent=1)
    assert piped(listed.encode())[0] == 0
    assert len(pd.read_csv(tmp_path / "piped.csv")) == 100
    code, said = piped(written(tmp_path, ".jsonl").read_bytes())
    assert (code, said.count("\n")) == (2, 1)
    assert "line 201: the key 'new' is in no row before" in said


def test_a_killed_run_leaves_what_another_goes_on_with(
    classifier: ByLength, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed from outside, as a machine does it, while it writes."""
    given, out = tmp_path / "in.txt", tmp_path / "out.csv"
    given.write_text("".join(f"film {n}\n" for n in range(20_000)))
    script = WAITS.replace('"-"', f'"{given}", "-o", "{out}"')
    script = f"from layerfusion.texts import streaming as parts\nparts.ROWS = 50\n{script}"
    journal = tmp_path / "out.csv.partial.jsonl"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while not journal.exists() or journal.read_bytes().count(b"\n") < 5:
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -9
    resumed = predicted(given, out)
    assert "of an earlier run" in capsys.readouterr().err
    assert classifier.texts < 20_000
    assert predicted(given, tmp_path / "anew.csv") == resumed
    assert resumed.count(b"\n") == 20_001
