"""Keeps keys and tokens out of what is written and shown: logs, records, configs and messages.

A key has its place in the environment or in the login of its service. Where one stands in a
command, a URL or a message all the same, it is replaced by `HIDDEN` before the line is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "<hidden>"
LEAST = 8
"""Characters of a variable's value below which it is no key, and may be a part of any word."""
_VARIABLE = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")
"""Variables of the environment that hold a key."""
_FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}"
    r"|github_pat_\w{16,}|glpat-[\w-]{16,}|AKIA[A-Z0-9]{12,}|wandb_v\d+_\w{16,})"
)
"""Keys that can be told by their form."""
_IN_URL = re.compile(r"(?<=://)[^\s/@'\"]+(?=@)")
_IN_QUERY = re.compile(
    r"([?&][\w.-]*(?:token|key|sig|signature|password|secret|credential)=)[^\s&'\"#]+", re.I
)
_NAMED = re.compile(
    r"([\w.-]*(?:token|api[_-]?key|access[_-]?key|password|passwd|secret)['\"]?\s*[=:]\s*['\"]?)"
    r"(?!<hidden>)[^\s'\",}\]&]+",
    re.I,
)
"""`NAME=KEY` and `NAME: KEY`, as in a command or a config."""
_KEY = re.compile(
    r"(.*_)?(api_?key|access_?key|password|passwd|secret)"
    r"|((hf|hub|wandb|api|.*auth|.*access|.*huggingface)_?)?token",
    re.I,
)
"""Keys of a mapping whose values are hidden; `pad_token` and the like are none."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def redact(text: str) -> str:
    """Hide the keys of the environment, those that their form tells, and those in a URL.

    Example:
        >>> redact("https://me:pw@host.org/a?token=abc could not be read")
        'https://<hidden>@host.org/a?token=<hidden> could not be read'
    """
    for name, value in os.environ.items():
        if len(value) >= LEAST and value in text and _VARIABLE.search(name.upper()):
            text = text.replace(value, HIDDEN)
    text = _IN_URL.sub(HIDDEN, _FORMS.sub(HIDDEN, text))
    return _IN_QUERY.sub(rf"\1{HIDDEN}", text)


def redact_line(text: str) -> str:
    """Hide what `redact` does and, as in a command or a config, what stands after a key's name.

    Example:
        >>> redact_line("+hydra.job.env_set.HF_TOKEN=abc limit.train=9 extract.token_budget=512")
        '+hydra.job.env_set.HF_TOKEN=<hidden> limit.train=9 extract.token_budget=512'
    """
    return _NAMED.sub(rf"\1{HIDDEN}", redact(text))


def shown(text: str) -> str:
    """Make a line fit for a terminal: no keys, and no characters that control the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", redact_line(text))


def redacted(value: Any) -> Any:
    """Copy plain data, such as a config or a record, without the keys in it.

    Example:
        >>> redacted({"api_key": "abc", "tags": ["a", "hf_abcdefghijklmnopqrst"], "pad_token": "p"})
        {'api_key': '<hidden>', 'tags': ['a', '<hidden>'], 'pad_token': 'p'}
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN
            if isinstance(entry, str) and entry and _KEY.fullmatch(str(key))
            else redacted(entry)
            for key, entry in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)(map(redacted, value))
    return value
