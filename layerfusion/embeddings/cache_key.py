"""Keys of the cache: every setting that changes a vector, to be hashed and compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from layerfusion.assets.source import Asset
from layerfusion.config.imports import code_hash, is_import_path
from layerfusion.config.job import AUTO, FLOAT32, WINDOWS, BackboneConfig, PoolingConfig

TFIDF = "tfidf"
"""Name of the pooling of a lexical source."""
ROUNDED = "auto"
"""Spec of a store that rounds the layers whose values fit to float16. Its name is of the time when
all stores did so, and keeps the folders of those that are there."""
GIVEN = "given"
"""Name of the pooling of vectors that were computed elsewhere."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
)
"""Names of the files that a tokenizer may consist of; their content identifies it."""


@dataclass(frozen=True)
class BackboneSpec:
    """Settings that, together with a text, determine its vectors. Each spec has its own store."""

    model: str
    """Identity of the model's files, as `model_identity` gives it."""
    tokenizer: str
    """sha256 over the tokenizer's files."""
    dtype: str
    max_length: int | None
    truncation_side: str
    template: str
    long_texts: str
    window_overlap: int | None
    """Overlap in tokens; None unless long texts are read in windows."""
    pool: str
    """Name of the pooling. For a user's function it also has a hash of the module's source."""
    skip_first: bool
    store_dtype: str
    """Number format on disk, as `stored_as` names it."""

    def canonical(self) -> str:
        """Return the spec as canonical JSON: sorted keys, no spaces."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def hash(self) -> str:
        """Return the store's name: the first 16 hex digits of the canonical form's sha256."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]


def backbone_spec(
    config: BackboneConfig,
    pooling: PoolingConfig,
    *,
    model: str,
    folder: Path,
    store_dtype: str = AUTO,
) -> BackboneSpec:
    """Build the spec of a backbone under a pooling.

    Args:
        config: settings of the backbone.
        pooling: settings of the pooling.
        model: identity of the model's files (`model_identity`).
        folder: folder of the model's files.
        store_dtype: number format on disk, as in `extract.store_dtype`.
    """
    return BackboneSpec(
        model=model,
        tokenizer=tokenizer_hash(folder),
        dtype=config.dtype,
        max_length=config.max_length,
        truncation_side=config.truncation_side,
        template=config.template,
        long_texts=config.long_texts,
        window_overlap=config.window_overlap if config.long_texts == WINDOWS else None,
        pool=pooling_identity(pooling.pool),
        skip_first=pooling.skip_first,
        store_dtype=stored_as(store_dtype, config.dtype),
    )


def stored_as(store_dtype: str, dtype: str) -> str:
    """Name the number format on disk.

    Vectors of single precision are kept whole: rounded, they would move the probabilities of a
    classifier that was trained on them in the third decimal. What a model in half precision gives
    has no more digits than float16.

    Args:
        store_dtype: what is asked for, as in `extract.store_dtype`.
        dtype: precision of the pass.

    Returns:
        `float32` or `ROUNDED`.
    """
    asked = dtype if store_dtype == AUTO else store_dtype
    return FLOAT32 if asked == FLOAT32 else ROUNDED


def given_spec(model: str, template: str, store_dtype: str) -> BackboneSpec:
    """Build the spec of vectors that are computed elsewhere.

    Args:
        model: identity of what computes them, or of the file that holds them.
        template: the prompt around a text.
        store_dtype: number format on disk, as `stored_as` names it.
    """
    return BackboneSpec(
        model=model,
        tokenizer="",
        dtype=FLOAT32,
        max_length=None,
        truncation_side="",
        template=template,
        long_texts="",
        window_overlap=None,
        pool=GIVEN,
        skip_first=False,
        store_dtype=store_dtype,
    )


def pooling_identity(name: str) -> str:
    """Identify a pooling by its name, and a user's function also by its module's source.

    If the source cannot be read, for example of a compiled module, the import path alone identifies
    the pooling.
    """
    if not is_import_path(name):
        return name
    source = code_hash("pool", name)
    return f"{name} {source}" if source else name


def tokenizer_hash(folder: Path) -> str:
    """Compute the sha256 over names and contents of the tokenizer's files in a model folder."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def model_identity(asset: Asset, config: BackboneConfig) -> str:
    """Identify a model's files: by pinned hashes, a hub commit or a hash of their content.

    In a folder of the user's whose own code runs, that code may change, so its hash is added.
    """
    if not (config.trust_remote_code and asset.source.path):
        return asset.identity
    digest = hashlib.sha256(asset.identity.encode())
    for path in sorted(asset.path.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def text_hash(text: str) -> bytes:
    """Compute the 128-bit hash of a text, which is its address in every store."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
