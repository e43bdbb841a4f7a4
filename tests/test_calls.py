"""A wrong call of the Python face is one line that names the argument and what it takes."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest

import layerfusion
from layerfusion.calls import plain_calls
from layerfusion.errors import UserError
from layerfusion.runs.bundle import Bundle

lf: Any = layerfusion
"""Not typed: a type checker would refuse what these tests try."""


def public_calls() -> dict[str, Callable[..., Any]]:
    """Every function of the Python face, and every method of what a user makes there."""
    found: dict[str, Callable[..., Any]] = {}
    for name in set(lf.__all__) - {"UserError"}:
        found[name] = getattr(lf, name)
    for cls in (lf.LayerFusionClassifier, lf.TextEmbedder, Bundle):
        for key, value in vars(cls).items():
            plain = value.__func__ if isinstance(value, classmethod) else value
            if inspect.isfunction(plain) and not key.startswith("_"):
                found[f"{cls.__name__}.{key}"] = getattr(cls, key)
    return found


PUBLIC = public_calls()


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_an_argument_that_does_not_exist_is_named(name: str) -> None:
    call = PUBLIC[name]
    lacking = [
        one
        for one in inspect.signature(call).parameters.values()
        if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    ]
    with pytest.raises(UserError) as error:
        call(*[None] * len(lacking), nonsense_=1)
    line = str(error.value)
    assert line.startswith(f"{name}: there is no 'nonsense_'; there are: ")
    assert "\n" not in line


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_an_argument_that_is_missing_is_named(name: str) -> None:
    parameters = [
        one.name
        for one in inspect.signature(PUBLIC[name]).parameters.values()
        if one.default is one.empty
        and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        and one.name != "self"
    ]
    if not parameters:
        pytest.skip("it needs none")
    with pytest.raises(UserError) as error:
        PUBLIC[name](
            *[None] * ("." in name and "self" in inspect.signature(PUBLIC[name]).parameters)
        )
    line = str(error.value)
    assert line.startswith(f"{name}: {', '.join(f'{one}=' for one in parameters)} must be given")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: lf.load_dataset(["a"], ["x"], validation=0.2),
            "load_dataset: there is no 'validation'; there are: data, .*; did you mean"
            r" validation_size\?",
        ),
        (
            lambda: lf.load_dataset(["a"], ["x"], "films"),
            r"3 values stand there, and it takes at most 2 of them without a name \(data, labels\);"
            " name the others: name=, text=",
        ),
        (lambda: lf.load_dataset(["a"], ["x"], data=["b"]), "data= is given twice"),
        (lambda: lf.load_dataset(["a"], ["x"], test_size="a"), "test_size= takes a number, found"),
        (lambda: lf.load_dataset(["a"], ["x"], train="5"), "train= takes a whole number or None"),
        (lambda: lf.load_dataset(["a"], ["x"], train=True), "train= takes a whole number or None"),
        (lambda: lf.load_dataset(["a"], 5), "the labels are an object of type int"),
        (lambda: lf.load_dataset(["a"], "x"), "the labels are an object of type str"),
        (lambda: lf.profile_layers("mr", "minilm", score=["probe"]), r"did you mean scores\?"),
        (lambda: lf.train("mr", "minilm", layer="last"), r"train: .*did you mean layers\?"),
        (lambda: lf.train("mr", "minilm", trainer_={"epochs": 3}), r"trainer: .*max_epochs\?"),
        (
            lambda: lf.embed(["a"], "minilm", 2.5),
            "layers= takes a string, a whole number or a list",
        ),
        (lambda: lf.plot_layers(3), "source= takes a string, a path, a DataGroup or a Profile"),
        (lambda: lf.fit(3, num_classes=2), "fit: data= takes a FusionDataModule, found 3"),
        (lambda: lf.FusionClassifier(["3"], 2), "widths= takes a list of whole numbers, found"),
        (lambda: lf.FusionDataModule({"train": 3}, {}), "features of train have to be a list"),
        (lambda: lf.FusionDataModule({}, {}, batch=3), r"did you mean batch_size\?"),
        (
            lambda: lf.LayerFusionClassifier(cache=3).fit(["a", "b"], [0, 1]),
            "LayerFusionClassifier: cache= takes a string or a path, found 3",
        ),
        (
            lambda: lf.TextEmbedder(layer=None).transform(["a"]),
            "TextEmbedder: layer= takes a string, a whole number or a list, found None",
        ),
    ],
)
def test_the_line_says_what_is_accepted(call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_numbers_and_lists_of_numpy_are_taken() -> None:
    @plain_calls()
    def call(number: int, share: float, flag: bool, names: Sequence[str]) -> None: ...

    cast(Any, call)(np.int64(3), np.float32(0.5), np.bool_(True), np.array(["a", "b"]))
    data = lf.load_dataset(
        ["a", "b"] * 20, [0, 1] * 20, label_names=np.array(["x", "y"]), test=np.int64(4)
    )
    assert data.label_names == ("x", "y")
    assert len(data.splits["test"].texts) == 4


def test_a_mistake_inside_of_a_function_stays_what_it_is() -> None:
    @plain_calls()
    def broken(text: str) -> None:
        cast(Any, len)(text, 1)

    with pytest.raises(TypeError, match="len"):
        broken("a")


def test_classes_still_are_copied_pickled_and_made_anew() -> None:
    head = lf.FusionClassifier([3], 2, operator="concat", width=4)
    assert copy.deepcopy(head).hparams == head.hparams
    again = lf.FusionClassifier(**head.hparams)
    assert again.hparams == head.hparams
    config = lf.TrainerConfig(max_epochs=3)
    assert pickle.loads(pickle.dumps(config)) == config
    assert lf.LayerFusionClassifier("minilm", seeds=2).get_params()["seeds"] == 2
