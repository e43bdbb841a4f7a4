"""Which columns of a table are taken for texts and labels, and when none is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from layerfusion.texts.guess import guess_columns

N = 24
TEXTS = [f"a film that is number {n} of many" for n in range(N)]
TITLES = [f"film {n}" for n in range(N)]
LONG = [f"{text}, and this goes on and on {'word ' * 30}" for text in TEXTS]
CHINESE = [f"这是一部非常好看的电影值得再看一遍{n}" for n in range(N)]
IDS = [str(n) for n in range(N)]
TWO = [str(n % 2) for n in range(N)]
THREE = ["abc"[n % 3] for n in range(N)]
NAMES = [("bad", "good")[n % 2] for n in range(N)]


@pytest.mark.parametrize(
    ("values", "texts", "labels"),
    [
        ({"id": IDS, "review": TEXTS, "stars": TWO}, ["review"], ["stars"]),
        ({"id": IDS, "x": TEXTS, "y2": TWO}, ["x"], ["y2"]),
        ({"stars": TWO, "title": TITLES, "review": LONG}, ["review"], ["stars"]),
        ({"review_text": TEXTS, "product_category": TWO, "lang": THREE}, ["review_text"],
         ["product_category"]),
        ({"question1": TEXTS, "question2": TEXTS, "y": TWO}, ["question1", "question2"], ["y"]),
        ({"title": TITLES, "abstract": LONG, "y": TWO}, ["title", "abstract"], ["y"]),
        ({"review": TEXTS, "sentiment": TWO, "topic": THREE}, ["review"], ["sentiment", "topic"]),
        ({"review": TEXTS, "x": TWO, "z": THREE}, ["review"], ["x", "z"]),
        # numbers and their names stand for each other
        ({"review": TEXTS, "x": TWO, "x_name": NAMES}, ["review"], ["x_name"]),
        ({"review": TEXTS, "id": IDS, "one": ["1"] * N}, ["review"], []),
        ({"id": IDS, "n": [str(n / 7) for n in range(N)], "y": TWO}, [], ["y"]),
        ({"评论": CHINESE, "y": TWO}, ["评论"], ["y"]),
        ({"review": TEXTS, "stars": [n % 5 for n in range(N)]}, ["review"], ["stars"]),
        ({"review": TEXTS, "tags": [["a"], ["b"]] * (N // 2), "y": TWO}, ["review"], ["y"]),
    ],
)  # fmt: skip
def test_columns(values: dict[str, Sequence[object]], texts: list[str], labels: list[str]) -> None:
    assert guess_columns(values, {}) == {"text": texts, "label": labels}


def test_a_column_that_is_known_is_not_guessed_and_not_taken_for_the_other() -> None:
    values = {"a": TEXTS, "b": TWO, "c": THREE}
    assert guess_columns(values, {"label": "c"}) == {"text": ["a"]}
    assert guess_columns(values, {"text": "a", "label": "b"}) == {}
