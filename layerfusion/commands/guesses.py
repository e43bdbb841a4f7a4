"""`layerfusion train reviews.csv`: from a path on the command line to the keys of a data set."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from layerfusion.assets.files import write_atomically
from layerfusion.assets.paths import find_path, is_hub_id
from layerfusion.assets.source import SourceUnavailable
from layerfusion.commands.arguments import say
from layerfusion.composing.hydra import (
    MULTIRUN,
    WITH_VALUE,
    group_options,
    is_flag,
    split_config_dirs,
)
from layerfusion.composing.own_models import is_config
from layerfusion.config.imports import import_from
from layerfusion.config.job import UNNAMED, DatasetConfig, PathsConfig
from layerfusion.config.options import as_option
from layerfusion.errors import UserError

STANDARD = "-"
"""Stands for the standard input."""
STANDARD_NAME = "standard_input"
"""Name of the data set that was read from the standard input."""
_SHOWN = 12


def with_data(command: str, arguments: Sequence[str]) -> list[str]:
    """Turn a path on the command line into the keys of a data set; other words stay.

    The path is the first word that is neither an override nor a flag: a file, a folder, `-` for the
    standard input, the name of a data set in `conf/dataset`, or `owner/name` on the hub. Columns of
    texts and labels that are not named are guessed, and what was guessed is said in one line.

    Args:
        command: the command, for messages.
        arguments: the command line after it.

    Raises:
        UserError: for a path that does not exist, and where the columns are not clear.
    """
    if "" in arguments:
        raise UserError(f"{command}: an empty word; a path or KEY=VALUE is needed in its place")
    place = _place_of_path(arguments)
    if place is None:
        for word in arguments:
            if "=" in word and os.path.isfile(word):
                raise UserError(
                    f"{word}: it is a file, and a word with = sets a key; ./{word} names it"
                )
        return _of_the_user(arguments)
    word, rest = arguments[place], [*arguments[:place], *arguments[place + 1 :]]
    if (second := _place_of_path(rest)) is not None:
        raise UserError(
            f"{word} and {rest[second]}: a job has one data set; the file of each split is named by"
            f" {as_option('dataset.train', word)} {as_option('dataset.test', rest[second])}"
        )
    named = ("dataset", "dataset.path", "dataset.train", "dataset.hub")
    if other := next((one for one in rest if _own([one]).keys() & set(named)), None):
        raise UserError(f"{word}: the data are named twice, here and by {other}; leave one out")
    if "${" in word and os.path.exists(word):
        raise UserError(
            f"{word}: a name with ${{ in it would be read as that of another key; give it another"
            f" name, or a link: ln -s {shlex.quote(os.path.abspath(word))} NAME"
        )
    folders = split_config_dirs(arguments)[1]
    import_from([*folders, Path()])
    if word == STANDARD:
        path = _keep_standard_input(rest)
        words = [_word("dataset.path", path), _word("dataset.name", STANDARD_NAME)]
        return _with_columns(command, path, ["dataset=local", *words], rest)
    if is_config("dataset", word) and word in group_options("dataset", arguments):
        return [f"dataset={word}", *rest]
    try:
        find_path(word, "dataset")
    except SourceUnavailable:
        if is_hub_id(word) and not os.path.exists(os.path.dirname(word)):
            return ["dataset=hub", _word("dataset.hub", word), *rest]
        raise _nothing_there(word, group_options("dataset", arguments)) from None
    return _with_columns(command, word, ["dataset=local", _word("dataset.path", word)], rest)


def _of_the_user(arguments: Sequence[str]) -> list[str]:
    """Let files that are named by their key alone belong to no data set of ours.

    Else they would have the name, the columns and the class names of the default one. Settings of
    the user's own may name another, and stay as they are.
    """
    own = _own(arguments)
    groups = {"dataset.path": "local", "dataset.train": "local", "dataset.hub": "hub"}
    named = next((group for key, group in groups.items() if own.get(key)), None)
    if named is None or "dataset" in own or split_config_dirs(arguments)[1]:
        return list(arguments)
    return [f"dataset={named}", *arguments]


def _place_of_path(arguments: Sequence[str]) -> int | None:
    """Find the word that names the data, among flags with their values and overrides."""
    value = False
    for place, word in enumerate(arguments):
        named = word == STANDARD or word.startswith(("/", "./", "../", "~/"))
        other = is_flag(word) or "=" in word or re.match(r"[+~{\[]|$", word)
        if not value and (named or not other):
            return place
        value = word in (*WITH_VALUE, "--config-dir", "-cd")
    return None


def _own(words: Sequence[str]) -> dict[str, str]:
    """Return the overrides among words: the key, without the + or ++ before it, and its value."""
    parts = (word.lstrip("+").partition("=") for word in words)
    return {key: value for key, equals, value in parts if equals}


def _with_columns(command: str, path: str, words: Sequence[str], rest: Sequence[str]) -> list[str]:
    """Add the columns of texts and labels to the words of a data set, where they are not usual."""
    from layerfusion.texts.columns import Columns
    from layerfusion.texts.guess import LabelsInColumns, LabelsInLists, likely_columns

    own = _own(rest)
    if "dataset.encoding" not in own and (marked := _marked(path)):
        say(f"{path}: reading it as {marked}, whose mark it begins with")
        own["dataset.encoding"] = marked
        words = [words[0], _word("dataset.encoding", marked), *words[1:]]
    given = {kind: own[f"dataset.{kind}"].strip("'\"") for kind in ("text", "label")
             if f"dataset.{kind}" in own}  # fmt: skip
    several = any(re.search(r"[,(]", value) for value in given.values())
    in_columns = "dataset.label_columns" in own
    named = len(given) + in_columns >= 2
    if several or named or any(key.startswith("dataset.files") for key in own):
        return [*words, *_named_folder(command, words, rest)]
    usual = DatasetConfig("")
    columns = Columns(
        given.get("text", usual.text),
        None if in_columns else given.get("label", usual.label),
        {},
        multilabel=own.get("dataset.multilabel", "").lower() in ("true", "yes", "on", "1"),
        label_separator=own.get("dataset.label_separator", "").strip("'\"") or None,
        group=own.get("dataset.group", "").strip("'\"") or None,
    )
    try:
        likely = likely_columns(
            find_path(path, "dataset"),
            columns,
            given,
            encoding=own.get("dataset.encoding", usual.encoding).strip("'\""),
            reader=own.get("dataset.reader"),
        )
    except (LabelsInLists, LabelsInColumns) as error:
        texts = error.texts if len(error.texts) == 1 else []
        more = [_word("dataset.text", name) for name in texts]
        either = ""
        if isinstance(error, LabelsInColumns):
            either = "; where one of them holds the classes, name it by dataset.label=COLUMN"
            more.append(_word("dataset.label_columns", error.columns))
        elif error.column != columns.label:
            more.append(_word("dataset.label", error.column))
        if isinstance(error, LabelsInLists):
            more.append("dataset.multilabel=true")
        more += _named_standard_input(words)
        whole = shlex.join(["layerfusion", command, path, *more, *rest])
        line = f"{error}{either}; where a text has any number of labels, say so: {whole}"
        raise UserError(line) from error
    except (UserError, OSError):  # the job says what is wrong
        return [*words, *_named_folder(command, words, rest)]
    guessed = [_word(f"dataset.{kind}", names[0]) for kind, names in likely.items() if names]
    unclear = {kind: names for kind, names in likely.items() if len(names) != 1}
    if unclear:
        name = _named_standard_input(words)
        missing = [f"dataset.{kind}=COLUMN" for kind, names in unclear.items() if not names]
        whole = shlex.join(["layerfusion", command, path, *guessed, *missing, *name, *rest])
        raise UserError(f"{path}: {'; '.join(_unclear(*one) for one in unclear.items())}: {whole}")
    if guessed:
        found = " and ".join(
            f"{'texts' if kind == 'text' else 'labels'} from the column {names[0]!r}"
            for kind, names in likely.items()
        )
        others = " ".join(f"dataset.{kind}=COLUMN" for kind in likely)
        say(f"{path}: taking {found} (to choose others: {others})")
    return [*words, *guessed, *_named_folder(command, words, rest)]


def _marked(path: str) -> str | None:
    """Return the encoding that a file's byte-order mark names, unless it is the usual one."""
    from layerfusion.texts.encoding import marked_encoding

    try:
        with find_path(path, "dataset").open("rb") as file:
            marked = marked_encoding(file.read(4))
    except (UserError, SourceUnavailable, OSError):  # the job says what is wrong
        return None
    return None if marked == DatasetConfig("").encoding else marked


def _named_standard_input(words: Sequence[str]) -> list[str]:
    """The name of data from the standard input, whose kept copy a proposed command reads."""
    return [_word("dataset.name", STANDARD_NAME)] if STANDARD_NAME in words[-1] else []


def _named_folder(command: str, words: Sequence[str], rest: Sequence[str]) -> list[str]:
    """Let the folder of a single job begin with the name of its data."""
    if command != "train" or MULTIRUN & set(rest) or any("hydra.run.dir=" in one for one in rest):
        return list(rest)
    own = _own([*words, *rest])
    path, name = own["dataset.path"].strip("'\""), own.get("dataset.name", UNNAMED[0])
    title = re.sub(r"[^\w-]+", "_", DatasetConfig(name.strip("'\""), path=path).title)
    return [*rest, f"hydra.run.dir=${{paths.outputs}}/runs/{title}-${{layerfusion.job:}}"]


def _unclear(kind: str, names: Sequence[str]) -> str:
    what = "texts" if kind == "text" else "labels"
    if not names:
        return f"no column looks like one of {what}; name it"
    return f"{' and '.join(map(repr, names[:4]))} may both hold the {what}; name one"


def _nothing_there(word: str, options: Sequence[str]) -> UserError:
    """Build the error for a word that names no data."""
    if os.path.islink(word):
        return UserError(f"{word}: it is a link to {os.readlink(word)}, which does not exist")
    folder = Path(os.path.expanduser(word)).parent
    beside = [one.name for one in folder.iterdir()] if os.path.isdir(folder) else []
    here = "" if str(folder) == "." else f"{folder}/"
    near = [f"{here}{name}" for name in difflib.get_close_matches(Path(word).name, beside, n=1)]
    near = near or difflib.get_close_matches(word, options, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return UserError(
        f"{word}: there is no such file or folder, and no data set of that name; there are:"
        f" {', '.join(options[:_SHOWN])}{hint}"
    )


def _keep_standard_input(rest: Sequence[str]) -> str:
    """Write what comes from the standard input to a file of the cache, and return its path.

    Raises:
        UserError: if nothing comes.
    """
    from layerfusion.texts.streaming import standard_input

    content = standard_input()
    if not content.strip():
        raise UserError("standard input: it is empty; `layerfusion train - < reviews.csv` reads it")
    cache = _own(rest).get("paths.cache", "")
    start = content.lstrip()[:1]
    suffix = ".parquet" if content[:4] == b"PAR1" else {b"[": ".json", b"{": ".jsonl"}.get(start)
    name = f"{STANDARD_NAME}-{hashlib.sha256(content).hexdigest()[:12]}{suffix or '.csv'}"
    folder = Path(cache.strip("'\"") or PathsConfig().cache) / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, content)
    return str(folder / name)


def _word(key: str, value: str | list[str]) -> str:
    """Write an override as Hydra reads it, without the quotation marks of a shell."""
    return shlex.split(as_option(key, value))[0]
