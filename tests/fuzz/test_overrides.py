"""Overrides of the command line: a config, or one line that says what is wrong with it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import TrainConfig
from layerfusion.errors import UserError
from tests.fuzz.fuzzing import attempt, examples

KEYS = (
    "dataset", "dataset.path", "dataset.text", "dataset.label_names", "dataset.files",
    "dataset.files.train", "dataset.encoding", "dataset.validation_size", "dataset.sources",
    "dataset.no_such", "backbone", "backbone.minilm.path", "backbone.mine.path", "backbone.x",
    "layers", "layers.fixed", "layers.fixed.minilm", "layers.k", "layers.strengths", "layers.score",
    "fusion", "fusion.name", "fusion.rank", "fusion.among", "fusion._target_", "fusion.x",
    "pooling",
    "pooling.mean", "pooling.mean.pool", "lexical", "trainer", "trainer.max_epochs", "trainer.lr",
    "extract.device", "extract.token_budget", "extract.num_shards", "limit.train", "limit", "seeds",
    "seed", "protocol", "logger", "logger.mode", "paths.cache", "experiment", "hydra.run.dir",
    "hydra/launcher", "hydra.sweep.subdir", "", "a.b.c", ".", "+new", "++layers.new", "~layers",
    "~fusion.name", "no_such", "profile.scores", "import",
)  # fmt: skip
VALUES = (
    "", "1", "-1", "0", "0.5", "1e400", "nan", "null", "true", "no", "[]", "[1,2]", "[a", "{", "{}",
    "{a: 1}", "{a: {b: [null]}}", "'", '"', "'a b'", "a b", "a,b", "a=b", "=", "${seed}", "${",
    "${x}",
    "${oc.env:NO_SUCH}", "${now:%Y}", "\\", "x:y", "os:system", "../..", "/", "~", "é", "\ud800",
    "\n", "\t", "\u2028", "minilm", "[minilm]", "[minilm,minilm]", "gated", "stacked", "auto",
    "fixed",
    "all", "last", "99999999999999999999", "glob(*)", "range(1,3)", "choice(1,2)", "interval(0,1)",
    "x" * 300, "[[[[1]]]]", "@", "#", "!!python/object", "0x10", "1_000", "01", "local", "none",
)  # fmt: skip


def test_an_override_makes_a_config_or_is_refused(counts: Counter[str]) -> None:
    pairs = st.builds("{}{}{}".format, st.sampled_from(KEYS), st.just("="), st.sampled_from(VALUES))
    words = pairs | pairs | st.sampled_from(KEYS) | st.text("ab.=[]{}'\"$+~,: \n", max_size=12)

    @examples(12, share=0.3)
    @given(st.lists(words, min_size=1, max_size=3))
    def run(overrides: list[str]) -> None:
        config = attempt(counts, lambda: load(compose("train", ["dataset=r8", *overrides])))
        assert isinstance(config, UserError | TrainConfig)

    run()
