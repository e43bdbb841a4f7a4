from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from layerfusion.findings.profiles import sources
from layerfusion.records.profile import LayerProfile, Profile
from layerfusion.report.profile_files import BEST, profile_lines, write_csv
from tests.report.fabricate_profiles import SECONDS, profile, stack, together

LOW = {"log_loss", "attention_entropy"}
LONG = {"a-model-with-a-very-long-name-indeed": stack(12), "b" * 40: stack(3, norm=True)}


def _bare(profile: Profile) -> Profile:
    return replace(profile, pairs=[], selections=[], spearman={}, seconds={}, missing={})


def _ragged(profile: Profile) -> Profile:
    """The first model has no score at all, and one layer of the second lacks most names."""
    layers = list(profile.layers)
    for n, layer in enumerate(layers):
        if layer.backbone == layers[0].backbone:
            layers[n] = replace(layer, scores=dict.fromkeys(layer.scores))
    layers[-1] = replace(layers[-1], scores={"log_loss": 0.5})
    return replace(profile, layers=layers)


CASES = {
    "two models": profile(),
    "judged": profile(poolings=("mean", "last"), judged=True),
    "long names": profile(models=LONG, poolings=("mean", "last"), judged=True),
    "one layer": profile(models={"m": ["0"]}, judged=True),
    "bare": _bare(profile()),
    "several at once": together(profile(judged=True)),
    "several of unnamed": together(profile(models=LONG, poolings=("mean", "last"))),
    "ragged": _ragged(profile()),
    "no scores": _bare(
        replace(profile(), layers=[replace(x, scores={}) for x in profile().layers])
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_lines_fit_a_terminal(case: str) -> None:
    lines = profile_lines(CASES[case])
    assert lines
    assert max(map(len, lines)) <= 100
    assert not any("None" in line or "nan" in line for line in lines)


@pytest.mark.parametrize("case", ["two models", "judged", "ragged"])
def test_the_mark_stands_at_the_best_layer_of_each_column(case: str) -> None:
    shown = CASES[case]
    lines = profile_lines(shown)
    for source, places in sources(shown).items():
        marked = _marked(lines, source, [shown.layers[n].layer for n in places])
        wanted = {
            name: layer
            for name in shown.layers[-2].scores
            if (layer := _naive_best([shown.layers[n] for n in places], name)) is not None
        }
        assert sorted(marked) == sorted(wanted.values())


def _naive_best(layers: list[LayerProfile], name: str) -> str | None:
    best, top = None, None
    for layer in layers:
        value = layer.scores.get(name)
        if value is None:
            continue
        better = top is None or (value < top if name in LOW else value > top)
        if better:
            best, top = layer.layer, value
    return best


def _marked(lines: list[str], source: str, layers: list[str]) -> list[str]:
    """The layer of every marked cell in a source's table."""
    start = lines.index(source) + 3
    rows = lines[start : start + len(layers)]
    assert [row.split()[0] for row in rows] == layers
    return [row.split()[0] for row in rows for _ in range(row.count(BEST))]


def test_best_and_last_layer_of_each_source() -> None:
    layer = profile(models={"m": stack(2)}).layers
    scores = [(0.70, 0.6), (0.81, 0.45), (0.78, 0.5)]
    layers = [
        replace(one, scores={"accuracy": accuracy, "log_loss": loss})
        for one, (accuracy, loss) in zip(layer, scores, strict=True)
    ]
    lines = profile_lines(_bare(replace(profile(models={"m": stack(2)}), layers=layers)))
    row = next(line.split() for line in lines if line.startswith("m "))
    assert row == ["m", "1", "81.0", "0.450", "2", "78.0", "0.500", "+3.0"]


def test_correlations_and_times_stand_under_their_scores() -> None:
    values = {name: (n - 4) / 10 for n, name in enumerate(SECONDS) if name != "accuracy"}
    lines = profile_lines(profile(models={"m": stack(3)}, spearman={"m": values}))
    start = lines.index("How far each score can be believed") + 2
    rows = [line.split() for line in lines[start : start + len(values)]]
    assert {name: float(value.replace("−", "-")) for name, value, _ in rows} == values
    assert {name: float(seconds) for name, _, seconds in rows} == {
        name: seconds for name, seconds in SECONDS.items() if name != "accuracy"
    }


def test_every_selection_says_what_it_takes_and_why() -> None:
    shown = profile(poolings=("mean", "last"))
    text = " ".join(" ".join(profile_lines(shown)).split())
    for one in shown.selections:
        assert f"{one.name}: " in text
        for reason in one.reasons:
            assert reason in text


def test_a_long_selection_is_cut() -> None:
    shown = profile()
    many = replace(
        shown.selections[0], name="all", layers=list(range(20)), reasons=["all layers"] * 20
    )
    text = "\n".join(profile_lines(replace(shown, selections=[many])))
    assert "layer 0 of minilm: all layers" in text
    assert text.count("all layers") == 8
    assert "and 12 more" in text


def test_test_is_shown_only_where_it_was_judged() -> None:
    silent = "\n".join(profile_lines(profile()))
    assert "regret" not in silent
    assert "test" not in silent
    shown = profile(judged=True)
    lines = profile_lines(shown)
    one = shown.selections[0]
    assert one.test is not None
    assert one.regret is not None
    row = next(line for line in lines if line.startswith("last ") and "[" in line)
    numbers = [float(x.strip("[],").replace("−", "-")) for x in row.split()[1:]]
    assert numbers[:3] == pytest.approx(
        [100 * one.test.mean, 100 * one.test.low, 100 * one.test.high], abs=0.051
    )
    assert numbers[3:7] == pytest.approx(
        [100 * x for x in (one.regret.mean, one.regret.low, one.regret.high)]
        + [100 * one.regret.cross_fitted],
        abs=0.051,
    )
    assert numbers[7] == one.regret.p


# -- csv ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_csv_holds_every_number_in_full(case: str, tmp_path: Path) -> None:
    shown = CASES[case]
    write_csv(shown, tmp_path / "layers.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "layers.csv").read_text(), newline="")))
    assert len(rows) == len(shown.layers)
    for row, layer in zip(rows, shown.layers, strict=True):
        assert (row["backbone"], row["layer"], row["pooling"]) == (
            layer.backbone,
            layer.layer,
            layer.pooling,
        )
        for name, value in layer.scores.items():
            assert (float(row[name]) if row[name] else None) == value
        assert float(row["flops_per_text"]) == layer.flops_per_text
        test = (layer.test.mean, layer.test.low, layer.test.high) if layer.test else (None,) * 3
        found = [row[f"test_{what}"] for what in ("accuracy", "low", "high")]
        assert tuple(float(x) if x else None for x in found) == test


def test_csv_quotes_as_rfc_4180_has_it(tmp_path: Path) -> None:
    write_csv(profile(models={'a,"b"': stack(1)}), tmp_path / "layers.csv")
    raw = (tmp_path / "layers.csv").read_bytes()
    assert raw.count(b"\r\n") == raw.count(b"\n") == 3
    assert raw.splitlines()[1].startswith(b'"a,""b""",0,mean,0.0,')
