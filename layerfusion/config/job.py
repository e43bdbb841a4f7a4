"""Every setting of a job that a user can change, with its type, its default and what it means.

The YAML files under `conf/` give values to these dataclasses; `settings.load` turns a composed
Hydra config into them and checks it. Where files come from is in `asset_config`, commands that make
jobs of their own in `command_config`. Nothing here imports torch, so that `--help` stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from layerfusion.config.assets import DataSourceConfig, SourceConfig

DTYPES = ("float32", "bfloat16", "float16")
LONG_TEXTS = ("truncate", "windows")
POOLS = ("mean", "first", "last", "max")
PLAIN = ("last", "all", "fixed")
"""Selections that look at no data."""
SCORED = ("top_k", "adaptive", "greedy")
"""Selections that look at the labels of train."""
SELECTIONS = (*PLAIN, *SCORED)
SCORES = (
    "probe",
    "accuracy",
    "gradient",
    "attention_entropy",
    "gradient_entropy",
    "logme",
    "h_score",
    "fisher",
    "effective_rank",
)
"""What a selection may rank layers by; `probe` is its held-out log-loss."""
LEXICAL_FEATURES = ("words", "words and pairs", "characters")
HELD_OUT = ("folds", "validation")
OPERATORS = (
    "gated",
    "concat",
    "sum",
    "mean",
    "hadamard",
    "matmul",
    "quaternion",
    "moe",
    "scalar_mix",
    "cooccurrence",
    "attention",
    "late",
)
STACKED = "stacked"
"""A fusion of what the sources' own probes say, in place of an operator on their vectors."""
AUTO = "auto"
"""The fusion, its layers and its width are chosen on train."""
HONEST = "honest"
AS_PUBLISHED = "as_published"
PROTOCOLS = (HONEST, AS_PUBLISHED)
LOGGERS = ("wandb", "none")
WANDB_MODES = ("auto", "online", "offline")
ACCELERATORS = ("cpu", "gpu", "mps", "auto")
STORE_DTYPES = ("auto", "float32")
STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
"""C of a probe: on 200 to 7,000 rows the best lay between 0.001 and 0.1, on 52 classes at 0.1 or
1."""


@dataclass
class DatasetConfig:
    """Labelled texts: `conf/dataset/NAME.yaml`."""

    name: str
    description: str = ""
    sources: list[DataSourceConfig] = field(default_factory=list)
    """Tried in order."""
    path: str | None = None
    """A file or folder of the user's, taken instead of `sources`."""
    train: str | None = None
    """A file of the user's with the training rows, taken instead of `path` and `sources`."""
    validation: str | None = None
    test: str | None = None
    hub: str | None = None
    """A data set on the Hugging Face hub, taken instead of `sources`."""
    revision: str = "main"
    subset: str | None = None
    """Configuration name of the hub data set."""
    text: str = "text"
    """Name of the text column."""
    label: str = "label"
    """Name of the label column."""
    label_names: list[str] = field(default_factory=list)
    """Names of the integer labels 0, 1, …; empty: as the data names them (`labels.json`, the
    features of a Hugging Face data set), else the labels themselves."""
    encoding: str = "utf-8"
    """Of the user's csv or tsv files."""
    validation_size: float = 0.1
    """Share of train that becomes validation where the data has none."""
    test_size: float = 0.2
    """Share of the rows that becomes test where the data has none."""
    split_seed: int = 0
    dedupe: bool = False
    """Drop from train the texts that also occur in test."""


@dataclass
class LimitConfig:
    """Seeded stratified samples, for a quick look; the result says that it is one."""

    train: int | None = None
    """Rows of train and validation together."""
    test: int | None = None
    per_class: int | None = None
    """Rows of each class of train and validation together, or all where a class has fewer; drawn
    from what `train` leaves."""
    draw: int = 0
    """Which sample of `per_class`: another number draws other rows of train, and the same test."""


@dataclass
class BackboneConfig:
    """A frozen pretrained language model: `conf/backbone/NAME.yaml`, nested under its name."""

    description: str = ""
    sources: list[SourceConfig] = field(default_factory=list)
    """Tried in order."""
    path: str | None = None
    """A Hugging Face folder of the user's, taken instead of `sources`."""
    dtype: str = "float32"
    """Precision of the forward pass: float32, bfloat16 or float16."""
    max_length: int | None = 512
    """Tokens of a text, special ones included; never more than the model has positions."""
    truncation_side: str = "right"
    template: str = "{text}"
    """A prompt around the text."""
    long_texts: str = "truncate"
    """truncate, or windows: overlapping windows pooled over all real tokens of the text."""
    window_overlap: int = 64
    """Tokens that one window repeats of the one before, as context."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Off: such models are refused."""
    num_layers: int | None = None
    """Number of blocks; only for the plan of a model that is not on this machine yet."""
    width: int | None = None
    """Width of the hidden states; only for the plan, as above."""


@dataclass
class PoolingConfig:
    """How a layer's token vectors become one: `conf/pooling/NAME.yaml`."""

    pool: str = "mean"
    """mean, first, last or max, over real tokens only."""
    skip_first: bool = False
    """Leave the first token out of a mean or max (decoders park huge values on it)."""


@dataclass
class LexicalConfig:
    """TF-IDF of the texts as a source of its own: `conf/lexical/NAME.yaml`, under its name."""

    description: str = ""
    features: str = "words"
    """words, words and pairs, or characters."""
    width: int = 512
    """Width of the dense vector; less where train has fewer texts or words."""
    max_features: int = 50_000
    """Words or runs of characters that are counted, the most frequent ones."""
    basis_rows: int = 4096
    """Texts of train that the dense directions are found from; the counts learn from all."""


@dataclass
class ExtractConfig:
    """The pass of every text through every model."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    token_budget: int | None = None
    """Tokens of one batch, padding included; none: found by a short calibration and kept."""
    shard_tokens: int | None = None
    """Tokens of the texts that a kill may lose at most, and that a shard is closed by; none: some
    seconds of work, 16,384 on a CPU and up to 524,288 on a GPU."""
    shard_texts: int = 1024
    """A shard is closed after as many texts at the latest."""
    store_dtype: str = "auto"
    """auto: float16 on disk where a layer's largest value allows it, else float32."""
    shard: int = 0
    """This process takes the texts whose hash falls to `shard` of `num_shards`."""
    num_shards: int = 1


@dataclass
class BudgetConfig:
    """The most that the selected layers may cost; layers above it are not looked at."""

    max_layer: int | None = None
    """Highest layer of each model; its final norm counts as its last block."""
    flops_per_text: float | None = None
    """Forward passes up to the highest selected layer of each model, summed over the models; mean
    over the texts of train."""
    ms_per_text: float | None = None
    """The same in milliseconds, as measured when this machine extracted the texts."""


@dataclass
class LayersConfig:
    """Which layers become sources of the fusion: `conf/layers/NAME.yaml`."""

    name: str = "last"
    """last, all, fixed, top_k, adaptive or greedy."""
    fixed: dict[str, list[Any]] = field(default_factory=dict)
    """Backbone to its layers for `fixed`: indices (0 = what enters the first block), -1 and the
    like counted from the last, or `norm`."""
    score: str = "probe"
    """What `top_k` and `adaptive` rank layers by."""
    k: int = 4
    """How many layers `top_k` takes."""
    max_layers: int = 8
    """How many layers `adaptive` and `greedy` take at most."""
    mass: float = 0.95
    """`adaptive` stops when the layers taken, and those like them, hold this share of weight."""
    least_gain: float = 0.5
    """`greedy` stops when a layer gains no more than so many standard errors of its gain."""
    max_similarity: float = 0.95
    """A layer is a near-duplicate of a better one from this linear CKA on; 1 keeps all."""
    held_out: str = "folds"
    """What a layer is judged on: folds of train, or the validation split. Scores without held-out
    rows see validation too where it is the judge."""
    folds: int = 5
    strengths: list[float] = field(default_factory=lambda: list(STRENGTHS))
    """Inverse strengths C of the regularisation that each layer's probe chooses among."""
    sample: int = 256
    """Texts of train that the scores which need the model itself are taken over."""
    gradient_weight: float = 0.5
    """Of the gradient in `gradient_entropy`; the rest is the attention's."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    pilot: int | None = None
    """Choose on as many rows of train, extract the rest up to the chosen layers only; it grows by
    itself until the choice is stable. None: everything is extracted."""


@dataclass
class FusionConfig:
    """The operator that fuses the sources, and the head on it: `conf/fusion/NAME.yaml`."""

    name: str = "gated"
    """An operator (see `OPERATORS`), `stacked`, or `auto`."""
    width: int = 256
    """Width of the fused vector, or of the projected sources where the two differ."""
    dropout: float = 0.3
    """On the fused vector, before the classification layer."""
    temperature: float = 1.0
    """Of the softmax of `gated`."""
    source_dropout: float = 0.0
    """Chance that `gated` leaves a source out of a training example; one always stays."""
    entropy_penalty: float = 0.0
    """Of the gates' mean entropy, added to the training loss; it makes gates choose."""
    residual: bool = False
    """Put the projected sources beside the fused vector; every operator but `late` can."""
    side: int = 16
    """Rows of the square matrices of `matmul`."""
    experts: int = 4
    """How many `moe` has."""
    heads: int = 4
    """How many `attention` has."""
    match_capacity: bool = False
    """Choose the width so that the head has as many parameters as `concat` at `width`."""
    among: list[str] = field(default_factory=lambda: [STACKED, "gated", "concat", "late"])
    """What `auto` chooses among: operators, and `stacked`."""
    widths: list[int] = field(default_factory=lambda: [64, 256])
    """Widths that `auto` tries each operator with."""


@dataclass
class TrainerConfig:
    """Training of the head: `conf/trainer/NAME.yaml`."""

    max_epochs: int = 100
    patience: int = 10
    """Epochs without a better validation log-loss before training ends."""
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    accelerator: str = "cpu"
    """Where the head is trained: cpu, gpu, mps or auto; small heads are fastest on a CPU."""
    devices: int = 1


@dataclass
class LoggerConfig:
    """Experiment tracking: `conf/logger/NAME.yaml`."""

    name: str = "wandb"
    """wandb or none."""
    project: str = "layerfusion"
    entity: str | None = None
    mode: str = "auto"
    """auto: online where an API key is found, else offline; online; offline."""
    group: str | None = None
    """Name that the runs of a sweep share; none: the sweep's folder, or none for single jobs."""
    tags: list[str] = field(default_factory=list)
    code: bool = True
    """Keep the package's sources with the first run of each sweep; about a tenth of a second."""


@dataclass
class PathsConfig:
    """Where things are kept: `conf/paths/NAME.yaml`."""

    cache: str = "outputs/cache"
    """Assets, embeddings and baselines; safe to share and to delete."""
    outputs: str = "outputs"


@dataclass
class ProfileConfig:
    """What `layerfusion profile` looks at."""

    scores: list[str] = field(default_factory=lambda: list(SCORES))
    """Scores to compute; those that a model does not give are left out with the reason."""
    judge: bool = False
    """After all choices are made, judge them on test: accuracy of every layer, regret of every
    selection. For studies of the scores; it tells nothing that may be chosen by."""


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
    protocol: str = HONEST
    """honest, or as_published: what published scripts do, test in the choice of the epoch included;
    its figures have names of their own and enter no honest table."""
    bundle: bool | None = None
    """Keep the classifier in the job's folder, for `layerfusion predict`. None: of a job by itself,
    not of the jobs of a sweep."""
    sweep: str = "main"
    """Name of the folder that the jobs of a sweep share, and of their W&B group."""
    seed: int = 0
    """First seed of the training runs; also draws the samples of `limit`."""
    seeds: int = 6
    """How many training runs, with seeds `seed`, `seed` + 1, …"""


@dataclass
class ComposedConfig(TrainConfig):
    """What Hydra composes: it cannot set keys of a new backbone in a typed dict, so `load` does."""

    backbone: dict[str, Any] = field(default_factory=dict)
