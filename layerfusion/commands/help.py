"""`layerfusion COMMAND --help` of the commands that Hydra composes, and `layerfusion explain`."""

from __future__ import annotations

import difflib
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from layerfusion.commands.arguments import ArgumentParser
from layerfusion.config.describe import (
    GROUPS,
    LISTS,
    Key,
    Option,
    default_option,
    find_key,
    glossary,
    keys,
    options,
    written,
)
from layerfusion.errors import UserError, short

_WIDEST = 100
"""Columns of the text, in a terminal that has as many."""


@dataclass(frozen=True)
class About:
    """What the help of a command says beside the groups and keys that all of them have."""

    does: str
    examples: tuple[tuple[str, str], ...]
    """Words after the command, and what they do."""
    groups: tuple[str, ...]
    keys: tuple[str, ...]


_OF_JOBS = tuple(group for group in GROUPS if group not in ("search", "reproduce"))
_MOST_USED = (
    "limit.train", "limit.test", "dataset.text", "dataset.label", "dataset.name", "layers.k",
    "layers.max_layers", "layers.score", "layers.budget.flops_per_text", "layers.pilot",
    "backbone.NAME.path", "backbone.NAME.max_length", "backbone.NAME.template",
    "backbone.NAME.dtype", "fusion.width", "trainer.max_epochs", "extract.device", "seeds", "seed",
    "bundle", "sweep", "paths.cache", "paths.outputs",
)  # fmt: skip
_HYDRAS = {
    "hydra.run.dir": (
        "Folder of the job. Without it, a folder in paths.outputs/runs, named after the data set"
        " and all settings.",
        "reviews.csv hydra.run.dir=outputs/reviews",
    ),
    "hydra/launcher": (
        "What runs the jobs of a sweep: joblib in several processes, ray on a cluster of Ray, or a"
        " plugin of Hydra, such as submitit_slurm. Without it, they run one after the other.",
        "-m r8 layers=last,all sweep=mine hydra/launcher=joblib",
    ),
}
"""Keys of Hydra that a user meets: what they do, and the end of an example."""
ABOUT = {
    "train": About(
        "Train a head on cached layers, judge it on test beside a baseline, and leave a record and"
        " a classifier. With -m, run every combination of the values.",
        (
            ("reviews.csv", "a classifier of your own texts; the columns are guessed and said"),
            ("reviews.csv experiment=auto", "choose layers and fusion on train"),
            ("sms_spam limit.train=500 layers=adaptive", "a shipped data set, a sample of it"),
            ("r8 'backbone=[minilm,smollm2]' layers=all fusion=gated", "fuse two models"),
            ("reviews.csv backbone=owner/name", "a model of the hub, or a folder: backbone=./mine"),
            ("-m r8 layers=last,all fusion=gated,concat sweep=mine", "a sweep of four jobs"),
        ),
        _OF_JOBS,
        _MOST_USED,
    ),
    "plan": About(
        "Show what a job would cost before it runs: texts, tokens, FLOPs, bytes and minutes.",
        (
            ("reviews.csv", "of your own texts, with the default model"),
            ("r8 'backbone=[minilm,smollm2]'", "of two models"),
            ("r8 backbone=./mine layers=adaptive layers.pilot=500", "with a pilot"),
        ),
        _OF_JOBS,
        _MOST_USED,
    ),
    "extract": About(
        "Pass the texts through the models once and cache every layer.",
        (
            ("reviews.csv", "your own texts through the default model"),
            ("r8 'backbone=[minilm,smollm2]'", "two models"),
            ("r8 extract.shard=0 extract.num_shards=4", "the first of four processes"),
        ),
        _OF_JOBS,
        (*_MOST_USED, "extract.token_budget", "extract.shard", "extract.num_shards"),
    ),
    "profile": About(
        "Compute every score of every layer, and the layers that each selection would take.",
        (
            ("reviews.csv", "the default model on your own texts"),
            ("r8 'backbone=[minilm,smollm2]'", "two models"),
            ("r8 profile.scores=[probe,logme]", "two of the scores"),
        ),
        _OF_JOBS,
        (*_MOST_USED, "profile.scores", "profile.judge"),
    ),
    "search": About(
        "Search for the best head and layers with Optuna, judged on validation. The same command"
        " resumes a study.",
        (
            ("reviews.csv search.trials=20", "of your own texts, 20 jobs"),
            ("r8 'backbone=[minilm,smollm2]' seeds=2", "of two models"),
            ("r8 search.seconds=600 search.name=mine", "no new trial after ten minutes"),
        ),
        ("search", *_OF_JOBS),
        ("search.name", "search.trials", "search.seconds", "search.space", *_MOST_USED),
    ),
    "reproduce": About(
        "Run the whole comparison, downloads included, and write a report.",
        (
            ("", "two small models on samples of two data sets"),
            ("plan=true", "say what it would take, and stop"),
            ("reproduce=full", "every backbone that can be had on four whole data sets"),
            ("check=FILE", "compute the figures of FILE again, and compare"),
        ),
        ("reproduce", "logger", "paths", "extract"),
        tuple(f"reproduce.{name}" for name in (
            "backbone", "dataset", "layer_seeds", "fusion_seeds", "max_length", "dtype")),
    ),
}  # fmt: skip
"""Commands that Hydra composes to what their help says."""


def print_help(command: str, arguments: Sequence[str]) -> int:
    """Print the help of a command that Hydra composes.

    Args:
        command: one of `ABOUT`.
        arguments: the command line after it; options in a `--config-dir` of the user's are listed.
    """
    for line in help_lines(command, _folders(arguments), _columns()):
        print(line)
    return 0


def help_lines(command: str, folders: Sequence[Path] = (), columns: int = _WIDEST) -> Iterator[str]:
    """Say what a command does, with examples, the options of each group and the common keys."""
    about = ABOUT[command]
    data = "" if command == "reproduce" else "[DATA] "
    yield f"usage: layerfusion {command} {data}[GROUP=OPTION ...] [KEY=VALUE ...]"
    yield ""
    yield from textwrap.wrap(about.does, columns)
    yield ""
    for words, meaning in about.examples:
        yield from _entry(f"  layerfusion {command} {words}".rstrip(), meaning, 48, columns)
    if data:
        yield ""
        data = "DATA is a file, a folder, - for the standard input, a name of the group dataset, or"
        yield from textwrap.wrap(f"{data} owner/name on the hub.", columns)
    for group in about.groups:
        default = default_option(group)
        yield ""
        yield f"{group}: {GROUPS[group]}" + _default(default)
        for option in options(group, folders):
            yield from _entry(f"  {option.name}", option.meaning, 24, columns, rows=1)
    yield ""
    yield "The keys used most, with their defaults:"
    for name in about.keys:
        key = keys()[name]
        shown = f"{name}={key.default}" if len(key.default) < 12 else name
        yield from _entry(f"  {shown}", _first_sentence(key.meaning), 36, columns, rows=2)
    yield ""
    yield "  -m, --multirun           every combination of values with commas: layers=last,all"
    yield "  --config-dir FOLDER      options of your own, in FOLDER/GROUP/NAME.yaml"
    yield "  --cfg job                print the whole config of the job, and stop"
    yield "  hydra.run.dir=FOLDER     where the job goes"
    yield ""
    yield "Any key, group, option or word: layerfusion explain layers.mass"


# -- explain --------------------------------------------------------------------------------------


def explain(arguments: Sequence[str]) -> int:
    """Run `layerfusion explain WORD`: what a key, a group, an option or a word means."""
    parser = ArgumentParser(
        "layerfusion explain",
        description="What a key, a group, an option or a word of the glossary means.",
        epilog="examples: layerfusion explain layers.mass; layerfusion explain fusion; layerfusion"
        " explain layers=adaptive; layerfusion explain probe",
    )
    parser.add_argument("word", metavar="WORD", nargs="+", help="layers.mass, fusion=gated, gate")
    parser.add_argument(
        "--config-dir", action="append", default=[], metavar="FOLDER", help="options of your own"
    )
    given = parser.parse_args(arguments)
    columns = _columns()
    for line in explained(" ".join(given.word), [Path(one) for one in given.config_dir], columns):
        print(line)
    return 0


def explained(word: str, folders: Sequence[Path] = (), columns: int = _WIDEST) -> list[str]:
    """Explain a word in lines.

    Raises:
        UserError: for a word that is no key, group, option or word of the glossary.
    """
    word = word.strip().lstrip("+~")
    parts = [
        *_of_keys(word, columns),
        *_of_hydra(word, columns),
        *_of_group(word, folders, columns),
        *_of_options(word, folders, columns),
        *_of_glossary(word, columns),
    ]
    if not parts:
        raise _unknown_word(word)
    return [line for number, part in enumerate(parts) for line in ([""] * (number > 0) + part)]


def _unknown_word(word: str) -> UserError:
    every = [*keys(), *GROUPS, *(one.name for group in GROUPS for one in options(group))]
    last = {name.rpartition(".")[2]: name for name in [*every, *glossary()]}
    near = difflib.get_close_matches(word, [*every, *glossary(), *last], n=3)
    meant = " or ".join(dict.fromkeys(last.get(name, name) for name in near))
    return UserError(
        f"explain: there is no {short(word)}; it explains keys, the groups {', '.join(GROUPS)},"
        f" their options, and the words of the glossary"
        + (f"; did you mean {meant}?" if meant else "")
    )


def _of_keys(word: str, columns: int) -> Iterator[list[str]]:
    name = word.partition("=")[0]
    key = find_key(name)
    found = [key] if key else [one for one in keys().values() if one.name.endswith(f".{name}")]
    if not key and (name in GROUPS or "=" in word):
        return
    for one in found:
        shown = f" (default: {one.default or 'none'})"
        lines = [f"{one.name}: a key{shown}", *_indented(one.meaning, columns)]
        if one.allowed:
            lines += _indented(f"values: {', '.join(one.allowed)}", columns)
        elif one.must:
            lines += _indented(f"it must {one.must}", columns)
        setters = _setters(one)
        if setters:
            places = ", ".join(f"conf/{x.group}/{x.name}.yaml ({v})" for x, v in setters[:6])
            lines += _indented(f"set in: {places}", columns)
        lines += _indented(f"example: {_example(one, setters)}", columns)
        yield lines


def _of_hydra(word: str, columns: int) -> Iterator[list[str]]:
    name = word.partition("=")[0]
    if name in _HYDRAS:
        meaning, example = _HYDRAS[name]
        example = f"example: layerfusion train {example}"
        yield [
            f"{name}: a key of Hydra",
            *_indented(meaning, columns),
            *_indented(example, columns),
        ]


def _setters(key: Key) -> list[tuple[Option, str]]:
    """The options that set a key, with the value that they give it."""
    group, _, last = key.name.rpartition(".")
    group = group.partition(".")[0]
    if group not in GROUPS or group == "dataset":
        return []
    return [(one, written(one.sets[last])) for one in options(group) if last in one.sets]


def _example(key: Key, setters: Sequence[tuple[Option, str]]) -> str:
    group = key.name.partition(".")[0]
    command = group if group in ("search", "reproduce") else "train reviews.csv"
    command = f"{command} reviews.csv" if command == "search" else command
    default = key.default if key.default and key.default not in ("null", "[]", "{}") else "VALUE"
    default = setters[0][1] if setters and default == "VALUE" else default
    name = key.name.replace("NAME", (default_option(group) or "[NAME]").strip("[]") or "words")
    option = f" {group}={setters[0][0].name}" if setters and group in ("layers", "fusion") else ""
    value = f"'{name}={default}'" if set("[]{} ") & set(default) else f"{name}={default}"
    return f"layerfusion {command}{option} {value}"


def _of_group(word: str, folders: Sequence[Path], columns: int) -> Iterator[list[str]]:
    if word not in GROUPS:
        return
    default = default_option(word)
    lines = [f"{word}: a group of options{_default(default)}"]
    lines += _indented(GROUPS[word], columns)
    for option in options(word, folders):
        lines += _entry(f"  {option.name}", option.meaning, 24, columns)
    own = [name for name in keys() if name.startswith(f"{word}.")]
    lines += _indented(f"keys: {', '.join(own)}" if own else "", columns)
    first = options(word)[0].name
    value = f"'{word}=[{first}]'" if word in LISTS else f"{word}={default or first}"
    command = word if word in ("search", "reproduce") else "train reviews.csv"
    yield [*lines, *_indented(f"example: layerfusion {command} {value}", columns)]


def _of_options(word: str, folders: Sequence[Path], columns: int) -> Iterator[list[str]]:
    group, equals, name = word.rpartition("=")
    for one in GROUPS:
        if equals and one != group:
            continue
        for option in options(one, folders):
            if option.name != name.strip("[]"):
                continue
            lines = [f"{one}={name}: an option ({option.file.parent.name}/{option.file.name})"]
            lines += [f"  {line}" for line in option.comment.splitlines()]
            sets = [
                f"{key}={value}"
                for key, value in option.sets.items()
                if find_key(f"{one}.{key}") and not isinstance(value, dict) and key != "name"
            ]
            if sets and one not in LISTS:
                lines += _indented(f"it sets: {', '.join(f'{one}.{x}' for x in sets)}", columns)
            value = f"'{one}=[{name}]'" if one in LISTS else f"{one}={name}"
            command = one if one in ("search", "reproduce") else "train reviews.csv"
            command = "train" if one == "dataset" else command
            yield [*lines, *_indented(f"example: layerfusion {command} {value}", columns)]


def _of_glossary(word: str, columns: int) -> Iterator[list[str]]:
    words = {name.lower(): (name, meaning) for name, meaning in glossary().items()}
    lower = word.lower()
    for form in (lower, lower.removesuffix("s"), lower.removesuffix("es")):
        if form in words:
            name, meaning = words[form]
            yield [f"{name}: a word of the glossary", *_indented(meaning, columns)]
            return


# -- text -----------------------------------------------------------------------------------------


def _columns() -> int:
    return min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)


def _folders(arguments: Sequence[str]) -> list[Path]:
    """The folders that `--config-dir` names."""
    named = [word.partition("=")[2] for word in arguments if word.startswith("--config-dir=")]
    pairs = pairwise(arguments)
    return [Path(name) for name in [*named, *(b for a, b in pairs if a in ("--config-dir", "-cd"))]]


def _default(option: str) -> str:
    return f" (default: {option})" if option not in ("", "default") else ""


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _indented(text: str, columns: int) -> list[str]:
    lines = textwrap.wrap(text, columns - 2, break_long_words=False, break_on_hyphens=False)
    return [f"  {line}" for line in lines]


def _entry(start: str, text: str, width: int, columns: int, rows: int = 9) -> list[str]:
    """Put a meaning beside a name, or below one that is too long."""
    if not text:
        return [start]
    room = max(columns - width, 30)
    lines = textwrap.wrap(text, room, max_lines=rows, placeholder=" …", break_on_hyphens=False)
    if len(start) >= width:
        return [start, *(" " * width + line for line in lines)]
    first, *others = lines
    return [f"{start:<{width}}{first}", *(" " * width + line for line in others)]
