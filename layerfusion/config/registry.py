"""The parts that LayerFusion has itself, by name: one line each, and nothing is imported for it.

A config names such a part, or one of the user's own by `package.module:name`. Both are imported by
`config.imports.import_object` once a job needs them, so that `--help` and the check of a config
stay free of torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from layerfusion.config.imports import is_import_path
from layerfusion.config.rules import RULE, Rule

SCORES = {
    "probe": "layerfusion.layers.held_out:LOG_LOSS",
    "gradient": "layerfusion.layers.model_scores:GRADIENT",
    "attention_entropy": "layerfusion.layers.model_scores:ATTENTION_ENTROPY",
    "gradient_entropy": "layerfusion.layers.model_scores:GRADIENT_ENTROPY",
    "logme": "layerfusion.layers.transferability:LOGME",
    "h_score": "layerfusion.layers.transferability:H_SCORE",
    "fisher": "layerfusion.layers.transferability:FISHER",
    "effective_rank": "layerfusion.layers.transferability:EFFECTIVE_RANK",
    "accuracy": "layerfusion.layers.held_out:ACCURACY",
}
"""Importance scores that layers can be ranked by; `probe` is the held-out log-loss of a probe."""
SELECTIONS = {
    "last": "layerfusion.layers.selection:LAST",
    "all": "layerfusion.layers.selection:ALL",
    "even": "layerfusion.layers.selection:EVEN",
    "fixed": "layerfusion.layers.selection:FIXED",
    "top_k": "layerfusion.layers.selection:TOP_K",
    "adaptive": "layerfusion.layers.selection:ADAPTIVE",
    "greedy": "layerfusion.layers.selection:GREEDY",
    "sparse": "layerfusion.layers.sparse:SPARSE",
    "loes": "layerfusion.layers.loes:LOES",
}
"""Ways to select the layers of a job."""
MULTI_LAYER_PROBES = {
    "scalar_mix": "layerfusion.layers.multi_layer:SCALAR_MIX",
    "group_lasso": "layerfusion.layers.multi_layer:GROUP_LASSO",
}
"""Probes of several layers at once that a profile may fit."""
POOLINGS = {
    "mean": "layerfusion.embeddings.pooling:MEAN",
    "first": "layerfusion.embeddings.pooling:FIRST",
    "last": "layerfusion.embeddings.pooling:LAST",
    "max": "layerfusion.embeddings.pooling:MAX",
}
"""Ways to bring the token vectors of a text together."""
READERS = {
    ".parquet": "layerfusion.texts.columnar:read_parquet",
    ".arrow": "layerfusion.texts.columnar:read_arrow",
    ".feather": "layerfusion.texts.columnar:read_arrow",
    ".csv": "layerfusion.texts.readers:read_commas",
    ".tsv": "layerfusion.texts.readers:read_tabs",
    ".tab": "layerfusion.texts.readers:read_tabs",
    ".json": "layerfusion.texts.readers:read_json",
    ".jsonl": "layerfusion.texts.readers:read_json_lines",
    ".ndjson": "layerfusion.texts.readers:read_json_lines",
    ".txt": "layerfusion.texts.readers:read_delimited",
    ".data": "layerfusion.texts.readers:read_delimited",
    ".train": "layerfusion.texts.readers:read_delimited",  # as fastText's users name their files
    ".valid": "layerfusion.texts.readers:read_delimited",
    ".test": "layerfusion.texts.readers:read_delimited",
}
"""Suffix of a data file to what reads it. A file of text may have one of `PACKED` after it."""
PACKED = (".gz", ".bz2", ".xz")
"""Suffixes of packed files, after the suffix that says the format."""
BINARY = (".parquet", ".arrow", ".feather")
"""Suffixes of files that hold no text, and are never packed."""


PROTOCOLS = {
    "honest": "layerfusion.runs.honest:HONEST",
    "as_published": "layerfusion.published.protocol:AS_PUBLISHED",
}
"""Ways to train and judge a job."""
PROTOCOL_SETTINGS = {"as_published": "layerfusion.published.settings:check_settings"}
"""Protocol to the check of the settings that it fixes, if it fixes any."""


REPORT_SECTIONS = ("layerfusion.published.report:published_sections",)
"""Sections of the report that come from other rooms than its own."""


def named_in(known: Iterable[str]) -> dict[str, Rule]:
    """Rule of a setting that names one of ours, or one of the user's by its import path."""
    names = tuple(known)
    return {
        RULE: Rule(
            lambda name: name in names or is_import_path(name),
            "",
            lambda: (*names, "package.module:name of your own"),
        )
    }


def require_known(key: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is neither one of ours nor an import path.

    Raises:
        UserError: naming the key, the value and the names that are allowed.

    Example:
        >>> require_known("layers.score", "logme", SCORES)
        >>> require_known("layers.score", "my_scores:margin", SCORES)
        >>> require_known("layers", "middle", SELECTIONS)
        Traceback (most recent call last):
        ...
        layerfusion.errors.UserError: layers: there is no 'middle'; there are: last, all, even, \
fixed, top_k, adaptive, greedy, sparse, package.module:name of your own
    """
    named_in(known)[RULE].check(key, name)


def import_path(key: str, name: str, known: dict[str, str]) -> str:
    """The import path behind a name: ours, or the one that the user gave.

    Raises:
        UserError: for a name that is neither.
    """
    require_known(key, name, known)
    return known.get(name, name)
