"""What a held-out figure is worth where rows belong together: phrases of SST-2, by sentence or not.

Run: python -m benchmarks.groups --draws 5

The phrases of the train split of `dataset=sst2` are parts of the sentences of
`dataset=sst2_sentence`, so that one phrase often says what another is. In each draw, a classifier
learns from all phrases of some sentences, once by text and once by group (`fit(groups=)`), and is
tested on the phrases of other sentences. It should be as good there as it says of held-out rows.
Phrases of fewer than three words, and those that stand in several sentences, are left out.

The interval of the gain is over the sentences of all draws, which differ from draw to draw.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import layerfusion as lf
from layerfusion.statistics.intervals import paired_interval

KINDS: dict[str, dict[str, Any]] = {
    "last layer and words, stacked": {"layers": "last", "fusion": "stacked", "lexical": "words"},
    "auto": {"fusion": "auto"},
}
LEAST_WORDS = 3


def phrases(cache: Path) -> pd.DataFrame:
    """Give each phrase with its label and the number of the only sentence that has it."""
    sentences = [
        _words(x) for x in lf.load_dataset("sst2_sentence", cache=cache).splits["train"].texts
    ]
    holders: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for number, words in enumerate(sentences):
        for start in range(len(words) - LEAST_WORDS + 1):
            holders[tuple(words[start : start + LEAST_WORDS])].add(number)
    train = lf.load_dataset("sst2", cache=cache).splits["train"]
    rows = []
    for text, label in dict(zip(train.texts, train.labels.tolist(), strict=True)).items():
        words = _words(text)
        starts = range(len(words) - LEAST_WORDS + 1)
        of_each = [holders.get(tuple(words[n : n + LEAST_WORDS]), set()) for n in starts]
        shared = set.intersection(*of_each) if of_each else set()
        phrase = " ".join(words)
        found = [number for number in shared if phrase in " ".join(sentences[number])]
        if len(found) == 1:
            rows.append((text, label, found[0]))
    return pd.DataFrame(rows, columns=["text", "label", "sentence"])


def _words(text: str) -> list[str]:
    return text.lower().split()


def draw(
    rows: pd.DataFrame, number: int, sentences: int, **settings: Any
) -> dict[str, dict[str, Any]]:
    """Learn from the phrases of some sentences, and test on those of twice as many others."""
    order = np.random.default_rng(number).permutation(np.unique(rows.sentence))
    train = rows[rows.sentence.isin(order[:sentences])]
    test = rows[rows.sentence.isin(order[sentences : 3 * sentences])]
    found: dict[str, dict[str, Any]] = {}
    for name, kind in KINDS.items():
        right = {}
        for how, groups in (("text", None), ("sentence", train.sentence)):
            classifier = lf.LayerFusionClassifier("minilm", seeds=1, **kind, **settings)
            classifier.fit(train.text, train.label, groups=groups)
            table = classifier.leaderboard()
            right[how] = (classifier.predict(test.text) == test.label.to_numpy()).astype(float)
            found[f"{name}, by {how}"] = {
                "held_out": float(table[table.chosen].accuracy.iloc[0]),
                "new_sentences": float(right[how].mean()),
            }
        found[name] = {"gain": right["sentence"] - right["text"], "sentence": test.sentence}
    return found


def report(draws: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Average over draws; the gain has an interval over the sentences of all draws."""
    figures: dict[str, dict[str, float]] = {}
    for name in KINDS:
        for how in ("text", "sentence"):
            own = [one[f"{name}, by {how}"] for one in draws]
            figures[f"{name}, by {how}"] = {
                key: float(np.mean([one[key] for one in own])) for key in own[0]
            }
        gain = np.concatenate([one[name]["gain"] for one in draws])
        group = np.concatenate([one[name]["sentence"] for one in draws])
        found = paired_interval(
            gain, np.zeros(len(gain)), np.zeros(len(gain), np.int64), text_of=group
        )
        figures[f"{name}, gain"] = {
            "mean": found.mean,
            "low": found.low,
            "high": found.high,
            "rows": len(gain),
        }
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, and keep them as JSON where `--json` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=400, help="to learn from")
    parser.add_argument("--cache", type=Path, default=Path("outputs/cache"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows, found = phrases(options.cache), []
    print(f"{len(rows):,} phrases of {rows.sentence.nunique():,} sentences")
    for number in range(options.draws):
        found.append(draw(rows, number, options.sentences, cache=options.cache))
        print(f"draw {number + 1} of {options.draws}", flush=True)
    figures = report(found)
    for name, own in figures.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in own.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
