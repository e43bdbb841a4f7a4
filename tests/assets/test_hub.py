"""The hub is stood in for: what is tested is what this program does with its answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest
from huggingface_hub import errors

from layerfusion.assets import available, resolve
from layerfusion.config.assets import SourceConfig
from layerfusion.config.job import DatasetConfig, LimitConfig
from layerfusion.errors import UserError
from layerfusion.texts import load_dataset
from tests.assets.fakes import write_model

COMMIT = "a" * 40
CONVERTED = "b" * 40


class FakeHub:
    """A hub with one repository, and a list of the revisions asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, list[str]] = {"main": ["config.json", "model.safetensors"]}
        self.offers: list[str] = []
        self.error: Exception | None = None
        self.revisions: list[str] = []
        self.downloaded: list[dict[str, Any]] = []
        self.data: Any = None

    def info(self, repo: str, *, revision: str, timeout: float) -> Any:
        if self.error:
            raise self.error
        self.revisions.append(revision)
        sha = {"main": COMMIT, COMMIT: COMMIT, "refs/pr/2": CONVERTED}[revision]
        there = self.files["main" if revision == COMMIT else revision]
        files = [SimpleNamespace(rfilename=name) for name in there]
        return SimpleNamespace(sha=sha, siblings=files)

    def discussions(self, repo: str, **wanted: Any) -> Any:
        return [SimpleNamespace(git_reference=offer) for offer in self.offers]

    def snapshot_download(self, repo: str, *, revision: str, **settings: Any) -> str:
        folder = self.folder / revision
        if settings.get("local_files_only"):
            if not folder.is_dir():
                raise errors.LocalEntryNotFoundError("not here")
            return str(folder)
        self.downloaded.append({"revision": revision, **settings})
        return str(write_model(folder))

    def load_dataset(self, repo: str, *, name: str | None, revision: str) -> Any:
        assert revision == COMMIT
        return self.data


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda _self, *a, **k: fake.info(*a, **k)
    )
    monkeypatch.setattr(
        huggingface_hub.HfApi, "dataset_info", lambda _self, *a, **k: fake.info(*a, **k)
    )
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "get_repo_discussions",
        lambda _self, *a, **k: fake.discussions(*a, **k),
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(datasets, "load_dataset", fake.load_dataset)
    return fake


SOURCE = SourceConfig(hub="owner/name")


def test_model_carries_the_commit_and_is_asked_for_once(hub: FakeHub, cache: Path) -> None:
    assert available([SOURCE], key="backbone.mine", kind="backbone", cache=cache) is None
    asset = resolve([SOURCE], key="k", kind="backbone", cache=cache)
    assert asset.origin == f"hub owner/name@{COMMIT}"
    assert not any(pattern.endswith(".bin") for pattern in hub.downloaded[0]["allow_patterns"])
    assert resolve([SOURCE], key="k", kind="backbone", cache=cache) == asset
    assert available([SOURCE], key="backbone.mine", kind="backbone", cache=cache) == asset
    assert hub.revisions == ["main"]
    assert len(hub.downloaded) == 1


def test_half_a_snapshot_is_fetched_again_at_its_commit(hub: FakeHub, cache: Path) -> None:
    folder = resolve([SOURCE], key="k", kind="backbone", cache=cache).path
    (folder / "model.safetensors").unlink()
    assert available([SOURCE], key="backbone.mine", kind="backbone", cache=cache) is None
    asset = resolve([SOURCE], key="k", kind="backbone", cache=cache)
    assert (asset.path / "model.safetensors").is_file()
    assert hub.revisions == ["main", COMMIT]


def test_safetensors_of_the_converter_are_taken_over_pickles(hub: FakeHub, cache: Path) -> None:
    hub.files = {"main": ["pytorch_model.bin"], "refs/pr/2": ["model.safetensors"]}
    hub.offers = ["refs/pr/2"]
    asset = resolve([SOURCE], key="k", kind="backbone", cache=cache)
    assert asset.origin == f"hub owner/name@{CONVERTED}"


def test_pickles_only_is_refused(hub: FakeHub, cache: Path) -> None:
    hub.files = {"main": ["pytorch_model.bin"]}
    with pytest.raises(UserError, match=r"k: hub owner/name holds no safetensors \(pytorch_model"):
        resolve([SOURCE], key="k", kind="backbone", cache=cache)
    assert hub.downloaded == []


@pytest.mark.parametrize("kind", ["backbone", "dataset"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.LocalEntryNotFoundError("x\ny"), "the hub cannot be reached"),
        (errors.OfflineModeIsEnabled("x"), "offline mode is on"),
        (ConnectionError("x"), "the hub cannot be reached"),
        (ValueError("two\nlines"), "two lines"),
    ],
)
def test_reason_is_one_short_line(
    hub: FakeHub, cache: Path, kind: str, error: Exception, reason: str
) -> None:
    hub.error = error
    with pytest.raises(UserError, match=f"hub owner/name: {reason}") as caught:
        resolve([SOURCE], key="k", kind=kind, cache=cache)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_errors_of_the_http_library_are_caught_whatever_it_is(hub: FakeHub, cache: Path) -> None:
    base = next(c for c in errors.HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
    transport = next(c for c in base.__subclasses__() if c.__name__ == "RequestError")
    hub.error = transport("name or service not known")  # type: ignore[assignment]
    with pytest.raises(UserError, match="cannot be reached"):
        resolve([SOURCE], key="k", kind="backbone", cache=cache)


def test_dataset_is_kept_on_disk_and_read_without_the_hub(hub: FakeHub, cache: Path) -> None:
    features = datasets.Features(
        {"body": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )

    def part(count: int) -> datasets.Dataset:
        rows = {"body": [f"text {n}" for n in range(count)], "label": [n % 2 for n in range(count)]}
        return datasets.Dataset.from_dict(rows, features=features)

    hub.data = datasets.DatasetDict({"train": part(20), "dev": part(4), "test": part(6)})
    config = DatasetConfig(name="h", hub="owner/name", subset="plain", text="body")
    first = load_dataset(config, LimitConfig(), seed=0, cache=cache)
    assert first.label_names == ("no", "yes")
    assert {split: len(rows) for split, rows in first.splits.items()} == {
        "train": 20,
        "validation": 4,
        "test": 6,
    }
    hub.error = ConnectionError("gone")
    assert load_dataset(config, LimitConfig(), seed=0, cache=cache).fingerprint == first.fingerprint
