from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings import backbone as backbone_module
from layerfusion.embeddings import extract as extract_module
from layerfusion.embeddings import forward, progress
from layerfusion.embeddings.backbone import choose_device, probe_device
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.batch_size import calibrated_budget
from layerfusion.embeddings.cache_key import backbone_spec, text_hash
from layerfusion.embeddings.extract import extract
from layerfusion.embeddings.progress import TokenBar
from layerfusion.embeddings.shards import open_shard
from layerfusion.embeddings.source import open_source
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.errors import UserError
from tests.tiny import tiny_folder

MEAN = {"mean": PoolingConfig()}


def run(
    folder: Path, root: Path, texts: list[str], layers: list[str] | None = None, **options: Any
) -> tuple[EmbeddingStore, int]:
    """Extract as a fresh process would; returns the store and how many texts were computed."""
    config = BackboneConfig()
    backbone = load_backbone("tiny", folder, config, "cpu")
    store = EmbeddingStore(
        root, backbone_spec(config, MEAN["mean"], model=folder.name, folder=folder)
    )
    settings = {"token_budget": 128, "shard_tokens": 300, **options}
    done = extract(
        backbone,
        {"mean": store},
        MEAN,
        texts,
        layers=None if layers is None else {"mean": layers},
        config=config,
        options=ExtractConfig(**settings),
        calibrations=root / "calibrations.json",
    )
    return store, done.texts


def read(store: EmbeddingStore, texts: list[str]) -> dict[str, np.ndarray]:
    assert store.shape is not None
    return store.read([text_hash(text) for text in texts], store.shape.layers)


def test_every_text_is_computed_once_whatever_asks_for_it(
    bert_folder: Path, corpus: list[str], tmp_path: Path
) -> None:
    _, first = run(bert_folder, tmp_path, [*corpus[:80], *corpus[:80]])
    store, second = run(bert_folder, tmp_path, corpus)
    _, third = run(bert_folder, tmp_path, corpus[::-1])
    assert (first, second, third) == (80, 40, 0)
    fresh, _ = run(bert_folder, tmp_path / "fresh", corpus)
    for layer, values in read(fresh, corpus).items():
        # Kept in half precision: the same batches or not, rounding is all that differs.
        np.testing.assert_allclose(read(store, corpus)[layer], values, rtol=2e-3, atol=1e-4)


def test_parts_of_the_texts_add_up_to_the_whole(
    bert_folder: Path, corpus: list[str], tmp_path: Path
) -> None:
    counts = [run(bert_folder, tmp_path, corpus, shard=part, num_shards=3)[1] for part in range(3)]
    assert sum(counts) == len(corpus)
    assert min(counts) > 0
    assert run(bert_folder, tmp_path, corpus)[1] == 0


def test_more_layers_of_known_texts_are_added(
    bert_folder: Path, corpus: list[str], tmp_path: Path
) -> None:
    store, _ = run(bert_folder, tmp_path, corpus[:10], layers=["0", "1"])
    _, computed = run(bert_folder, tmp_path, corpus[:10])
    assert computed == 10
    store.refresh()
    assert set(read(store, corpus[:10])) == {"0", "1", "2", "3"}


KILLED = """
import sys
from pathlib import Path
from tests.embeddings.test_extract import run
from layerfusion.embeddings import forward as module
import time
launch = module.launch
def slowly(*args, **options):
    time.sleep(0.01)
    return launch(*args, **options)
module.launch = slowly
texts = Path(sys.argv[3]).read_text().splitlines()
print("go", flush=True)
run(Path(sys.argv[1]), Path(sys.argv[2]), texts)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_store(
    bert_folder: Path, corpus: list[str], tmp_path: Path
) -> None:
    """SIGKILL again and again: at most one shard is computed twice, the vectors are the same."""
    undisturbed, _ = run(bert_folder, tmp_path / "whole", corpus)
    listed = tmp_path / "corpus.txt"
    listed.write_text("\n".join(corpus))
    root = tmp_path / "killed"
    generator = np.random.default_rng(int(time.time()))
    kept = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(bert_folder), str(root), str(listed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(generator.uniform(0.1, 1.2)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        shards = len(list(root.rglob("*.safetensors")))
        assert shards >= kept  # what was finished stays
        kept = shards
    store, computed = run(bert_folder, root, corpus)
    assert len(store) == len(corpus)
    whole = sorted(path.name for path in undisturbed.folder.glob("*.safetensors"))
    assert computed + _texts_in(kept, undisturbed) == len(corpus)
    assert len(list(store.folder.glob("*.safetensors"))) == len(whole)
    for layer, values in read(undisturbed, corpus).items():
        np.testing.assert_array_equal(read(store, corpus)[layer], values)


def _texts_in(shards: int, store: EmbeddingStore) -> int:
    """Texts of the first shards, longest texts first, as an undisturbed run writes them."""
    hashes = [open_shard(path)[1] for path in store.folder.glob("*.safetensors")]
    hashes.sort(key=lambda texts: -int(store.tokens(texts).seen.max()))
    return sum(map(len, hashes[:shards]))


def test_nothing_of_one_part_depends_on_another(
    tmp_path: Path, bert_folder: Path, corpus: list[str]
) -> None:
    """Else the vectors of train, and what they cost, would tell of the texts of test."""
    train = corpus[:25]
    others = {"short": ["a good film"], "long": [" ".join(corpus[25:40])] * 2}
    found = {}
    for name, test in others.items():
        source = open_source(
            "tiny",
            BackboneConfig(path=str(bert_folder)),
            {"mean": PoolingConfig()},
            tmp_path / name,
            "float32",
        )
        source.extract([train, test], ExtractConfig(device="cpu", token_budget=4096))
        store = source.stores["mean"]
        found[name] = read(store, train)
        shards = sorted(store.folder.glob("*.safetensors"))
        assert len(shards) == 2  # although all of it would fit into one
    for layer, values in found["short"].items():
        assert (values == found["long"][layer]).all()


def test_a_value_that_is_not_finite_names_model_layer_and_text(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path / "model")
    backbone = load_backbone("tiny", folder, BackboneConfig(), "cpu")
    assert backbone.blocks is not None
    with torch.no_grad():
        list(backbone.blocks[1].parameters())[-1].fill_(torch.inf)
    store = EmbeddingStore(
        tmp_path, backbone_spec(BackboneConfig(), MEAN["mean"], model="m", folder=folder)
    )
    with pytest.raises(UserError, match=r"backbone tiny, layer 2: .*not finite.*'oil'"):
        extract(
            backbone,
            {"mean": store},
            MEAN,
            ["oil"],
            config=BackboneConfig(),
            options=ExtractConfig(token_budget=64),
            calibrations=tmp_path / "c.json",
        )
    assert len(store) == 0


def test_out_of_memory_halves_the_batch_and_goes_on(
    bert_folder: Path, corpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = run(bert_folder, tmp_path / "calm", corpus)
    real = forward.launch
    refused: list[int] = []

    def small_memory(backbone: Any, windows: Any, *rest: Any, **options: Any) -> Any:
        size = len(windows) * max(len(window.ids) for window in windows)
        if size > 60:
            refused.append(size)
            raise torch.OutOfMemoryError("out of memory")
        return real(backbone, windows, *rest, **options)

    monkeypatch.setattr(forward, "launch", small_memory)
    store, computed = run(bert_folder, tmp_path, corpus)
    assert refused
    assert computed == len(corpus)
    for layer, values in read(expected, corpus).items():
        np.testing.assert_allclose(read(store, corpus)[layer], values, rtol=2e-3, atol=1e-4)


def test_no_memory_for_a_single_text_says_what_to_lower(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(forward, "launch", none)
    with pytest.raises(UserError, match=r"lower backbone\.tiny\.max_length"):
        run(bert_folder, tmp_path, ["oil ship"])


def test_the_batch_size_is_measured_once(
    llama_folder: Path, corpus: list[str], tmp_path: Path
) -> None:
    store, _ = run(llama_folder, tmp_path, corpus, token_budget=None)
    kept = (tmp_path / "calibrations.json").read_bytes()
    assert len(store) == len(corpus)
    backbone = load_backbone("tiny", llama_folder, BackboneConfig(), "cpu")
    assert calibrated_budget(backbone, [], tmp_path / "calibrations.json") > 0
    assert (tmp_path / "calibrations.json").read_bytes() == kept


@pytest.mark.parametrize("damage", ["no weights", "no config", "half of a block"])
def test_a_folder_that_is_no_model_is_one_line(tmp_path: Path, damage: str) -> None:
    folder = tiny_folder("bert", tmp_path / "model")
    if damage == "no weights":
        (folder / "model.safetensors").unlink()
    elif damage == "no config":
        (folder / "config.json").write_text("{}")
    else:
        from safetensors.numpy import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in weights.items() if "layer.1.attention" not in name}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="backbone tiny: ") as caught:
        load_backbone("tiny", folder, BackboneConfig(), "cpu")
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_one_line(bert_folder: Path) -> None:
    with pytest.raises(UserError, match=r"extract.device=abacus: this machine does not have it"):
        load_backbone("tiny", bert_folder, BackboneConfig(), "abacus")


def test_a_model_that_is_spread_takes_its_inputs_where_one_model_would() -> None:
    assert choose_device("spread") == choose_device("auto")


@pytest.mark.parametrize(("device", "fits"), [("mps", "cpu"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_probes_are_fitted_where_there_is_float64(
    device: str, fits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone_module, "choose_device", torch.device)
    assert probe_device(device) == torch.device(fits)


def test_bars_may_be_switched_off_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # TQDM_DISABLE=1, which is read when tqdm is imported, has this effect.
    monkeypatch.setattr(progress, "tqdm", partial(progress.tqdm, disable=True))
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        with TokenBar("tiny", 100) as bar:
            bar.expect(200)
            bar.update(100)
    assert capsys.readouterr().err == ""


def test_a_log_has_no_bar_of_what_takes_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    for seconds, lines in ((0.0, False), (progress.SHORT, True)):
        with TokenBar("tiny", 100) as bar:
            bar._bar.start_t -= seconds
            bar._bar.last_print_t -= 15.0 if seconds else 0.0
            bar.expect(100)
            bar.update(100)
        assert ("extract tiny" in capsys.readouterr().err) == lines


@pytest.mark.parametrize("by_the_caller", [True, False])
def test_what_a_program_has_frozen_itself_stays_so_after_a_pass_on_a_gpu(
    by_the_caller: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thawed, all of it would be looked through for garbage again: half a second each time."""
    frozen = {"caller"} if by_the_caller else set[str]()
    collector = SimpleNamespace(
        get_freeze_count=lambda: len(frozen),
        freeze=lambda: frozen.add("pass"),
        unfreeze=frozen.clear,
    )
    monkeypatch.setattr(extract_module, "gc", collector)
    with extract_module._quick_turns(gpu=True):
        assert frozen
    assert frozen == ({"caller"} if by_the_caller else set())
    with extract_module._quick_turns(gpu=False):
        assert frozen == ({"caller"} if by_the_caller else set())
