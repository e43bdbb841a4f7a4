from __future__ import annotations

import gc
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# One thread a test process: the machine's cores go to the processes of pytest-xdist.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

settings.register_profile("any machine", deadline=None)  # a busy one may take its time
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """What the tests' modules import stays to the end: the collector need not go through it again.

    It would do so a few hundred times, each of which takes longer than most tests do.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """A test that changes the environment or the working folder has to put them back."""
    environment, folder = dict(os.environ), Path.cwd()
    yield
    ours = {
        key for key in os.environ if not key.startswith(("PYTEST_", "WANDB_", "_WANDB", "TORCH"))
    }
    changed = {key for key in ours if os.environ[key] != environment.get(key)}
    # Lightning and transformers settle a few of their own when they are first imported.
    changed -= {"PL_GLOBAL_SEED", "PL_SEED_WORKERS", "KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK"}
    changed -= {"PYTORCH_NVML_BASED_CUDA_CHECK"}
    assert not changed, f"the test left {sorted(changed)} in the environment"
    assert Path.cwd() == folder, "the test left another working folder"


@pytest.fixture(autouse=True)
def no_user_folders() -> Iterator[None]:
    """The folders that one test gives by --config-dir are not those of the next."""
    from layerfusion.config.imports import import_from

    yield
    import_from(())


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Hydra sets up logging for the whole process; the next test starts without."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, logging.FileHandler):  # of a command that a wider fixture ran
            root.removeHandler(handler)
            handler.close()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import tiny_folder

    return tiny_folder("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import tiny_folder

    return tiny_folder("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    from tests.tiny import WORDS

    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 40, 120)
    return [f"{' '.join(generator.choice(WORDS, size))} {n}" for n, size in enumerate(sizes)]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing outside this machine can be reached."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
