"""A path on the command line: what it becomes, what is said, and what is refused."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest

from layerfusion.cli import main
from layerfusion.commands.guesses import with_data
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import LimitConfig
from layerfusion.errors import UserError
from layerfusion.texts import load_dataset
from layerfusion.texts.streaming import refuse_no_file
from tests.tiny import TOPICS, run, tiny_folder, tiny_texts, tiny_topics


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `reviews.csv`, whose columns are id, review and stars."""
    for variable in ("LAYERFUSION_MODELS", "LAYERFUSION_DATA"):  # a user may have set them
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    frame = pd.read_csv(tiny_texts(tmp_path / "base.csv", 60))
    stars = (frame.label == "pos") * 4 + 1
    reviews = pd.DataFrame({"id": range(60), "review": frame.text, "stars": stars})
    reviews.to_csv("reviews.csv", index=False)
    return tmp_path


@pytest.mark.usefixtures("place")
def test_a_wrong_encoding_is_told_with_the_command_that_mends_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame = pd.read_csv("reviews.csv").assign(review=lambda x: x.review + " schön öde größer")
    frame.to_csv("old.csv", index=False, encoding="cp1252")
    frame.to_csv("wide.csv", index=False, encoding="utf-16")
    wrong = "dataset.encoding=utf-8"
    for words in (
        ["old.csv", "limit.train=20"],
        ["old.csv", wrong],
        ["old.csv", "dataset.encoding=latn1"],
        ["wide.csv", wrong, "dataset.text=review", "dataset.label=stars"],
        ["dataset=local", "dataset.path=old.csv", "dataset.text=review", "dataset.label=stars"],
    ):
        capsys.readouterr()
        assert main(["plan", *words]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        mended = shlex.split(said[said.index("layerfusion plan") :])
        assert mended[2:-1] == [word for word in words if "dataset.encoding" not in word]
        assert mended[-1].startswith("dataset.encoding=")
        assert main(mended[1:]) == 0


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        ("reviews.csv", ["dataset.text=text"]),
        ("reviews.csv", ["dataset.label=kind"]),
        ("reviews.csv", ["dataset.text=text", "dataset.label=kind"]),
        ("headless.csv", []),
        ("folder", ['dataset.text="the review"', "dataset.label=stars"]),
    ],
)
def test_a_wrong_column_or_file_is_told_with_the_command_that_mends_it(
    file: str, wrong: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = _reviews().rename(columns={"review": "the review"})
    columns = frame[["the review", "stars"]]
    columns.to_csv("reviews.csv", index=False)
    columns.to_csv("headless.csv", index=False, header=False)
    (place / "folder").mkdir()
    for name in ("trainset", "testset"):
        columns.to_csv(f"folder/{name}.csv", index=False)
    assert main(["plan", file, *wrong]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    mended = shlex.split(said[said.index("layerfusion plan ") :])
    assert mended[2] == file
    assert main(mended[1:]) == 0
    columns.set_axis(["a", "b"], axis=1).to_csv("odd.csv", index=False)
    assert main(["plan", "odd.csv", "dataset.text=text", "dataset.label=b"]) == 2
    assert capsys.readouterr().err.endswith(
        " layerfusion plan odd.csv dataset.label=b dataset.text=COLUMN\n"
    )


@pytest.mark.usefixtures("place")
def test_labels_that_stand_joined_are_told_with_the_command_that_takes_them_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts, topics = tiny_topics(60)
    names = [";".join(topics.columns[row]) for row in topics.to_numpy(bool)]
    pd.DataFrame({"text": texts, "topics": names}).to_csv("topics.csv", index=False)
    assert main(["plan", "topics.csv", "limit.train=40"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    mended = shlex.split(said[said.index("layerfusion plan") :])
    more = ["dataset.multilabel=true", 'dataset.label_separator=";"']
    assert mended == ["layerfusion", "plan", "topics.csv", "limit.train=40", *more]
    assert main(mended[1:]) == 0


@pytest.mark.usefixtures("place")
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As of `layerfusion train <(zcat reviews.csv.gz)`."""
    reading, writing = os.pipe()
    try:
        named = (f"/dev/fd/{reading}", "/dev/null")
        for words in (["plan", name] for name in named):
            code, said = run(words, capsys)
            assert (code, said.count("\n")) == (2, 0), said
            assert "it is a pipe or a device, which can be read but once" in said
        for words in (
            ["dataset=local", f"dataset.path={named[0]}"],
            ["dataset=local", f"dataset.train={named[0]}"],
            ["reviews.csv", f"backbone.tiny.path={named[0]}"],
        ):
            code, said = run(["plan", *words], capsys)
            assert code == 2
            assert "it is a pipe or a device" in said.splitlines()[-1]
        with pytest.raises(UserError, match="it is a pipe or a device"):
            refuse_no_file(Path(named[0]))
    finally:
        os.close(reading)
        os.close(writing)


def _reviews() -> pd.DataFrame:
    return pd.read_csv("reviews.csv")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "name",
    [
        "reviews.tsv",
        "reviews.jsonl",
        "reviews.json",
        "reviews.parquet",
        "folder",
        "a=b,c.csv",
        "reviews.txt",
    ],
)
def test_every_form_of_data_is_a_first_word(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    frame = _reviews()
    if name == "folder":
        Path(name).mkdir()
        frame[:40].to_csv("folder/train.csv", index=False)
        frame[40:].to_csv("folder/test.csv", index=False)
    elif name.endswith(".parquet"):
        frame.to_parquet(name)
    elif ".json" in name:
        frame.to_json(name, orient="records", lines=name.endswith("l"))
    else:
        frame.to_csv(name, index=False, sep="\t" if name.endswith((".tsv", ".txt")) else ",")
    word = f"./{name}" if "=" in name else name
    config = load(compose("plan", with_data("plan", [word, "seeds=1"])))
    assert (config.dataset.path, config.seeds) == (word, 1)
    assert (config.dataset.text, config.dataset.label) == ("review", "stars")
    assert config.dataset.title == re.sub(r"\W", "_", name.partition(".")[0])
    said = capsys.readouterr().err
    assert said.startswith(f"{word}: taking texts from the column 'review' and labels from")
    assert len(said.splitlines()) == 1


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("columns", [("text", "label"), ("review", "stars")])
def test_a_mark_of_utf_16_is_read_as_excel_writes_it(
    columns: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    frame = _reviews()[["review", "stars"]].set_axis([*columns], axis=1)
    frame.to_csv("unicode.txt", index=False, sep="\t", encoding="utf-16")
    config = load(compose("plan", with_data("plan", ["unicode.txt"])))
    found = config.dataset.encoding, config.dataset.text, config.dataset.label
    assert found == ("utf-16", *columns)
    said = capsys.readouterr().err
    assert said.startswith("unicode.txt: reading it as utf-16, whose mark it begins with\n")
    frame.to_csv("unicode.txt", index=False, sep="\t", encoding="utf-8-sig")
    assert load(compose("plan", with_data("plan", ["unicode.txt"]))).dataset.encoding == "utf-8"
    assert "mark" not in capsys.readouterr().err
    own = with_data("plan", ["unicode.txt", "dataset.encoding=latin-1", "dataset.text=a"])
    assert own.count("dataset.encoding=utf-16") == 0


@pytest.mark.usefixtures("place")
def test_usual_columns_are_taken_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    words = with_data("plan", ["base.csv", "seeds=1"])
    assert words == ["dataset=local", "dataset.path=base.csv", "seeds=1"]
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "words",
    [
        ["dataset=r8", "layers=last,all", "-m"],
        ["--cfg", "job", "dataset=r8"],
        ["-m", "hydra/launcher=joblib", "+x=1", "~dataset", "{a"],
        ["--config-dir", "mine", "dataset=reviews"],
        ["--info", "defaults", "--resolve"],
        [],
    ],
)
def test_no_key_and_no_flag_is_taken_for_a_path(words: list[str]) -> None:
    assert with_data("train", words) == words


@pytest.mark.usefixtures("place")
def test_a_column_that_the_user_names_is_not_guessed() -> None:
    words = with_data("plan", ["reviews.csv", "dataset.label=id"])
    assert "dataset.text=review" in words
    assert [word for word in words if "label" in word] == ["dataset.label=id"]
    for sign in ("", "+", "++"):
        named = ["reviews.csv", f"{sign}dataset.text=id", f"{sign}dataset.label=stars"]
        assert with_data("plan", named)[2:] == named[1:]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_keys_count_with_a_plus_before_them(sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [*_, folder] = with_data("train", ["base.csv", f"{sign}dataset.name=mine"])
    assert folder.startswith("hydra.run.dir=${paths.outputs}/runs/mine-")
    content = Path("base.csv").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with_data("plan", ["-", f"{sign}paths.cache=kept"])
    assert len([*Path("kept/datasets").iterdir()]) == 1
    assert not Path("outputs").exists()


@pytest.mark.usefixtures("place")
def test_a_name_in_conf_is_that_data_set_and_an_id_one_of_the_hub() -> None:
    assert with_data("train", ["r8", "seeds=1"]) == ["dataset=r8", "seeds=1"]
    words = with_data("train", ["owner/name"])
    assert words == ["dataset=hub", "dataset.hub=owner/name"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
def test_the_standard_input_is_data(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    if suffix == "csv":
        _reviews().to_csv(file, index=False)
    elif suffix == "parquet":
        _reviews().to_parquet(file)
    else:
        _reviews().to_json(file, orient="records", lines=suffix == "jsonl")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.getvalue())))
    config = load(compose("plan", with_data("plan", ["-", "paths.cache=kept"])))
    kept = Path(str(config.dataset.path))
    assert kept.parent == Path("kept/datasets")
    assert kept.read_bytes() == file.getvalue()
    assert (config.dataset.title, config.dataset.label) == ("standard_input", "stars")


@pytest.mark.usefixtures("place")
def test_the_line_about_two_columns_that_fit_has_a_command_that_runs() -> None:
    frame = _reviews().rename(columns={"stars": "sentiment"})
    frame.assign(topic=["abc"[n % 3] for n in range(60)]).to_csv("two.csv", index=False)
    with pytest.raises(
        UserError, match="'sentiment' and 'topic' may both hold the labels"
    ) as error:
        with_data("plan", ["two.csv", "backbone=[minilm]"])
    command = shlex.split(str(error.value).rpartition(": ")[2])
    assert command[:2] == ["layerfusion", "plan"]
    config = load(compose("plan", with_data("plan", command[2:])))
    assert (config.dataset.text, config.dataset.label) == ("review", "sentiment")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["review.csv"], "review.csv: there is no such file or folder, and no data set of"
         " that name; .*; did you mean reviews.csv"),
        (["sms_spm"], "sms_spm: there is no such file .* did you mean sms_spam"),
        (["reviews.csv", "dataset=r8"], "the data are named twice, here and by dataset=r8"),
        (["reviews.csv", "++dataset.path=x"], "named twice, here and by \\+\\+dataset.path=x"),
        ([""], "train: an empty word; a path or KEY=VALUE is needed in its place"),
        (["seeds=1", ""], "train: an empty word"),
        (["base.csv", "reviews.csv"], "base.csv and reviews.csv: a job has one data set"),
        (["~/none.csv"], "~/none.csv: there is no such file or folder"),
        (["ids.csv"], "no column looks like one of texts; name it"),
        (["-"], "standard input: it is empty"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    _reviews()[["id", "stars"]].to_csv("ids.csv", index=False)
    with pytest.raises(UserError, match=says) as error:
        with_data("train", words)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_file_alone_is_a_job_named_after_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_folder("bert", place / "models/tiny")
    settings = ["seeds=1", "trainer.max_epochs=1", "logger=none", "extract.token_budget=512"]
    code, said = run(["train", "reviews.csv", "backbone=models/tiny", *settings], capsys)
    assert code == 0, said
    assert "reviews: test accuracy" in said
    assert "gated of 1 source of tiny" in said
    job = next((place / "outputs/runs").iterdir())
    assert re.fullmatch(r"reviews-[0-9a-f]{12}", job.name)
    assert (job / "metrics.json").is_file()
    assert run(["train", "--data", "x"], capsys)[1].startswith("layerfusion: options: there is no")


@pytest.mark.usefixtures("place")
def test_columns_are_guessed_where_a_split_has_several_files() -> None:
    Path("folder").mkdir()
    for number in (1, 2):
        _reviews().to_csv(f"folder/train_part{number}.csv", index=False)
    words = with_data("train", ["folder"])
    assert {"dataset.text=review", "dataset.label=stars"} <= set(words)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", ["a${x}.csv", "a${oc.env:HOME}.csv", "a${x.csv", "a${x}"])
def test_a_name_that_would_be_read_as_that_of_a_key_is_refused_with_a_way_out(name: str) -> None:
    if name.endswith(".csv"):
        _reviews().to_csv(name, index=False)
    else:
        Path(name).mkdir()
    with pytest.raises(UserError) as caught:
        with_data("train", [name])
    assert "a name with ${ in it would be read as that of another key; give it" in str(caught.value)
    words = ["dataset=local", "dataset.path='a${x}.csv'"]
    with pytest.raises(UserError, match=r"dataset.path: .* a file whose own name has it needs an"):
        load(compose("train", words))


@pytest.mark.usefixtures("place")
def test_lists_of_labels_are_named_and_a_list_of_one_is_a_label() -> None:
    frame = _reviews()[["review"]].assign(id=range(60))
    frame["genres"] = [["drama", "war"][: n % 3] for n in range(60)]
    frame.to_json("several.jsonl", orient="records", lines=True)
    frame.to_csv("several.csv", index=False)
    for name in ("several.jsonl", "several.csv"):
        with pytest.raises(UserError) as caught:
            with_data("train", [name, "seeds=1"])
        line = str(caught.value)
        assert (
            f"{name}: the column 'genres' holds lists of labels, such as ['drama', 'war']" in line
        )
        command = shlex.split(line.rpartition("say so: ")[2])
        columns = ["dataset.text=review", "dataset.label=genres", "dataset.multilabel=true"]
        assert command == ["layerfusion", "train", name, *columns, "seeds=1"]
        config = load(compose("train", with_data("train", command[2:])))
        assert load_dataset(config.dataset, config.limit, seed=0, cache=Path()).multilabel
    frame["genres"] = [[["drama", "war"][n % 2]] for n in range(60)]
    frame.to_json("one.jsonl", orient="records", lines=True)
    assert "dataset.label=genres" in with_data("train", ["one.jsonl"])


@pytest.mark.usefixtures("place")
def test_a_column_of_labels_that_is_called_so_may_hold_lists() -> None:
    sets = [["drama", "war"][: n % 3] for n in range(60)]
    frame = _reviews()[["review"]].set_axis(["text"], axis=1).assign(label=sets)
    frame.to_parquet("several.parquet")
    with pytest.raises(UserError) as caught:
        with_data("plan", ["several.parquet"])
    command = shlex.split(str(caught.value).rpartition("say so: ")[2])
    assert command == ["layerfusion", "plan", "several.parquet", "dataset.multilabel=true"]
    assert with_data("plan", command[2:])[2:] == ["dataset.multilabel=true"]
    # One row of many with two labels is more likely a mistake, which is named when it is read.
    frame["label"] = [["drama", "war"], *(["drama"], ["war"]) * 29, ["war"]]
    frame.to_parquet("one.parquet")
    assert with_data("plan", ["one.parquet"]) == ["dataset=local", "dataset.path=one.parquet"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "words",
    [["dataset.multilabel=true"], ["dataset.multilabel=true", 'dataset.label_separator=";"'],
     ["dataset.label_columns=[drama,war]"]],
)  # fmt: skip
def test_columns_are_guessed_where_a_text_has_several_labels(words: list[str]) -> None:
    sets = [["drama", "war"][: n % 3] for n in range(60)]
    frame = _reviews()[["review"]].assign(id=range(60), year=[1990 + n % 4 for n in range(60)])
    if "columns" in words[-1]:
        frame["drama"] = ["yes" if "drama" in one else "no" for one in sets]
        frame["war"] = ["war" in one for one in sets]
    else:
        frame["genres"] = [";".join(one) for one in sets] if len(words) > 1 else sets
    frame.to_csv("films.csv", index=False)
    found = with_data("plan", ["films.csv", *words])
    label = [] if "columns" in words[-1] else ["dataset.label=genres"]
    assert found[2:] == ["dataset.text=review", *label, *words]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("x.json", "[]", "x.json: no rows"), ("x.jsonl", "{}\n", "there are: none"),
     ("x.json", '{"data": []}', "a list of objects is needed")],
)  # fmt: skip
def test_data_without_columns_are_refused_when_they_are_read(
    name: str, content: str, said: str
) -> None:
    Path(name).write_text(content)
    words = with_data("plan", [name])
    config = load(compose("plan", words))
    with pytest.raises(UserError, match=said):
        load_dataset(config.dataset, config.limit, seed=0, cache=Path("cache"))


@pytest.mark.usefixtures("place")
def test_a_link_to_nothing_is_said_to_be_one() -> None:
    Path("x.csv").symlink_to("gone.csv")
    Path("y.csv").symlink_to("y.csv")
    for name, to in (("x.csv", "gone.csv"), ("y.csv", "y.csv")):
        with pytest.raises(UserError, match=f"^{name}: it is a link to {to}, which does not"):
            with_data("train", [name])


@pytest.mark.usefixtures("place")
def test_a_word_longer_than_any_name_of_a_file_is_no_path() -> None:
    names = f"dataset.label_names=[{','.join(f'class_{n}' for n in range(60))}]"
    assert with_data("train", ["dataset=local", names]) == ["dataset=local", names]
    for word in ("x" * 300, f"{'x' * 300}.csv", f"./{'x' * 300}"):
        with pytest.raises(UserError, match=r"there is no such file or folder, and no data set"):
            with_data("train", [word])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["dataset.path=x.csv"], "local"),
        (["dataset.train=x.csv", "dataset.test=y.csv", "fusion=gated"], "local"),
        (["experiment=auto", "dataset.hub=owner/name"], "hub"),
        (["-m", "+dataset.path=x.csv"], "local"),
    ],
)
def test_files_named_by_their_key_alone_have_no_name_or_columns_of_another_data_set(
    words: list[str], name: str
) -> None:
    assert with_data("train", words) == [f"dataset={name}", *words]


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=r8", "dataset.path=x.csv"],
        ["dataset.path=x.csv", "--config-dir", "mine"],
        ["dataset.text=review"],
        ["dataset.path="],
    ],
)
def test_a_data_set_that_is_named_or_may_be_stays(words: list[str]) -> None:
    assert with_data("train", words) == words


@pytest.mark.usefixtures("place")
def test_columns_of_yes_and_no_are_proposed_as_labels_by_a_command_that_runs() -> None:
    texts, marks = tiny_topics(60)
    marks["rock 'n' roll, [live]"] = 0
    marks.loc[:1, "rock 'n' roll, [live]"] = 1
    marks.insert(0, "review", texts)
    marks.assign(id=range(60)).to_csv("marks.csv", index=False)
    with pytest.raises(UserError, match=r"'film', 'trade', 'bank'.* each hold yes or no") as error:
        with_data("plan", ["marks.csv", "backbone=[minilm]"])
    command = shlex.split(str(error.value).rpartition(": ")[2])
    assert command[:3] == ["layerfusion", "plan", "marks.csv"]
    config = load(compose("plan", with_data("plan", command[2:])))
    assert config.dataset.text == "review"
    assert config.dataset.label_columns == [*TOPICS, "rock 'n' roll, [live]"]


def _first_row(folder: Path, labels: tuple[str, str], *more: str, header: str = "") -> Path:
    """A table of 40 rows without a header, or with one, whose labels come in turn."""
    rows = [
        ",".join([labels[n % 2], *(f"{cell} {n}" for cell in more), f"we saw the film number {n}"])
        for n in range(40)
    ]
    file = folder / "rows.csv"
    file.write_text("\n".join([header, *rows] if header else rows))
    return file


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (("class a", "class b"), ()),
        (("topic", "intent"), ()),
        (("__label__bad", "__label__good"), ()),
        (("1", "2"), ("title",)),
    ],
)
def test_a_first_row_whose_words_are_those_of_columns_is_no_header(
    labels: tuple[str, str], more: tuple[str, ...], place: Path
) -> None:
    file = _first_row(place, labels, *more)
    words = with_data("plan", [str(file)])
    with pytest.raises(UserError, match="if the file has no header, its columns go by number") as e:
        load_dataset(load(compose("plan", words)).dataset, LimitConfig(), seed=0, cache=place)
    numbers = re.findall(r"dataset\.\w+=\d", str(e.value))
    config = load(compose("plan", ["dataset=local", f"dataset.path={file}", *numbers]))
    data = load_dataset(config.dataset, config.limit, seed=0, cache=place)
    assert sum(map(len, data.splits.values())) == 40


@pytest.mark.parametrize(
    "first", ["ugly,my review of the film", "ugly,so very dull and long", "greet,we saw a film"]
)
def test_a_first_row_that_reads_like_those_below_is_asked_about(first: str, place: Path) -> None:
    """Though no cell of it is in a row below."""
    file = _first_row(place, ("bad", "good"), header=first)
    words = with_data("plan", [str(file)])
    with pytest.raises(UserError, match="if that is its header, by their names") as e:
        load_dataset(load(compose("plan", words)).dataset, LimitConfig(), seed=0, cache=place)
    said, names = str(e.value).split("; if that is its header, by their names: ")
    numbers = re.findall(r"dataset\.\w+=\d", said)
    for columns, rows in ((numbers, 41), (shlex.split(names), 40)):
        config = load(compose("plan", ["dataset=local", f"dataset.path={file}", *columns]))
        data = load_dataset(config.dataset, config.limit, seed=0, cache=place)
        assert sum(map(len, data.splits.values())) == rows


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("mood,customer remark", ()),
        ("Class,Review", ("Review", "Class")),
        ("rating,What did you see and how was it?", ()),
    ],
)
def test_a_header_of_other_words_stays_one(
    header: str, columns: tuple[str, ...], place: Path
) -> None:
    words = with_data("plan", [str(_first_row(place, ("bad", "good"), header=header))])
    dataset = load(compose("plan", words)).dataset
    assert (dataset.text, dataset.label) == (columns or tuple(header.split(",")[::-1]))
    data = load_dataset(dataset, LimitConfig(), seed=0, cache=place)
    assert sum(map(len, data.splits.values())) == 40


@pytest.mark.usefixtures("place")
def test_a_refused_job_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    frame = _reviews()
    frame.loc[3, "stars"] = None
    frame.to_csv("broken.csv", index=False)
    before = sorted(Path().rglob("*"))
    code, said = run(["train", "broken.csv"], capsys)
    assert code == 2
    assert "row 4: the label is missing" in said
    assert sorted(Path().rglob("*")) == before
    kept = Path("mine")
    kept.mkdir()
    (kept / "notes.txt").write_text("of the user")
    assert run(["train", "broken.csv", "hydra.run.dir=mine"], capsys)[0] == 2
    assert {"notes.txt", "train.log"} <= {one.name for one in kept.iterdir()}
    link = Path("link")
    Path("elsewhere").mkdir()
    link.symlink_to("elsewhere")
    code, said = run(["train", "broken.csv", "hydra.run.dir=link"], capsys)
    assert (code, link.is_symlink()) == (2, True)
    assert "row 4: the label is missing" in said
