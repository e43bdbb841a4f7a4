"""Every setting of a job that a user can change, with its type, its default and what it means.

The YAML files under `conf/` give values to these dataclasses; `config.check.load` turns a composed
Hydra config into them and checks it. The origins of files are in `config.assets`, and the commands
that make jobs of their own in `config.commands`. Nothing here imports torch, so `--help` is fast.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from layerfusion.calls import plain_methods
from layerfusion.config.assets import DataSourceConfig, SourceConfig
from layerfusion.config.registry import (
    MULTI_LAYER_PROBES,
    POOLINGS,
    SCORES,
    SELECTIONS,
    named_in,
)
from layerfusion.config.rules import RULE, Rule, a_seed, above, at_least, between, one_of

DTYPES = FLOAT32, _, FLOAT16 = ("float32", "bfloat16", "float16")
QUANTIZED = ("int8", "nf4")
"""Weights of 8 and of 4 bits. The vectors between the matrices are in bfloat16."""
SPREAD = "spread"
"""Device of a model that is spread over all GPUs and, where they are too small, the memory."""
_DEVICES = ("auto", "cpu", "cuda", "cuda:1", "mps", "xpu", SPREAD)
DEVICE = Rule(
    lambda name: (
        name in _DEVICES
        or re.fullmatch(r"(cpu|cuda|mps|xpu|hpu|mtia)(:\d{1,4})?", name) is not None
    ),
    "",
    lambda: _DEVICES,
)
"""The device of a model, by the name that PyTorch has for it."""
LONG_TEXTS = TRUNCATE, WINDOWS, _ = ("truncate", "windows", "auto")
"""What a model does with a text that is longer than it takes at once; `auto` decides on train."""
LEXICAL_FEATURES = ("words", "words and pairs", "characters")
REGRESSION, BAYES = "regression", "bayes"
LEXICAL_LEARNERS = (REGRESSION, BAYES)
HELD_OUT = ("folds", "validation")
STACKED, GATED_STACK, LATE_STACK = STACKS = ("stacked", "gated_stack", "late_stack")
"""A fusion of what the sources' own probes say, in place of an operator on their vectors. The last
one has a trained head as one more member."""
AUTO = "auto"
"""The fusion, its layers and its width are chosen on train."""
ACCURATE, CHEAP = PREFERENCES = ("accurate", "cheap")
"""What `auto` prefers among candidates that held-out rows cannot tell apart."""
LOG_LOSS, ACCURACY, MACRO_F1, MICRO_F1 = OBJECTIVES = (
    "log_loss",
    "accuracy",
    "macro_f1",
    "micro_f1",
)
"""Measures that epochs and fusions can be chosen by."""
NAMED_FROM = 0.5
"""Least probability of a label that is an answer, where a text has any number of labels."""
UNWEIGHTED, BALANCED = CLASS_WEIGHTS = ("none", "balanced")
HONEST = "honest"
LOGGERS = ("wandb", "none")
WANDB_MODES = ("auto", "online", "offline")
NO_UPLOAD, BUNDLE_UPLOAD = UPLOADS = ("none", "bundle")
"""What is uploaded to W&B besides figures, tables and charts."""
STORE_DTYPES = ("auto", "float32", "float16")
STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
"""Values of C that a probe chooses among. The best was between 0.001 and 0.1 for 200 to 7,000 rows,
and 0.1 or 1 for 52 classes."""


UNNAMED = ("local", "hub")
"""Names of `conf/dataset/local.yaml` and `hub.yaml`, which stand for any data."""
GENERAL = ("train", "training")
"""Names of files and folders that say nothing about what they hold."""


@dataclass
class DatasetConfig:
    """Labelled texts: `conf/dataset/NAME.yaml`."""

    name: str
    """Its name in reports."""
    description: str = ""
    """What it is, in a line."""
    sources: list[DataSourceConfig] = field(default_factory=list)
    """Origins of the files, tried in order."""
    path: str | None = None
    """A file or folder of yours; it takes precedence over `sources`."""
    train: str | None = None
    """A file of yours with the training rows; it takes precedence over `path` and `sources`."""
    validation: str | None = None
    """A file of yours with the validation rows, beside `train`."""
    test: str | None = None
    """A file of yours with the test rows, beside `train`."""
    files: dict[str, str] = field(default_factory=dict)
    """The file of the folder `path`, or the part of the hub's data set, that holds each split,
    such as `{train: old.csv, test: new.csv}`. Splits that it leaves out are made from train.
    Not set: files are found by their names."""
    hub: str | None = None
    """A data set on the Hugging Face hub, `owner/name`; it takes precedence over `sources`."""
    revision: str = "main"
    """Commit or branch of the hub data set."""
    subset: str | None = None
    """Configuration name of the hub data set."""
    text: str = "text"
    """Name of the text column."""
    label: str = "label"
    """Name of the label column."""
    label_names: list[Any] = field(default_factory=list)
    """Names of the integer labels 0, 1, …. If empty, the names come from the data (`labels.json` or
    the features of a Hugging Face data set), or are the labels themselves."""
    multilabel: bool = False
    """Whether a text may have any number of labels. A cell of the label column is then a list,
    or a string with a list of JSON or Python in it; any other string is one label, or several
    that `label_separator` parts."""
    label_separator: str | None = field(
        default=None, metadata={RULE: Rule(lambda mark: mark != "", "not be empty")}
    )
    """What stands between the labels of a text, such as `;`."""
    label_columns: list[Any] = field(default_factory=list)
    """Columns of 0 and 1, true and false or yes and no, one for each label, which is called after
    it. They take the place of `label`, and a text has any number of the labels."""
    group: str | None = None
    """Name of a column of groups, such as authors or documents: no split or fold that is made here
    divides the rows of one, and intervals and tests draw them together. A row whose cell is empty
    is in no group. Not set: rows are independent of one another, but for those with the same
    text."""
    encoding: str = "utf-8"
    """Encoding of a csv or tsv file of yours."""
    reader: str | None = None
    """`package.module:name` of a function of yours that reads the files of `path`, `train`,
    `validation` and `test`: from a path to a pandas DataFrame, a dict of columns or a list of rows,
    each a dict."""
    validation_size: float = field(default=0.1, metadata=between(0, 1, ends="()"))
    """Share of train that becomes validation where the data has no validation."""
    test_size: float = field(default=0.2, metadata=between(0, 1, ends="()"))
    """Share of the rows that becomes test where the data has no test."""
    split_seed: int = field(default=0, metadata=a_seed())
    """Seed that draws the splits which the data lacks."""
    dedupe: bool = False
    """Drop texts from train and validation that also occur in test, to the letter, and rows of
    groups that do. Texts that differ in case, punctuation or white space stay, and a note counts
    them."""

    @property
    def has_several_labels(self) -> bool:
        """Tell whether a text has any number of the labels."""
        return self.multilabel or bool(self.label_columns)

    @property
    def title(self) -> str:
        """Name for readers: data of the user's, which have no name, are called after their file.

        A file or folder that is called after a split gives way to the folder it lies in.
        """
        place = self.train or self.path or self.hub
        if self.name not in UNNAMED or not place:
            return self.name
        path = Path(os.path.abspath(os.path.expanduser(place)))
        for part in (path, *path.parents):
            stem = re.sub(r"[^\w-]+", "_", part.name.split(".")[0] or part.name).strip("_")
            if stem and stem.lower().split("-")[0] not in GENERAL:
                return stem
        return self.name


@dataclass
class LimitConfig:
    """Sizes of seeded stratified samples, for a quick look; every result says that it is of one."""

    train: int | None = field(default=None, metadata=at_least(2))
    """Rows of train and validation together. Not set: all rows."""
    test: int | None = field(default=None, metadata=at_least(1))
    """Rows of test. Not set: all rows."""
    per_class: int | None = field(default=None, metadata=at_least(2))
    """Rows of each class of train and validation together, or all rows of a class that has fewer.
    They are drawn from the sample that `train` asks for."""
    draw: int = field(default=0, metadata=at_least(0))
    """Number of the `per_class` sample: each number draws other rows of train; test is the same."""


@dataclass
class BackboneConfig:
    """A frozen pretrained language model: `conf/backbone/NAME.yaml`, nested under its name."""

    description: str = ""
    """What it is, in a line."""
    sources: list[SourceConfig] = field(default_factory=list)
    """Tried in order."""
    path: str | None = None
    """A Hugging Face folder of yours, taken instead of `sources`."""
    dtype: str = field(default="float32", metadata=one_of(*DTYPES, *QUANTIZED))
    """Precision of the forward pass: float32, bfloat16 or float16; or weights of 8 or 4 bits by
    bitsandbytes: int8 or nf4. Each has its own vectors in the cache."""
    max_length: int | None = field(default=512, metadata=at_least(4))
    """Tokens of a text, special ones included; never more than the model has positions."""
    truncation_side: str = field(default="right", metadata=one_of("right", "left"))
    """The end of a long text that is cut."""
    template: str = "{text}"
    """A prompt around the text."""
    long_texts: str = field(default=TRUNCATE, metadata=one_of(*LONG_TEXTS))
    """truncate; windows: overlapping windows pooled over all real tokens of the text; or auto:
    windows where many texts of train are too long, unless they would cost too much. Where it is
    not set, `long_texts` of the job holds."""
    window_overlap: int = field(default=64, metadata=at_least(0))
    """Tokens that one window repeats of the one before, as context; with auto, an eighth of a
    window at most."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Where it is false, a model that needs such code is
    refused."""
    num_layers: int | None = None
    """Number of blocks; only for the plan of a model that is not on this machine yet."""
    width: int | None = None
    """Width of the hidden states; only for the plan, as above."""
    endpoint: str | None = None
    """Address of a server whose vectors are taken in place of a model's, as OpenAI's API gives
    them: http://localhost:8000/v1, to which /embeddings is added."""
    model: str | None = None
    """Name of the model that the endpoint is asked for."""
    dimensions: int | None = field(default=None, metadata=at_least(1))
    """Width that the endpoint is asked for, or that a pipeline's vectors are cut to. Not set:
    the model's own width."""
    token_variable: str | None = None
    """Name of the environment variable that holds the token of the endpoint, which is kept
    nowhere."""
    batch: int = field(default=32, metadata=at_least(1))
    """Most texts of a request to the endpoint, or of a pass of the pipeline."""
    timeout: float = field(default=60.0, metadata=above(0))
    """Seconds without a sign of the endpoint after which a request fails: to connect, until its
    answer begins, and between two parts of it."""
    vectors: str | None = None
    """A file whose vectors are taken in place of a model's: a table with a column of them beside
    the texts, a folder of such tables, or a .npy, which has a row for each one of `rows`."""
    column: str | None = None
    """Column of the table that holds the vectors, such as a list column of parquet."""
    rows: str | None = None
    """The table whose texts the rows of a .npy belong to."""

    pipeline: str | None = None
    """A pipeline of sentence-transformers whose vectors are taken as that library gives them, as
    one layer: a folder, or `owner/name` on the hub, also `owner/name@COMMIT`."""

    @property
    def is_given(self) -> bool:
        """Tell whether its vectors are computed elsewhere, and not by a model of ours."""
        return any(place is not None for place in (self.endpoint, self.vectors, self.pipeline))

    def moved_to(self, folder: str) -> BackboneConfig:
        """Return the same model, the files of which lie in another folder."""
        return replace(self, **{"path" if self.pipeline is None else "pipeline": folder})


@dataclass
class PoolingConfig:
    """A way to pool the token vectors of a layer: `conf/pooling/NAME.yaml`."""

    pool: str = field(default="mean", metadata=named_in(POOLINGS))
    """mean, first, last or max, over real tokens only, or `package.module:name` of a function of
    yours."""
    skip_first: bool = False
    """Leave the first token out of a mean or max, since decoders have huge values there."""


@dataclass
class LexicalConfig:
    """A lexical source, TF-IDF of the texts: `conf/lexical/NAME.yaml`, nested under its name."""

    description: str = ""
    """What it is, in a line."""
    features: str = field(default="words", metadata=one_of(*LEXICAL_FEATURES))
    """Features to count: words, words and pairs, or characters."""
    learner: str = field(default=REGRESSION, metadata=one_of(*LEXICAL_LEARNERS))
    """What learns from the counts for a stack: regression (logistic), or bayes (naive Bayes)."""
    width: int = field(default=512, metadata=at_least(2))
    """Width of the dense vector. It is smaller if train has fewer texts or words."""
    max_features: int = field(default=50_000, metadata=at_least(2))
    """Number of words or runs of characters to count, the most frequent ones."""
    basis_rows: int = field(default=4096, metadata=at_least(2))
    """Texts of train used to compute the dense directions; word weights are learned from all."""


@dataclass
class ExtractConfig:
    """Settings of the pass of every text through every model."""

    device: str = field(default="auto", metadata={RULE: DEVICE})
    """Device of the models: auto, cpu, cuda, cuda:1, mps or xpu; or spread: over all GPUs and,
    where these are too small for a model, the memory of the machine."""
    token_budget: int | None = field(default=None, metadata=at_least(1))
    """Tokens of one batch, padding included. Not set: a short calibration finds the fastest
    number and remembers it."""
    shard_tokens: int | None = field(default=None, metadata=at_least(1))
    """A shard, which is a file of vectors, is closed after about this many tokens; a job that
    is killed loses at most one shard. Not set: as many as take some seconds, 16,384 tokens on a
    CPU and up to 524,288 on a GPU."""
    shard_texts: int | None = field(default=None, metadata=at_least(1))
    """A shard is closed after this many texts at the latest, and no batch of a GPU has more. Not
    set: after 1,024 texts on a CPU and 16,384 on a GPU, whose batches are limited by their tokens
    alone."""
    store_dtype: str = field(default="auto", metadata=one_of(*STORE_DTYPES))
    """Precision of the vectors on disk: float32; float16, for the layers whose values fit; or auto:
    that of the model's pass, so that a classifier finds for a text again what it has learned."""
    shard: int = 0
    """Number of this process among `num_shards`; the hash of a text says which process takes it."""
    num_shards: int = field(default=1, metadata=at_least(1))
    """Number of processes that share the texts."""


@dataclass
class BudgetConfig:
    """Limits on the cost of the selected layers. Not set: no limit."""

    max_layer: int | None = field(default=None, metadata=at_least(0))
    """Highest layer of each model that may be selected; the final norm counts as the last block."""
    flops_per_text: float | None = field(default=None, metadata=at_least(0))
    """FLOPs of the forward passes up to the highest selected layer of each model, summed over the
    models, as a mean over the texts of train."""
    ms_per_text: float | None = field(default=None, metadata=at_least(0))
    """Milliseconds of the same passes, as measured when this machine extracted the texts."""


@dataclass
class LayersConfig:
    """The selection of the layers that become sources: `conf/layers/NAME.yaml`."""

    name: str = "last"
    """last, all, even, fixed, top_k, adaptive, greedy, sparse, loes, or `package.module:name` of
    one of yours."""
    fixed: dict[str, list[Any]] = field(default_factory=dict)
    """Backbone to its layers, for `fixed`: indices (0 is the input of the first block, -1 the last
    layer), or `norm`."""
    score: str = field(default="probe", metadata=named_in(SCORES))
    """The score that layers are ranked by, or `package.module:name` of a score of yours."""
    k: int = field(default=4, metadata=at_least(1))
    """Number of layers that `top_k` takes, and `even` of each backbone."""
    max_layers: int = field(default=8, metadata=at_least(1))
    """Largest number of layers that `adaptive`, `greedy` and `sparse` take."""
    mass: float = field(default=0.95, metadata=between(0, 1))
    """`adaptive` stops once the layers taken, with their near-duplicates, have this share of all
    weight."""
    least_gain: float = field(default=0.5, metadata=at_least(0))
    """`greedy` stops once the best layer's gain is at most this many of its standard errors."""
    max_similarity: float = field(default=0.95, metadata=between(0, 1))
    """A layer whose linear CKA with a better one reaches this is a near-duplicate; 1 keeps all."""
    held_out: str = field(default="folds", metadata=one_of(*HELD_OUT))
    """The held-out rows that layers are judged on: `folds` of train, or `validation`. With
    validation, scores that hold no rows out are computed on train and validation together."""
    folds: int = field(default=5, metadata=at_least(2))
    """Number of folds; fewer, with a note, if the largest class has fewer different texts, or if
    fewer groups can be held out."""
    strengths: list[float] = field(default_factory=lambda: list(STRENGTHS), metadata=above(0))
    """Values of C, the inverse strength of the regularisation, that each probe chooses among. By
    default, larger ones are tried too where the largest is the best."""
    sample: int = field(default=256, metadata=at_least(1))
    """Number of texts of train for the scores that pass texts through the model."""
    gradient_weight: float = field(default=0.5, metadata=between(0, 1))
    """Weight of the gradient in `gradient_entropy`, in [0, 1]; attention entropy has the rest."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    pilot: int | None = field(default=None, metadata=at_least(20))
    """Number of rows of train to select layers on, before the other texts are extracted up to these
    layers only, which saves time with large models. It grows until the selection is stable. Not
    set: every layer of every text is extracted."""


@plain_methods
@dataclass
class FusionConfig:
    """The operator that fuses the sources, and the head on it: `conf/fusion/NAME.yaml`.

    In a YAML file and on the command line the operator's own arguments stand beside these keys:
    `fusion=gated fusion.width=64 fusion.temperature=2`. In Python they have a place of their own:

    >>> FusionConfig("gated", width=64, arguments={"temperature": 2.0}).width
    64
    """

    name: str = "gated"
    """An operator, `stacked`, `gated_stack`, `late_stack`, or `auto`."""
    target: str = ""
    """The operator's class, `package.module.Class`, which is `_target_` in its YAML file. Empty:
    the class that LayerFusion has under `name`."""
    width: int = field(default=256, metadata=at_least(1))
    """Width of the fused vector, or of the projected sources where the two differ."""
    dropout: float = field(default=0.3, metadata=between(0, 1, ends="[)"))
    """Share of the fused vector that is dropped in training, before the classification layer."""
    entropy_penalty: float = field(default=0.0, metadata=at_least(0))
    """Factor of the gates' mean entropy in the training loss. Above 0, gates choose more sharply;
    operators without gates ignore it."""
    residual: bool = False
    """Classify by the projected sources too, beside the fused vector. Operators that give the
    classes themselves, such as `late`, cannot do that."""
    match_capacity: bool = False
    """Choose the width so that the head has as many parameters as `concat` at `width`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """The operator's own arguments. With `auto`: those of all operators that it tries."""
    among: list[str] | None = None
    """Names of the operators and stacks that `auto` chooses among. Without a list, these are
    `stacked` and, where a text may have several labels, `late_stack`."""
    widths: list[int] = field(default_factory=lambda: [64, 256], metadata=at_least(1))
    """Widths that `auto` tries each operator with."""
    members: int | None = field(default=None, metadata=at_least(1))
    """Most sources that `auto` fuses. Not set: no limit."""
    prefer: str = field(default=ACCURATE, metadata=one_of(*PREFERENCES))
    """What `auto` takes: `accurate`, the stack of the most layers unless another candidate is
    surely better, or `cheap`, the one with the fewest FLOPs a text within a standard error of
    that."""


@plain_methods
@dataclass
class TrainerConfig:
    """Training of a head: `conf/trainer/NAME.yaml`.

    >>> TrainerConfig(max_epochs=5).learning_rate
    0.001
    """

    max_epochs: int = field(default=100, metadata=at_least(1))
    """Epochs after which training ends at the latest."""
    patience: int = field(default=10, metadata=at_least(1))
    """Epochs without a better validation log-loss before training ends."""
    batch_size: int = field(default=64, metadata=at_least(1))
    """Rows of a training batch."""
    learning_rate: float = field(default=1e-3, metadata=above(0))
    """Learning rate of AdamW."""
    weight_decay: float = field(default=1e-2, metadata=at_least(0))
    """Weight decay of AdamW."""
    accelerator: str = field(default="cpu", metadata=one_of("cpu", "gpu", "mps", "auto"))
    """Where the head is trained: cpu, gpu, mps or auto. Small heads are fastest on a CPU."""
    devices: int = 1
    """Always 1: a head is too small to share."""


@dataclass
class LoggerConfig:
    """Experiment tracking: `conf/logger/NAME.yaml`."""

    name: str = "wandb"
    """wandb, or none for no tracking."""
    project: str | None = None
    """Project of W&B. Not set: that of WANDB_PROJECT, or else layerfusion."""
    entity: str | None = None
    """User or team of W&B. Not set: that of WANDB_ENTITY, or else of the API key."""
    mode: str = "auto"
    """auto: as WANDB_MODE and WANDB_DISABLED say, or else online where an API key is found and
    offline elsewhere; online; offline."""
    group: str | None = None
    """Name that the runs of a sweep share. Not set: that of WANDB_RUN_GROUP, or else the
    sweep's folder; single jobs have no group."""
    tags: list[str] = field(default_factory=list)
    """Tags of yours. Not set: those of WANDB_TAGS."""
    code: bool = True
    """Keep LayerFusion's source code with the first run of each sweep, which takes about a
    tenth of a second."""
    upload: str = NO_UPLOAD
    """none: the classifier is not uploaded, and the artifacts of a run refer to files on this
    machine; bundle: the classifier is kept, in a sweep too, and uploaded."""
    texts: bool = False
    """Show the texts of test in the table of predictions. They leave this machine."""


@dataclass
class PathsConfig:
    """Where things are kept: `conf/paths/NAME.yaml`."""

    cache: str = "outputs/cache"
    """Assets, embeddings and baselines; safe to share and to delete."""
    outputs: str = "outputs"
    """Folder of all jobs, sweeps, searches and profiles."""


PROFILED_SELECTIONS = ("top_k", "adaptive", "greedy", "sparse", "even")
"""The selections that a profile compares where `profile.selections` says nothing."""


@dataclass
class ProfileConfig:
    """Settings of `layerfusion profile`."""

    scores: list[str] = field(
        default_factory=lambda: [s for s in SCORES if s != "accuracy"], metadata=named_in(SCORES)
    )
    """Scores to compute, by default all (`probe` gives `accuracy` as well). `package.module:name`
    is a score of your own. What a model or labels of any number do not give is left out, with the
    reason."""
    selections: list[str] = field(
        default_factory=lambda: list(PROFILED_SELECTIONS), metadata=named_in(SELECTIONS)
    )
    """Selections to compare, beside the last layer and the one layer that each score ranks first:
    names in `conf/layers`, or a `package.module:name` of your own. `even` and `loes` take about as
    many layers as `adaptive`."""
    multi_layer: list[str] = field(default_factory=list, metadata=named_in(MULTI_LAYER_PROBES))
    """Probes of several layers at once to fit: `scalar_mix`, `group_lasso`, or a
    `package.module:name` of your own. By default no such probe is fitted, as with many wide
    layers they take longer than all else."""
    judge: bool = False
    """After all selections are made, evaluate them on test: the accuracy of every layer, and the
    regret of every selection. This is for studies of the scores; nothing may be chosen by it."""


@dataclass
class TrainConfig:
    """One job: a data set, some backbones, their layers, one fusion."""

    dataset: DatasetConfig
    backbone: dict[str, BackboneConfig] = field(default_factory=dict)
    pooling: dict[str, PoolingConfig] = field(default_factory=dict)
    lexical: dict[str, LexicalConfig] = field(default_factory=dict)
    """Lexical sources beside the layers of the backbones."""
    layers: LayersConfig = field(default_factory=LayersConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    limit: LimitConfig = field(default_factory=LimitConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    long_texts: str = TRUNCATE
    """What the models do with texts that are too long for them: truncate cuts them, windows
    reads them whole in overlapping windows, auto takes windows where many texts are too long
    and the cost is bounded. A model with a `backbone.NAME.long_texts` of its own keeps that."""
    objective: str = LOG_LOSS
    """Measure by which epochs and fusions are chosen: log_loss, accuracy, macro_f1 or micro_f1."""
    class_weights: str = UNWEIGHTED
    """none: classes are as frequent as train has them; balanced: classify as if all were
    equally frequent."""
    protocol: str = HONEST
    """honest; or as_published, which does what published scripts do, such as choosing the epoch
    by test. Its figures have names of their own and stand in no table beside honest ones."""
    bundle: bool | None = None
    """Keep the classifier in the job's folder, for `layerfusion predict`. Not set: it is kept,
    but for the jobs of a sweep."""
    by_folds: bool | None = None
    """Judge the job on folds of train too, `layers.folds` of them: without each fold, its
    layers, its fusion and one head are fitted anew. Jobs are compared by that figure where
    validation has fewer than 200 rows with different texts, or of different groups. Not set: only
    in a sweep with so few, and not for jobs with a pilot or a time limit."""
    time_limit: float | None = field(default=None, metadata=above(0))
    """Seconds that the job may take, from the start of the command. Not set: no limit. Models,
    candidates of `auto` and seeds that would not be ready in time are left out, and the record
    names them. A step that has begun is never interrupted."""
    sweep: str = "main"
    """Name of the folder that the jobs of a sweep share, and of their W&B group."""
    seed: int = field(default=0, metadata=a_seed())
    """First seed of the training runs; also draws the samples of `limit`."""
    seeds: int = 6
    """Number of training runs, with seeds `seed`, `seed` + 1, …"""


def _every_head() -> dict[str, Any]:
    """Keys and defaults of every head, which a file in `conf/fusion/` need not repeat."""
    keys = asdict(FusionConfig())
    return {key: keys[key] for key in keys if key not in ("target", "arguments")}


UNSET = "???"
"""What OmegaConf holds in the place of a value that no file and no override gives."""


@dataclass
class ComposedConfig(TrainConfig):
    """The config that Hydra composes, before `load` checks it.

    Two groups are plain dicts here: Hydra can neither set keys of a new backbone in a typed dict,
    nor take an operator's own arguments beside the keys that every head has. The selection has no
    name yet: a file of the user's that gives none must not mean the default.
    """

    backbone: dict[str, Any] = field(default_factory=dict)
    layers: LayersConfig = field(default_factory=lambda: LayersConfig(name=UNSET))
    fusion: Any = field(default_factory=_every_head)
