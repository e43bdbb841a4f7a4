"""Folders of sentence-transformers: where the language model lies, and what else they ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerfusion.assets.archives import is_pickle
from layerfusion.assets.files import parse_json
from layerfusion.assets.models import MODULES, check_whole, read_object, refuse_pointer
from layerfusion.errors import UserError, one_line

CLASS_KEYS = ("type", "types", "tokenizer_class", "activation_function")
"""Keys of the files of a pipeline that name a class to import."""
OWN_CLASSES = ("sentence_transformers.", "torch.nn.")
"""Begin the names of the classes that may be imported."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Files beside which pickles of the same weights are never read."""
POOLS = {"cls": "first", "mean": "mean", "max": "max", "lasttoken": "last"}
"""Poolings of sentence-transformers to the names of ours."""


def transformer_folder(folder: Path, key: str) -> Path:
    """Find the folder of the language model, which old versions put into a folder of its own.

    Args:
        folder: folder of a model, of sentence-transformers or not.
        key: config key, for messages.

    Raises:
        UserError: if modules.json names something else than a language model.
    """
    modules = _modules(folder, key)
    if not modules or (folder / "config.json").is_file():
        return folder
    inner = _inside(folder, modules[0], key)
    if not (inner / "config.json").is_file():
        raise UserError(
            f"{key}: {folder}: {MODULES} begins with {_kind(modules[0])}, which has no config.json"
            f" in {inner.name}/; a language model is needed, or {key}.pipeline= takes its vectors"
            " as they are"
        )
    return inner


def check_pipeline(folder: Path, key: str) -> None:
    """Check that a folder is a pipeline of sentence-transformers, whole and without code.

    Args:
        folder: the folder.
        key: config key, for messages.

    Raises:
        UserError: naming what is missing, damaged or refused.
    """
    modules = _modules(folder, key)
    if not modules:
        model = key.replace(".pipeline", ".path")
        raise UserError(
            f"{key}: {folder} has no {MODULES}, so that it is no pipeline of sentence-transformers;"
            f" a language model is named by {model}="
        )
    for module in modules:
        _inside(folder, module, key)
    for file in sorted(folder.rglob("*")):
        if is_pickle(file.name) and not any((file.parent / name).is_file() for name in WEIGHTS):
            raise UserError(
                f"{key}: {file} is a pickle, which may run code: refused; save the pipeline as"
                " safetensors (save_pretrained does)"
            )
        if file.suffix in (".safetensors", ".json"):
            check_whole(file, key)
        if file.name == MODULES or file.name.endswith("config.json"):
            for name in _classes(_read(file, key)):
                if not name.startswith(OWN_CLASSES):
                    raise UserError(
                        f"{key}: {file} names {name}, which is no part of sentence-transformers:"
                        " refused, as code of a pipeline is never run"
                    )


def _inside(folder: Path, module: Mapping[str, Any], key: str) -> Path:
    """Return the folder of a part, which has to lie in that of the whole."""
    inner = folder / str(module.get("path", ""))
    if not inner.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{key}: {folder / MODULES} names a folder outside: {module['path']}")
    return inner


def _classes(value: Any, key: str = "") -> Iterator[str]:
    """Yield the names of classes that a file of a pipeline asks to be imported."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _classes(entry, key if key in CLASS_KEYS else name)
    elif isinstance(value, list):
        for entry in value:
            yield from _classes(entry, key)
    elif isinstance(value, str) and key in CLASS_KEYS and "." in value:
        yield value


@dataclass(frozen=True)
class Asked:
    """What a folder of sentence-transformers asks for that a job has keys for."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Keys of the model to their values: `max_length`, and `template` with its own prompt."""
    pooling: tuple[str, ...] = ()
    """Names of our poolings; empty where it has none, or one that we have not."""


def asked_for(folder: Path) -> Asked:
    """Read what a folder of sentence-transformers asks for; nothing of a folder of another kind.

    A damaged folder asks for nothing here: the job that opens it says what is wrong.
    """
    if not (folder / MODULES).is_file():
        return Asked()
    try:
        inner = transformer_folder(folder, "")
        settings: dict[str, Any] = {}
        longest = _sentence_config(inner).get("max_seq_length")
        if isinstance(longest, int) and longest > 0:
            settings["max_length"] = longest
        config = read_object(folder / "config_sentence_transformers.json")
        prompts, chosen = config.get("prompts"), config.get("default_prompt_name")
        prompt = prompts.get(chosen) if isinstance(prompts, dict) else None
        if isinstance(prompt, str) and prompt and not set(prompt) & {"{", "}"}:
            settings["template"] = f"{prompt}{{text}}"
        modules = [one for one in _modules(folder, "")[1:] if _kind(one) == "Pooling"]
        parts = [read_object(folder / str(one.get("path", "")) / "config.json") for one in modules]
    except UserError:
        return Asked()
    ours = [POOLS.get(mode) for part in parts for mode in _modes(part)]
    return Asked(settings, () if None in ours else tuple(filter(None, ours)))


def _sentence_config(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for file in sorted(folder.glob("sentence_*_config.json")):
        settings |= read_object(file)
    return settings


def sentence_settings(
    folder: Path, key: str, *, max_length: int | None, template: str, pools: Iterable[str]
) -> list[str]:
    """List what a folder of sentence-transformers asks for and a job does not do.

    Args:
        folder: folder of the language model: that of sentence-transformers, or one inside it.
        key: config key of the backbone.
        max_length: most tokens of a text in the job; None for as many as the model takes.
        template: prompt of the job.
        pools: names of the poolings of the job.

    Returns:
        Each setting in words, with the key that applies it where there is one.
    """
    root = folder if (folder / MODULES).is_file() else folder.parent
    found = []
    settings = _sentence_config(folder)
    longest = settings.get("max_seq_length")
    if isinstance(longest, int) and (max_length is None or longest < max_length):
        found.append(f"max_seq_length {longest} ({key}.max_length={longest})")
    if settings.get("do_lower_case") is True:
        found.append("lower-case texts (no key; change the texts)")
    for module in _modules(root, key)[1:]:
        place = root / str(module.get("path", ""))
        kind = _kind(module)
        if kind == "Pooling":
            found += _pooling(read_object(place / "config.json"), set(pools))
        elif kind == "Normalize":
            found.append("vectors of length 1 (no key; heads scale their inputs)")
        else:
            found.append(f"{kind} after pooling (no key)")
    if template == "{text}":
        found += _prompts(read_object(root / "config_sentence_transformers.json"), key)
    return found


def _modules(folder: Path, key: str) -> list[dict[str, Any]]:
    """Read the parts of a model; there are none in a folder of another kind.

    Args:
        folder: folder of a model.
        key: config key, for messages.

    Raises:
        UserError: if the file that lists them is damaged.
    """
    file = folder / MODULES
    if not file.is_file():
        return []
    modules = _read(file, key)
    whole = isinstance(modules, list) and all(isinstance(x, dict) for x in modules)
    paths = [module.get("path", "") for module in modules] if whole else [None]
    if not all(isinstance(path, str) and path.isprintable() for path in paths):
        raise UserError(f"{key}: {file} is damaged: it lists no modules with a path each")
    return modules


def _read(file: Path, key: str) -> Any:
    content = file.read_bytes()
    refuse_pointer(file, content, key)
    try:
        return parse_json(content.decode())
    except ValueError as error:
        raise UserError(f"{key}: {file} is no valid JSON: {one_line(error)}") from error


def _kind(module: Mapping[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _modes(config: Mapping[str, Any]) -> list[str]:
    """The poolings that a folder asks for, by the names of sentence-transformers."""
    modes = [
        name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for name, on in config.items()
        if name.startswith("pooling_mode_") and on is True
    ]
    stated = config.get("pooling_mode")
    return modes + (
        list(map(str, stated)) if isinstance(stated, list) else [str(stated)] * bool(stated)
    )


def _pooling(config: Mapping[str, Any], pools: set[str]) -> list[str]:
    """Say which pooling a folder asks for, unless the job has it."""
    modes = _modes(config)
    ours = [POOLS.get(mode) for mode in modes]
    if None in ours:
        return [f"pooling {'+'.join(modes)} (no key; a function of yours may pool)"]
    lacking = [name for name in ours if name not in pools]
    return [f"pooling {'+'.join(modes)} (pooling=[{','.join(map(str, ours))}])"] if lacking else []


def _prompts(config: Mapping[str, Any], key: str) -> list[str]:
    """Say which prompts a folder has, the one that it uses by default first."""
    prompts = config.get("prompts")
    if not isinstance(prompts, dict):
        return []
    chosen = config.get("default_prompt_name")
    order = sorted(prompts, key=lambda name: name != chosen)
    texts = list(dict.fromkeys(str(prompts[name]) for name in order if prompts[name]))
    if not texts:
        return []
    listed = ", ".join(map(repr, texts[:3]))
    return [f"prompts {listed} (for example '{key}.template=\"{texts[0]}{{text}}\"')"]
