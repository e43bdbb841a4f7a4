from __future__ import annotations

from pathlib import Path

import pytest

from tests.layers.sampled import WITH_ATTENTION
from tests.tiny import tiny_folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = (*WITH_ATTENTION, "fnet")
    return {name: tiny_folder(name, tmp_path_factory.mktemp(name)) for name in names}
