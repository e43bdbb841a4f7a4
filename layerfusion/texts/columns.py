"""The columns that a table is read by, and finding them among those that a file has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from layerfusion.config.options import as_option
from layerfusion.errors import Mendable, short

OFTEN = {
    "text": (
        "text", "txt", "texts", "sentence", "review", "reviewtext", "review_text", "content",
        "body", "message", "tweet", "comment", "document", "description", "utterance", "title",
        "v2",
    ),
    "label": (
        "label", "labels", "class", "category", "target", "sentiment", "stars", "rating", "score",
        "topic", "intent", "tag", "y", "v1",
    ),
}  # fmt: skip
"""What the columns of texts and of labels are often called, in lower case, likeliest first."""

_SHOWN = 40
"""At most this many columns are listed in a message."""
_SENTENCE = 5
"""A name with so many spaces is none either."""
_LONG = 200
"""A name of so many characters is no proposal."""


class NoColumn(Mendable):
    """A table lacks a column that is wanted.

    Args:
        message: the whole line.
        names: of the columns that the table has, and of what lies inside their cells.
        options: those that name the columns which were most likely meant.
    """

    def __init__(self, message: str, names: Sequence[str], options: Sequence[str] = ()) -> None:
        super().__init__(message, *options)
        self.names = list(names)


@dataclass(frozen=True)
class Columns:
    """The columns to read from a table, and a filter of its rows."""

    text: str
    """Name of the text column."""
    label: str | None
    """Name of the label column; none if the rows have no labels."""
    where: Mapping[str, str]
    """Column to value: only rows with all these values are kept."""
    multilabel: bool = False
    """The label column has any number of labels in each row."""
    label_separator: str | None = None
    """What parts these labels where the column holds texts."""
    label_columns: tuple[str, ...] = ()
    """Names of columns of yes and no, one for each label, in the place of `label`."""
    group: str | None = None
    """Name of the column of groups; none if rows have no groups."""
    keep_others: bool = False
    """Keep all columns of the kept rows beside the texts and labels."""
    text_key: str = "dataset.text"
    """Option that names the text column, for messages."""
    encoding_key: str = "dataset.encoding"
    """Option that sets the encoding of the file, for messages."""
    without_label: str = ""
    """What to do about a table without a label column, for messages."""

    @property
    def named(self) -> list[str]:
        """All columns that are named."""
        groups = [] if self.group is None else [self.group]
        return [self.text, *self.of_labels, *groups, *self.where]

    @property
    def of_labels(self) -> list[str]:
        """The columns of labels: one, one for each label, or none."""
        return [*([] if self.label is None else [self.label]), *self.label_columns]

    @property
    def numbered(self) -> bool:
        """True if the columns are given by their numbers, as for a file without a header."""
        return all(name.isdecimal() for name in (self.text, *self.of_labels))

    def are_in(self, names: Sequence[str]) -> bool:
        """Tell whether the columns of texts and labels are among these names."""
        wanted = (self.text, *self.of_labels)
        return all(find_column(name, names) is not None for name in wanted)

    def by_number(self, names: Sequence[str]) -> Columns:
        """Give numbered columns the names of a header. A number without a name stays."""

        def name(number: str) -> str:
            if not number.isdecimal():  # of a group, in a file with names of its columns
                return number
            place = int(number) - 1
            return names[place] if 0 <= place < len(names) else number

        label = None if self.label is None else name(self.label)
        columns = tuple(map(name, self.label_columns))
        group = None if self.group is None else name(self.group)
        return replace(self, text=name(self.text), label=label, label_columns=columns, group=group)

    def among(
        self,
        place: str,
        names: Sequence[str],
        parts: Sequence[str] = (),
        in_lists: Sequence[str] = (),
    ) -> Columns:
        """Give the columns the names that a table has for them: spaces around a name do not count.

        Args:
            place: the table, for messages.
            names: of its columns.
            parts: paths to what lies inside their cells, which may be named as columns are.
            in_lists: such paths through a list, of which they take the first item.

        Raises:
            UserError: for a column that does not exist, naming those that do and the likeliest.
        """
        text = find_column(self.text, names)
        labels = {name: find_column(name, names) for name in self.of_labels}
        lacking = [name for name, found in labels.items() if found is None]
        if text is None or lacking:
            of_label = "dataset.label_columns" if self.label_columns else "dataset.label"
            missing, key = (self.text, self.text_key) if text is None else (lacking[0], of_label)
            whole = {path.partition(".")[0] for path in (*parts, *in_lists)}
            likely = [*(() if in_lists else names), *parts]
            likely = [name for name in likely if name not in (*whole, text) and len(name) < _LONG]
            options = self.meant(likely)
            ways = [asked(options), self.without_label if text is not None else ""]
            if in_lists:
                ways.insert(0, f"in lists there are: {', '.join(map(short, in_lists))}, where 0 is"
                               " the first item; a row has one text and one label")  # fmt: skip
            elif not any(ways) and likely and missing not in self.label_columns:
                ways = [f"choose one, as {as_option(key, likely[0].strip())} does"]
                options = [as_option(key, "COLUMN")]
            found = list(dict.fromkeys([*names, *parts]))
            more = "; ".join(filter(None, ways))
            raise _no_column(place, str(missing), key, found, more, options)
        group = None
        if self.group is not None:
            group = find_column(self.group, names)
            if group is None:
                found = list(dict.fromkeys([*names, *parts]))
                options = [as_option("dataset.group", name) for name in _like(self.group, found)]
                raise _no_column(place, self.group, "dataset.group", found, asked(options), options)
        where = {}
        for name, value in self.where.items():
            found = find_column(name, names)
            if found is None:
                raise _no_column(place, name, "where", names)
            where[found] = value
        return replace(
            self,
            text=text,
            label=self.label and labels[self.label],
            label_columns=tuple(labels[name] or name for name in self.label_columns),
            group=group,
            where=where,
        )

    def meant(self, names: Sequence[str]) -> list[str]:
        """Write the options that choose the columns which were most likely meant."""
        keys = {"text": self.text_key, "label": "dataset.label"}
        likely = self.likely_among(names)
        return [as_option(keys[kind], name.strip()) for kind, name in likely.items()]

    def likely_among(self, names: Sequence[str]) -> dict[str, str]:
        """Give `text` and `label`, where no column has their name, the one most likely meant."""
        wanted = {"text": self.text, "label": self.label}
        found = {
            kind: find_column(name, names) for kind, name in wanted.items() if name is not None
        }
        left = [name for name in names if name.strip() and name not in found.values()]
        left = [name for name in left if len(name) < _LONG and name.count(" ") < _SENTENCE]
        likely = {}
        for kind, there in found.items():
            if there is None and (name := _likely(kind, str(wanted[kind]), left)) is not None:
                left.remove(name)
                likely[kind] = name
        return likely


def asked(options: Sequence[str]) -> str:
    """Ask whether some options were meant; nothing where there are none."""
    return f"did you mean {' '.join(options)}?" if options else ""


def find_column(wanted: str, names: Sequence[str]) -> str | None:
    """Find the column of this name, or else the only one of this name but for spaces around it."""
    if wanted in names:
        return wanted
    alike = [name for name in names if name.strip() == wanted.strip()]
    return alike[0] if len(alike) == 1 else None


def _likely(kind: str, wanted: str, names: Sequence[str]) -> str | None:
    """The column that was most likely meant: of a like name, or of a name that is often used."""
    lower = {name.strip().casefold(): name for name in reversed(names)}
    like = difflib.get_close_matches(wanted.strip().casefold(), list(lower), n=1, cutoff=0.75)
    for form in (wanted.strip().casefold(), *like, *OFTEN[kind]):
        if form in lower:
            return lower[form]
    words = {name: set(re.split(r"[\W_]+", _last(form))) for form, name in lower.items()}
    for form in (wanted.strip().casefold(), *OFTEN[kind]):
        if holders := [name for name in words if form in words[name]]:
            return holders[0] if len(holders) == 1 else None
    return None


def _like(wanted: str, names: Sequence[str]) -> list[str]:
    """The column or path whose name, or whose last step, is most like the one that is wanted."""
    whole = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    steps = {_last(name).casefold(): name for name in reversed(names) if "." in name}
    return whole or [
        steps[step] for step in difflib.get_close_matches(wanted.casefold(), list(steps), n=1)
    ]


def _last(path: str) -> str:
    """The last step of a path into a column."""
    return path.rpartition(".")[2] or path


def _no_column(
    place: str,
    name: str,
    key: str,
    names: Sequence[str],
    way_out: str = "",
    options: Sequence[str] = (),
) -> NoColumn:
    found = ", ".join(map(short, names[:_SHOWN])) or "none"
    found += f", … ({len(names)} in all)" if len(names) > _SHOWN else ""
    more = f"; {way_out}" if way_out else ""
    line = f"{place}: there is no column {name!r} ({key}); there are: {found}{more}"
    return NoColumn(line, names, options)
