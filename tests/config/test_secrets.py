"""Keys and tokens that stand where they should not: none may reach a file, a message or W&B."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.cli import main
from layerfusion.config.secrets import redact, redact_line, redacted, shown
from tests.tiny import tiny_folder, tiny_job, tiny_texts

PLANTED = "PLANTED"
TOKEN = f"hf_{PLANTED}abcdefghijklmnop"


@pytest.mark.parametrize(
    "line",
    [
        f"dataset.path=/data/{TOKEN}/x.csv",
        f"https://me:{PLANTED}@host.org/a",
        f"https://{PLANTED}token@host.org/a",
        f"https://host.org/a?x=1&access_token={PLANTED}&y=2",
        f"https://bucket.s3.org/a?X-Amz-Signature={PLANTED}",
        f"+hydra.job.env_set.WANDB_API_KEY={PLANTED}",
        f"hydra:\n  job:\n    env_set:\n      HF_TOKEN: {PLANTED}\n",
        f"{{'api_key': '{PLANTED}', 'x': 1}}",
        f"password={PLANTED}",
        f"Authorization failed for github_pat_{PLANTED}0123456789",
    ],
)
def test_a_key_is_hidden(line: str) -> None:
    assert PLANTED not in redact_line(line)
    assert "<hidden>" in redact_line(line)


@pytest.mark.parametrize(
    "line",
    [
        "extract.token_budget=512 tokenizer=slow shard_tokens: 4",
        "https://host.org/a?page=2 mail me@host.org",
        "TOKENIZERS_PARALLELISM=false",
        "hf_models/minilm and sk-learn",
        "3e96cbf05b6ad3b1be5c9cf0a1d2e3f405162738",  # a commit
    ],
)
def test_what_is_no_key_stays(line: str) -> None:
    assert redact_line(line) == line


def test_keys_of_the_environment_are_known_by_their_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", f"{PLANTED}0123")
    monkeypatch.setenv("SHORT_KEY", "of")
    assert redact(f"401 for {PLANTED}0123 of me") == "401 for <hidden> of me"


def test_a_config_loses_its_keys_and_nothing_else() -> None:
    config = {"a": [TOKEN, 1, None, True], "token": "x", "pad_token": "<pad>", "n": {"api_key": ""}}
    assert redacted(config) == {**config, "a": ["<hidden>", 1, None, True], "token": "<hidden>"}


def test_a_line_cannot_control_the_terminal() -> None:
    assert shown("\x1b]0;title\x07 a\tb\x9b2J") == "\N{REPLACEMENT CHARACTER}]0;title" + (
        "\N{REPLACEMENT CHARACTER} a\tb\N{REPLACEMENT CHARACTER}2J"
    )


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", f"{PLANTED}-of-the-environment")
    texts, model = tiny_texts(tmp_path / "texts.csv", 40), tiny_folder("bert", tmp_path / "bert")
    words = ["seeds=1", "fusion.width=4", f"logger.tags=[{TOKEN},{PLANTED}-of-the-environment]"]
    words += [f"+hydra.job.env_set.OTHER_TOKEN={PLANTED}", "logger.mode=offline"]
    words += [f"dataset.description='https://me:{PLANTED}@host.org'"]
    return [*tiny_job(texts, model, tmp_path / "cache"), *words]


def planted(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if PLANTED.encode() in path.read_bytes()]


def test_no_file_of_a_job_has_a_key(
    job: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *job]) == 0
    assert list(tmp_path.glob("outputs/runs/*/wandb/offline-run-*/*.wandb"))
    assert (next(tmp_path.glob("outputs/runs/*")) / ".hydra/overrides.yaml").is_file()
    assert planted(tmp_path) == []
    assert PLANTED not in "".join(capfd.readouterr())


def test_no_file_or_line_of_a_failure_has_a_key(
    job: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lost = [f"dataset.path=/nowhere/{TOKEN}", "seed=1,2"]
    assert main(["train", "-m", *job, *lost]) == 1
    assert len(list(tmp_path.glob("outputs/sweeps/main/*/failed.txt"))) == 2
    assert main(["train", *job, lost[0]]) == 2
    assert main(["train", *job, f"seeds={TOKEN}"]) == 2
    assert main(["train", *job, f"logger.api_key={PLANTED}"]) == 2
    assert main(["status", "outputs/sweeps/main"]) == 0
    assert planted(tmp_path) == []
    assert PLANTED not in "".join(capfd.readouterr())
