"""Rules that stand beside the settings that they are about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from layerfusion.config.rules import (
    above,
    at_least,
    between,
    check_inside,
    check_name,
    check_rules,
    one_of,
)
from layerfusion.errors import UserError


@dataclass
class Inner:
    share: float = field(default=0.5, metadata=between(0, 1, ends="[)"))


@dataclass
class Group:
    rows: int = field(default=2, metadata=at_least(2))
    rate: float | None = field(default=None, metadata=above(0))
    names: list[str] = field(
        default_factory=lambda: ["a", "c"], metadata=one_of("a", "b", more=lambda: ["c"])
    )
    inner: Inner = field(default_factory=Inner)
    each: dict[str, Inner] = field(default_factory=dict)
    free: int = -1


@pytest.mark.parametrize(
    ("group", "says"),
    [
        (Group(rows=1), r"group\.rows=1: it must be at least 2"),
        (Group(rate=0.0), r"group\.rate=0\.0: it must be above 0"),
        (Group(rate=float("nan")), r"group\.rate=nan: it must be above 0"),
        (Group(names=["a", "d"]), r"group\.names: there is no 'd'; there are: c, a, b"),
        (Group(inner=Inner(1.0)), r"group\.inner\.share=1\.0: it must lie in \[0, 1\)"),
        (Group(each={"x": Inner(-1)}), r"group\.each\.x\.share=-1: it must lie in \[0, 1\)"),
    ],
)
def test_a_broken_rule_names_key_value_and_what_is_allowed(group: Group, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_rules(group, "group")


def test_settings_that_keep_the_rules_pass() -> None:
    for group in (Group(), Group(rate=1e-9, each={"x": Inner(0)}), replace(Group(), free=-9)):
        check_rules(group, "group")


@pytest.mark.parametrize(
    "name", ["", ".", "..", " ", "../x", "/etc", "a/b", "a\\b", "a\0b", "a\nb", "x" * 121, "é" * 61]
)
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"^lexical: a name must have no /") as error:
        check_name("lexical", name)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("path", ["../x", "/etc", "a/../../b", "a//b", "a/..", "..", "", "a/\0"])
def test_a_path_that_leaves_its_folder_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="sweep"):
        check_inside("sweep", path)


def test_names_and_paths_of_other_kinds_pass() -> None:
    for name in ("minilm", "my.model-v2", "modèle é", "..x", "a b"):
        check_name("backbone", name)
        check_inside("sweep", f"{name}/depth/")
