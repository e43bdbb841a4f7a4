"""Turns on GPUs that are made up: who waits, what ends a turn, and what is computed within one."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import lightning.pytorch  # noqa: F401 - looks at kernels when it is imported
import pytest
import torch
from filelock import FileLock, Timeout

import layerfusion as lf
from layerfusion.cli import main
from layerfusion.config.job import BackboneConfig, ExtractConfig, LayersConfig, PoolingConfig
from layerfusion.embeddings import backbone_loading, batch_size, gpus
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.gpus import clock, free_gpu, gpu_turn, keep_gpu, taking_turns
from layerfusion.embeddings.source import EmbeddingSource, open_source
from layerfusion.layers import backbone_scores, blends, held_out
from layerfusion.layers.blends import held_out_blends
from layerfusion.layers.candidates import Candidates, all_layers, read_lazily
from layerfusion.published.padded import PADDED_MEAN, PADDED_POOLING, extract_padded
from tests import pretended_gpu as pretended_gpu_module
from tests.pretended_gpu import OnGpu, pretended_gpu
from tests.tiny import tiny_job, tiny_texts

TEXTS = [f"{word} {tone} {number}" for number in range(12) for word, tone in zip(
    ("rain", "music", "bread"), ("fell", "rang", "rose"), strict=True)]  # fmt: skip
LABELS = ["weather", "sound", "food"] * 12
POOLING = {"mean": PoolingConfig()}


class Machine:
    """Two GPUs that are not there, whose turns are noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / f"layerfusion-gpus-{os.getuid()}"
        self.names = ["b", "a"]
        self.chosen: list[int] = []

    def is_free(self, name: str) -> bool:
        """Whether another process could have the GPU now."""
        self.folder.mkdir(exist_ok=True)
        try:
            with FileLock(self.folder / f"{name}.lock", timeout=0):
                return True
        except Timeout:
            return False

    @property
    def free(self) -> list[str]:
        """The GPUs that another process could have now."""
        return [name for name in self.names if self.is_free(name)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(gpus, "gpu_names", lambda: made.names)
    monkeypatch.setattr(gpus, "_last_gpu", 0)
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "set_device", made.chosen.append)
    return made


# -- locks ----------------------------------------------------------------------------------------


def test_gpus_are_handed_out_one_a_job(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    with ExitStack() as stack:
        held = [stack.enter_context(free_gpu(names, tmp_path)) for _ in names]
        assert sorted(held) == [0, 1, 2]
    with free_gpu(names, tmp_path) as again:
        assert again == held[-1]  # the one held last, of whose memory it keeps a part


def test_a_job_waits_for_a_gpu(tmp_path: Path) -> None:
    got = Event()

    def job() -> int:
        with free_gpu(["only"], tmp_path, seconds=0.01) as index:
            got.set()
            return index

    with ThreadPoolExecutor(1) as pool:
        with free_gpu(["only"], tmp_path):
            waiting = pool.submit(job)
            assert not got.wait(0.1)
        assert waiting.result(timeout=5) == 0


# -- turns ----------------------------------------------------------------------------------------


def test_a_turn_takes_a_gpu_and_gives_it_back(machine: Machine) -> None:
    with taking_turns(spread=False):
        assert machine.free == ["b", "a"]
        with gpu_turn("auto") as begun:
            assert begun
            assert machine.free == ["a"]
            with gpu_turn("auto") as again:
                assert not again
                assert machine.free == ["a"]
            assert machine.free == ["a"]
        assert machine.free == ["b", "a"]
        with free_gpu(["b"], machine.folder), gpu_turn(torch.device("cuda")):
            assert machine.free == []
    assert machine.chosen == [0, 1]  # the second turn is on the other GPU


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps", torch.device("cpu"), None])
def test_no_turn_is_needed_for_other_devices(machine: Machine, device: Any) -> None:
    with taking_turns(spread=False), gpu_turn(device) as begun:
        keep_gpu(device)
        assert not begun
        assert machine.free == ["b", "a"]


def test_a_job_that_is_started_by_itself_waits_for_none(machine: Machine) -> None:
    with ExitStack() as others:
        for name in machine.names:
            others.enter_context(free_gpu([name], machine.folder))
        with gpu_turn("auto") as begun:
            keep_gpu("auto")
            assert not begun


def test_models_that_are_spread_take_all_gpus(machine: Machine) -> None:
    with taking_turns(spread=True), gpu_turn("spread"):
        assert machine.free == []
    assert machine.free == ["b", "a"]


def test_a_turn_that_is_kept_ends_with_the_job(machine: Machine) -> None:
    with taking_turns(spread=False):
        keep_gpu("auto")
        keep_gpu("auto")
        with gpu_turn("auto"):
            assert machine.free == ["a"]
        assert machine.free == ["a"]
    assert machine.free == ["b", "a"]


def test_a_model_that_is_loaded_elsewhere_keeps_the_gpu(
    machine: Machine, bert_folder: Path
) -> None:
    """As in a score of the user's own, which nothing tells to take turns."""
    with taking_turns(spread=False):
        backbone_loading.load_backbone("tiny", bert_folder, BackboneConfig(), "auto")
        assert machine.free == ["a"]
    assert machine.free == ["b", "a"]


def test_an_error_ends_a_turn_and_holds_no_tensor(machine: Machine) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []

    def compute() -> None:
        batch = torch.ones(3)
        seen.append(weakref.ref(batch))
        raise ValueError("no room")

    def told() -> None:
        try:
            compute()
        except ValueError as error:
            raise RuntimeError("it failed") from error

    kept: list[BaseException] = []
    with taking_turns(spread=False):
        try:
            with gpu_turn("auto"):
                told()
        except RuntimeError as error:
            kept.append(error)
        assert machine.free == ["b", "a"]
        assert seen[0]() is None
    assert str(kept[0].__cause__) == "no room"


def test_what_refers_to_itself_is_looked_for_where_memory_is_left(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is, as that takes a good part of a second."""
    collected: list[bool] = []
    for left, looks in ((gpus.COLLECTED_ABOVE, False), (gpus.COLLECTED_ABOVE + 1, True)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _index, left=left: left)
        monkeypatch.setattr(gpus.gc, "collect", lambda: collected.append(True))
        with taking_turns(spread=False), gpu_turn("auto"):
            pass
        assert bool(collected) == looks


def test_waiting_does_not_count(machine: Machine) -> None:
    machine.names = ["b"]
    holding = Event()

    def other() -> None:
        with free_gpu(["b"], machine.folder):
            holding.set()
            time.sleep(0.5)

    with ThreadPoolExecutor(1) as pool, taking_turns(spread=False):
        pool.submit(other)
        assert holding.wait(5)
        begun, begun_here = time.perf_counter(), clock()
        with gpu_turn("auto"):
            passed, counted = time.perf_counter() - begun, clock() - begun_here
    assert passed > 0.4
    assert counted < passed - 0.3


def test_a_job_that_is_killed_frees_its_gpu(machine: Machine) -> None:
    code = f"""
import time
import torch
from layerfusion.embeddings import gpus
gpus.gpu_names = lambda: ["b"]
gpus.tempfile.gettempdir = lambda: {str(machine.folder.parent)!r}
torch.cuda.set_device = lambda index: None
with gpus.taking_turns(spread=False), gpus.gpu_turn("auto"):
    print("mine", flush=True)
    time.sleep(100)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "mine\n"
        assert machine.free == ["a"]
        job.send_signal(signal.SIGKILL)
        job.wait(10)
    with taking_turns(spread=False), gpu_turn("auto"):
        assert machine.chosen == [0]


# -- what other jobs have computed meanwhile ------------------------------------------------------


@contextmanager
def first(monkeypatch: pytest.MonkeyPatch, other: Callable[[], Any]) -> Iterator[None]:
    """Let another job compute something while the one inside waits for its turn."""
    right = gpus.free_gpu

    @contextmanager
    def after_another(*words: Any) -> Iterator[int]:
        job, gpus._job = gpus._job, None
        other()
        gpus._job = job
        with right(*words) as index:
            yield index

    with monkeypatch.context() as patched, taking_turns(spread=False):
        patched.setattr(gpus, "free_gpu", after_another)
        yield


def refuse(*_words: Any, **_more: Any) -> Any:
    raise AssertionError("it is computed once more")


def source_of(folder: Path, cache: Path, poolings: Any = POOLING) -> EmbeddingSource:
    return open_source("tiny", BackboneConfig(path=str(folder)), poolings, cache)


def test_texts_that_another_job_has_extracted_are_not_extracted_again(
    machine: Machine, bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExtractConfig(token_budget=64)
    ours, theirs = (source_of(bert_folder, tmp_path) for _ in range(2))
    theirs = replace(theirs, stores={"mean": replace_store(theirs)})

    def other() -> None:
        theirs.extract([TEXTS], options)
        monkeypatch.setattr(backbone_loading, "load_backbone", refuse)

    with first(monkeypatch, other):
        ours.extract([TEXTS], options)
    assert not ours.stores["mean"].missing(hashes := [text_hash(x) for x in TEXTS], ["2"]).any()
    assert len(ours.stores["mean"].read(hashes, ["2"])["2"]) == len(TEXTS)


def replace_store(source: EmbeddingSource, pooling: str = "mean") -> Any:
    """A store of one's own, as another process has: those of one process are shared."""
    store = source.stores[pooling]
    return type(store)(store.folder.parent, store.spec)


def test_padded_texts_are_not_extracted_again(
    machine: Machine, bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerfusion.published import padded

    options = ExtractConfig(token_budget=64)
    ours, theirs = (source_of(bert_folder, tmp_path, PADDED_POOLING) for _ in range(2))
    theirs = replace(theirs, stores={PADDED_MEAN: replace_store(theirs, PADDED_MEAN)})

    def other() -> None:
        extract_padded(theirs, [TEXTS], options)
        monkeypatch.setattr(padded, "load_backbone", refuse)

    with first(monkeypatch, other):
        extract_padded(ours, [TEXTS], options)
    assert len(ours.stores[PADDED_MEAN]) > 0


@pytest.fixture
def candidates(bert_folder: Path, tmp_path: Path) -> Candidates:
    source = source_of(bert_folder, tmp_path)
    source.extract([TEXTS], ExtractConfig(token_budget=64))
    layers = all_layers({"tiny": source})
    return Candidates(
        layers,
        read_lazily({"tiny": source}, layers, [text_hash(text) for text in TEXTS]),
        torch.arange(len(TEXTS)) % 3,
        torch.arange(len(TEXTS)) % 4,
        tuple(TEXTS),
        3,
        {"tiny": source},
    )


def test_probes_and_discriminants_are_not_fitted_again(
    machine: Machine, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is a name only: its tensors would be refused here."""
    expected: list[Any] = []
    layers, gpu = LayersConfig(), torch.device("cuda")

    def other() -> None:
        if not expected:
            expected.append(held_out_blends(candidates, layers, torch.device("cpu")))
        monkeypatch.setattr(blends, "cross_validate_discriminant", refuse)

    with first(monkeypatch, other):
        found = held_out_blends(candidates, layers, gpu)
    for one, right in zip(found, expected[0], strict=True):
        torch.testing.assert_close(one.log_probs, right.log_probs)


def test_probes_that_lack_a_layer_are_fitted_for_it_alone(
    machine: Machine, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, cpu = LayersConfig(), torch.device("cpu")
    right, fitted = held_out.cross_validate_in_batches, list[int]()

    def noted(features: Any, *rest: Any, **more: Any) -> Any:
        fitted.append(len(features))
        return right(features, *rest, **more | {"device": cpu})

    monkeypatch.setattr(held_out, "cross_validate_in_batches", noted)
    expected, _ = held_out.held_out_probes(candidates.take([0, 1]), layers, cpu)
    (candidates.sources["tiny"].cache / "scores").rename(candidates.sources["tiny"].cache / "old")

    def other() -> None:
        held_out.held_out_probes(candidates.take([0]), layers, cpu)

    with first(monkeypatch, other):
        found, _ = held_out.held_out_probes(candidates.take([0, 1]), layers, torch.device("cuda"))
    assert fitted == [2, 1, 1]
    for one, before in zip(found, expected, strict=True):
        torch.testing.assert_close(one.log_probs, before.log_probs, rtol=1e-3, atol=1e-3)
    again, _ = held_out.held_out_probes(candidates.take([0, 1]), layers, cpu)
    assert fitted == [2, 1, 1]  # both are kept
    assert len(again) == 2


def test_scores_of_a_model_are_not_computed_again(
    machine: Machine, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = candidates.models["tiny"]

    def other() -> None:
        backbone_scores.sample_attention(source, TEXTS, ExtractConfig(device="cpu"))
        monkeypatch.setattr(backbone_scores, "load_backbone", refuse)

    with first(monkeypatch, other):
        found, _ = backbone_scores.sample_attention(source, TEXTS, ExtractConfig())
    assert set(found) <= {layer.layer for layer in candidates.layers}


# -- whole jobs -----------------------------------------------------------------------------------


def tensors_left() -> int:
    """Number of the tensors that are on the pretended GPU."""
    gc.collect()
    return sum(type(x) is OnGpu for x in gc.get_objects())


@pytest.mark.parametrize(
    "settings",
    [
        {"fusion": "gated_stack", "layers": "all"},
        {"fusion": "auto", "layers": "adaptive", "layers.folds": 2},
        {"fusion": "gated", "layers": "top_k", "layers.score": "gradient"},
        {"fusion": "gated", "layers": "top_k", "layers.score": "attention_entropy"},
    ],
)
def test_all_that_is_computed_on_a_gpu_is_within_a_turn(
    settings: dict[str, Any],
    machine: Machine,
    bert_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_size, "GPU_BUDGETS", (256, 512))
    put, there, left = pretended_gpu_module._put, list[bool](), list[int]()

    def noted(x: Any) -> Any:
        found = put(x)
        if found is not x and isinstance(found, torch.Tensor):
            there.append(gpus._job is not None and gpus._job.has_turn)
        return found

    monkeypatch.setattr(pretended_gpu_module, "_put", noted)
    (tmp_path / "tiny").symlink_to(bert_folder)
    with pretended_gpu(), taking_turns(spread=False), monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "empty_cache", lambda: left.append(tensors_left()))
        lf.LayerFusionClassifier(
            tmp_path / "tiny", device="auto", settings=settings, cache=tmp_path / "cache"
        ).fit(TEXTS, LABELS)
        assert machine.free == ["b", "a"]
    assert there
    assert all(there)
    assert left
    assert not any(left)


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (["layers=last,all", "fusion=gated,concat"], False),
        (["layers=last", "fusion=gated", "extract.device=cpu"], False),
        (["layers=last", "fusion=gated", "trainer.accelerator=gpu"], True),
        (["layers=last", "fusion=gated", "time_limit=600"], True),
    ],
)
def test_jobs_on_cached_vectors_wait_for_no_gpu(
    words: list[str],
    needs: bool,
    machine: Machine,
    bert_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = tiny_job(tiny_texts(tmp_path / "texts.csv", 60), bert_folder, tmp_path / "cache")
    assert main(["extract", *job]) == 0
    asked: list[Any] = []

    def none_is_free(*_words: Any) -> Any:
        asked.append(True)
        raise RuntimeError("it would wait")

    monkeypatch.setattr(gpus, "free_gpu", none_is_free)
    outputs = [f"paths.outputs={tmp_path / 'outputs'}", "logger=none", "seeds=1", "by_folds=false"]
    failed = main(["train", "-m", *job, *outputs, "fusion.width=8", *words])
    assert bool(asked) == needs
    assert bool(failed) == needs
    assert ("RuntimeError: it would wait" in capsys.readouterr().err) == needs


def test_a_job_that_extracts_takes_a_gpu_for_that_alone(
    machine: Machine, bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerfusion.runs import heads

    job = tiny_job(tiny_texts(tmp_path / "texts.csv", 60), bert_folder, tmp_path / "cache")
    free: dict[str, list[str]] = {}
    for module, name in ((backbone_loading, "load_backbone"), (heads, "fit_together")):
        right = getattr(module, name)

        def noted(*words: Any, _right: Any = right, _name: str = name, **more: Any) -> Any:
            free[_name] = machine.free
            return _right(*words, **more)

        monkeypatch.setattr(module, name, noted)
    outputs = [f"paths.outputs={tmp_path / 'outputs'}", "logger=none", "seeds=1", "by_folds=false"]
    grid = ["layers=last", "fusion=gated", "fusion.width=8"]
    assert main(["train", "-m", *job, *outputs, *grid]) == 0
    assert free == {"load_backbone": ["a"], "fit_together": ["b", "a"]}
