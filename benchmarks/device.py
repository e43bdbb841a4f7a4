"""Compare extraction on a GPU with a bare forward pass and with sentence-transformers.

Models of real shapes with random weights read the texts of r8. We measure each shape in four ways,
in turns:

- all layers are pooled and written to a store;
- the last layer alone is pooled and written to a store;
- a bare forward pass reads the same texts, which were tokenised and copied to the device before,
  and saves nothing, in the best of several batch sizes;
- `encode` of sentence-transformers reads the texts in its best batch size.

Run: python -m benchmarks.device [--shapes llama-7b ...] [--rows N] [--repeats N] [--json FILE]

Texts and tokenizers come from the assets of the project (`minilm`, `smollm2`), or from `--texts`
(one JSON string a line), `--encoder` and `--decoder` (tokenizer folders). Without a GPU nothing is
measured unless `--device cpu` asks for it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.backbone import Backbone, backbone_of
from layerfusion.embeddings.batch_size import packed_budget
from layerfusion.embeddings.cache_key import backbone_spec
from layerfusion.embeddings.extract import extract
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.embeddings.tokens import Batch, batches, collate, tokenize

POOLINGS = {"mean": PoolingConfig()}
BARE_BUDGETS = (8192, 16384, 32768, 65536, 131072, 262144)
PEER_BATCHES = (32, 128, 512)
MAX_LENGTH = 512


@dataclass(frozen=True)
class Shape:
    """Architecture of a model to measure."""

    kind: str
    """Model family: llama or bert."""
    blocks: int
    width: int
    dtype: str
    rows: int = 7000
    heads: int = 12
    key_heads: int = 12
    inner: int = 3072
    peer: bool = True
    large: bool = False
    """True to search for the best batch size on every third text only, as the model is large."""


SHAPES = {
    "llama-32x4096-bf16": Shape(
        "llama",
        32,
        4096,
        "bfloat16",
        rows=4000,
        heads=32,
        key_heads=32,
        inner=11008,
        peer=False,
        large=True,
    ),
    "llama-30x576-bf16": Shape("llama", 30, 576, "bfloat16", heads=9, key_heads=3, inner=1536),
    "bert-12x768-bf16": Shape("bert", 12, 768, "bfloat16"),
    "bert-12x768-fp32": Shape("bert", 12, 768, "float32"),
    "bert-6x384-bf16": Shape("bert", 6, 384, "bfloat16", inner=1536),
    "tiny-llama": Shape("llama", 3, 64, "float32", rows=60, heads=4, key_heads=2, inner=96),
    "tiny-bert": Shape("bert", 3, 48, "float32", rows=60, heads=4, inner=96),
}


def random_model(shape: Shape, vocab: int, device: torch.device) -> Any:
    """Make a model with random weights on the device."""
    import transformers

    common: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.blocks,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
        "max_position_embeddings": MAX_LENGTH,
        "pad_token_id": 0,
    }
    if shape.kind == "llama":
        config: Any = transformers.LlamaConfig(
            **common, num_key_value_heads=shape.key_heads, use_cache=False
        )
    else:
        config = transformers.BertConfig(**common)
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModel.from_config(config, dtype=getattr(torch, shape.dtype))
    return model.to(device).eval().requires_grad_(False)


def timed(run: Callable[[], object]) -> float:
    """Measure the seconds of a call, including the work that it gives to the device."""
    settle()
    begun = time.perf_counter()
    run()
    settle()
    return time.perf_counter() - begun


def settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_peak(dtype: torch.dtype, device: torch.device, size: int = 8192) -> float:
    """Measure the FLOP/s of large square matrix products on random data."""
    if device.type == "cpu":
        size = 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(5):
        seconds.append(timed(lambda: [a @ b for _ in range(10)]) / 10)
    return 2.0 * size**3 / statistics.median(seconds)


def disk_rate(folder: Path | None) -> float:
    """Measure the bytes per second of writing and syncing a file in the folder of the stores."""
    content = os.urandom(2**27)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        begun = time.perf_counter()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return len(content) / (time.perf_counter() - begun)


@torch.inference_mode()
def bare_pass(backbone: Backbone, made: Sequence[Batch]) -> None:
    for batch in made:
        backbone.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)


def on_device(backbone: Backbone, windows: Sequence[Any], budget: int) -> list[Batch]:
    rows = batches([len(window.ids) for window in windows], budget)
    return [collate([windows[row] for row in some], 0).to(backbone.device) for some in rows]


def best_budget(backbone: Backbone, windows: Sequence[Any], budgets: Sequence[int]) -> Any:
    """Find the batch size whose second bare pass is fastest. Also returns the seconds of each."""
    found: dict[int, tuple[float, float]] = {}
    best: tuple[float, int] | None = None
    for budget in budgets:
        made = on_device(backbone, windows, budget)
        try:
            first, second = (timed(partial(bare_pass, backbone, made)) for _ in range(2))
        except torch.OutOfMemoryError:
            break
        found[budget] = (round(first, 3), round(second, 3))
        if best is None or second < best[0]:
            best = (second, budget)
        if len(made) == 1 or second > 1.5 * best[0]:
            break
    assert best is not None
    return best[1], found


def extraction(
    backbone: Backbone, texts: list[str], layers: list[str], root: Path, calibrations: Path
) -> None:
    config = BackboneConfig(max_length=MAX_LENGTH)
    spec = backbone_spec(config, POOLINGS["mean"], model="bench", folder=root)
    extract(
        backbone,
        {"mean": EmbeddingStore(root, spec)},
        POOLINGS,
        texts,
        layers={"mean": layers},
        config=config,
        options=ExtractConfig(),
        calibrations=calibrations,
    )


def peer_encoder(model: Any, tokenizer: Any, device: torch.device, folder: Path) -> Any:
    """Load the same weights in sentence-transformers, with mean pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    inner = Transformer(str(folder), max_seq_length=MAX_LENGTH)
    pooling = Pooling(model.config.hidden_size, pooling_mode="mean")
    peer = SentenceTransformer(modules=[inner, pooling], device=str(device))
    peer.to(model.dtype)
    if peer.tokenizer.pad_token is None:
        peer.tokenizer.pad_token = peer.tokenizer.eos_token
    return peer


def measure(
    name: str,
    shape: Shape,
    texts: list[str],
    tokenizer: Any,
    device: torch.device,
    repeats: int,
    ways: Sequence[str],
    bare_budgets: Sequence[int],
    stores: Path | None,
) -> dict[str, Any]:
    texts = texts[: shape.rows]
    model = random_model(shape, max(len(tokenizer), 1000), device)
    backbone = backbone_of(name, model, tokenizer, max_length=MAX_LENGTH)
    config = BackboneConfig(max_length=MAX_LENGTH)
    tokens = tokenize(tokenizer, texts, config, MAX_LENGTH)
    windows = [text.windows[0] for text in tokens]
    lengths = [len(window.ids) for window in windows]
    layers = list(backbone.shape.layers)
    flops = backbone.shape.flops(layers[-1], lengths)
    result: dict[str, Any] = {"shape": asdict(shape), "texts": len(texts), "tokens": sum(lengths)}
    result["tflop"] = round(flops / 1e12, 2)
    result["tokenise_s"] = round(timed(lambda: tokenize(tokenizer, texts, config, MAX_LENGTH)), 3)
    some = windows[::3] if shape.large else windows
    budget, tried = best_budget(backbone, some, bare_budgets)
    made = on_device(backbone, windows, budget)
    result["bare_budgets_first_second"] = tried
    result["bare_budget"] = budget
    runs: dict[str, Callable[[], object]] = {"bare": lambda: bare_pass(backbone, made)}
    with tempfile.TemporaryDirectory(dir=stores) as scratch:
        root = Path(scratch)
        count = 0

        def ours(asked: list[str]) -> Callable[[], object]:
            def run() -> None:
                nonlocal count
                count += 1
                where = root / str(count)
                extraction(backbone, texts, asked, where, root / "calibrations.json")

            return run

        result["calibrate_s"] = round(timed(ours(layers[-1:])), 3)
        result["our_budget"] = packed_budget(backbone) or list(
            json.loads((root / "calibrations.json").read_text()).values()
        )
        runs["all"] = ours(layers)
        runs["last"] = ours(layers[-1:])
        if shape.peer and "encode" in ways:
            peer = peer_encoder(model, tokenizer, device, root / "model")
            some = texts[:: max(1, len(texts) // 1500)]
            rates = {}
            for size in PEER_BATCHES:
                peer.encode(some, batch_size=size)
                rates[size] = round(timed(partial(peer.encode, some, batch_size=size)), 3)
            fastest = min(rates, key=rates.__getitem__)
            result["encode_batches"] = rates
            result["encode_batch"] = fastest
            runs["encode"] = lambda: peer.encode(texts, batch_size=fastest)
        seconds: dict[str, list[float]] = {way: [] for way in runs if way in ways}
        for _ in range(repeats):
            for way in seconds:
                if torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
                seconds[way].append(round(timed(runs[way]), 4))
        result["seconds"] = seconds
    for way, taken in seconds.items():
        middle = statistics.median(taken)
        result[way] = {
            "median_s": middle,
            "spread_s": round(max(taken) - min(taken), 4),
            "tflop_s": round(flops / middle / 1e12, 1),
        }
    return result


def show(name: str, result: dict[str, Any], peaks: dict[str, float]) -> None:
    peak = peaks[result["shape"]["dtype"]]
    print(f"{name}: {result['texts']} texts, {result['tokens']} tokens, {result['tflop']} TFLOP")
    base = result.get("bare", {}).get("median_s")
    for way in ("bare", "last", "all", "encode"):
        if way not in result:
            continue
        found = result[way]
        line = f"  {way:7s} {found['median_s']:8.3f} s ±{found['spread_s']:.3f}"
        line += f"  {found['tflop_s']:7.1f} TFLOP/s  {1e12 * found['tflop_s'] / peak:5.1%} of peak"
        if base:
            line += f"  {found['median_s'] / base:5.2f} × bare"
        if way != "last" and "last" in result:
            line += f"  {found['median_s'] / result['last']['median_s']:5.2f} × last"
        print(line)
    keys = ("tokenise_s", "calibrate_s", "our_budget", "bare_budgets_first_second")
    print("  " + ", ".join(f"{key} {result[key]}" for key in keys), flush=True)


def project_texts() -> tuple[list[str], Path, Path]:
    """Read the texts of r8, and find the tokenizer folders of minilm and smollm2."""
    from layerfusion.composing.hydra import compose
    from layerfusion.config.check import load
    from layerfusion.embeddings.source import open_source
    from layerfusion.runs.job_texts import dataset_of

    config = load(compose("train", ["dataset=r8", "backbone=[minilm,smollm2]"]))
    splits = dataset_of(config).splits
    texts = [text for split in ("train", "validation", "test") for text in splits[split].texts]
    folders = [
        open_source(name, config.backbone[name], config.pooling, Path("outputs/cache")).asset.path
        for name in ("minilm", "smollm2")
    ]
    return list(dict.fromkeys(texts)), folders[0], folders[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", nargs="*", default=[n for n in SHAPES if "tiny" not in n])
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--decoder", type=Path)
    parser.add_argument("--rows", type=int, default=7000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="*", default=["bare", "last", "all", "encode"])
    parser.add_argument("--bare-budgets", nargs="*", type=int)
    parser.add_argument("--stores", type=Path, help="folder of the stores, to choose the disk")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.device: this machine has no GPU, nothing measured")
        return
    import transformers

    if asked.texts:
        texts = [json.loads(line) for line in asked.texts.read_text().splitlines()]
        folders = {"bert": asked.encoder, "llama": asked.decoder}
    else:
        texts, encoder, decoder = project_texts()
        folders = {"bert": encoder, "llama": decoder}
    device = torch.device(asked.device)
    names = {SHAPES[name].dtype for name in asked.shapes}
    peaks = {name: matmul_peak(getattr(torch, name), device) for name in sorted(names)}
    card = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    result: dict[str, Any] = {
        "disk_mb_s": round(disk_rate(asked.stores) / 1e6),
        "card": card,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": sys.version.split()[0],
        "peak_tflop_s": {name: round(peak / 1e12, 1) for name, peak in peaks.items()},
        "shapes": {},
    }
    facts = ("card", "torch", "peak_tflop_s", "disk_mb_s")
    print(", ".join(f"{fact} {result[fact]}" for fact in facts), flush=True)
    for name in asked.shapes:
        kind = SHAPES[name].kind
        tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
        budgets = BARE_BUDGETS[1:4] if SHAPES[name].large else BARE_BUDGETS
        one = measure(
            name,
            SHAPES[name],
            texts[: asked.rows],
            tokenizer,
            device,
            asked.repeats,
            asked.ways,
            asked.bare_budgets or budgets,
            asked.stores,
        )
        show(name, one, peaks)
        result["shapes"][name] = one
        if asked.json:
            asked.json.write_text(json.dumps(result, indent=1))
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
