"""Tiny wheels, and a package index that serves them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from layerfusion.config.assets import SourceConfig, WheelPart


def write_wheel(folder: Path, name: str, members: Mapping[str, bytes]) -> WheelPart:
    """Write a wheel that holds these members, and return it as a pinned part."""
    path = folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in members.items():
            wheel.writestr(member, content)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", "Name: fake")
    return WheelPart(name, "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


def wheel_source(*parts: WheelPart, **settings: str) -> SourceConfig:
    return SourceConfig(wheel=list(parts), **settings)  # type: ignore[arg-type]


class FinishedProcess:
    """What `pip_download` returns, for a download that is over at once."""

    def __init__(self, returncode: int = 0) -> None:
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode


class FakeIndex:
    """Stands in for `pip_download`: copies wheels from a folder and counts the downloads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.message = ""
        """With one, every download fails and says so in pip's words."""

    def __call__(self, requirement: str, folder: Path) -> FinishedProcess:
        self.asked.append(requirement)
        name = requirement.split("==")[0].replace("-", "_")
        found = list(self.folder.glob(f"{name}-*.whl"))
        if self.message or not found:
            message = self.message or f"ERROR: No matching distribution found for {requirement}"
            (folder / "pip.log").write_text(f"WARNING: slow\n{message}\n")
            return FinishedProcess(1)
        (folder / found[0].name).write_bytes(found[0].read_bytes())
        return FinishedProcess()


def weights(size: int = 3) -> bytes:
    """A safetensors file of one array of bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


MODEL = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": weights(),
}


def write_model(folder: Path, **changes: bytes | None) -> Path:
    """Write the files that a model's folder must have; `config_json=None` leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {name.replace("_json", ".json").replace("_", "."): c for name, c in changes.items()}
    for name, content in {**MODEL, **named}.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder
