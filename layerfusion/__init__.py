"""LayerFusion: which layers of which frozen language models carry the signal for your texts.

The names in `__all__` are public; everything else may change. Each is imported when it is first
used, so that `import layerfusion` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from layerfusion.commands.hub import push_to_hub as push_to_hub
    from layerfusion.commands.python import embed as embed
    from layerfusion.commands.python import extract as extract
    from layerfusion.commands.python import load_dataset as load_dataset
    from layerfusion.commands.python import open_backbones as open_backbones
    from layerfusion.commands.python import profile_layers as profile_layers
    from layerfusion.commands.python import select_layers as select_layers
    from layerfusion.commands.python import train as train
    from layerfusion.commands.python import write_report as write_report
    from layerfusion.config.job import FusionConfig as FusionConfig
    from layerfusion.config.job import TrainerConfig as TrainerConfig
    from layerfusion.errors import UserError as UserError
    from layerfusion.estimators.classifier import LayerFusionClassifier as LayerFusionClassifier
    from layerfusion.estimators.embedder import TextEmbedder as TextEmbedder
    from layerfusion.estimators.ranking import rank as rank
    from layerfusion.findings.frame import results as results
    from layerfusion.fusion.classifier import FusionClassifier as FusionClassifier
    from layerfusion.fusion.data import FusionDataModule as FusionDataModule
    from layerfusion.fusion.operators import FusionOperator as FusionOperator
    from layerfusion.fusion.training import fit as fit
    from layerfusion.layers.score import Score as Score
    from layerfusion.report.plots import plot_cost as plot_cost
    from layerfusion.report.plots import plot_fusion as plot_fusion
    from layerfusion.report.plots import plot_layers as plot_layers
    from layerfusion.runs.bundle_loading import load_bundle as load
    from layerfusion.texts.dataset import TextDataset as TextDataset

_PUBLIC = {
    "LayerFusionClassifier": "layerfusion.estimators.classifier:LayerFusionClassifier",
    "TextEmbedder": "layerfusion.estimators.embedder:TextEmbedder",
    "rank": "layerfusion.estimators.ranking:rank",
    "load_dataset": "layerfusion.commands.python:load_dataset",
    "TextDataset": "layerfusion.texts.dataset:TextDataset",
    "open_backbones": "layerfusion.commands.python:open_backbones",
    "extract": "layerfusion.commands.python:extract",
    "embed": "layerfusion.commands.python:embed",
    "profile_layers": "layerfusion.commands.python:profile_layers",
    "select_layers": "layerfusion.commands.python:select_layers",
    "Score": "layerfusion.layers.score:Score",
    "FusionDataModule": "layerfusion.fusion.data:FusionDataModule",
    "FusionClassifier": "layerfusion.fusion.classifier:FusionClassifier",
    "FusionOperator": "layerfusion.fusion.operators:FusionOperator",
    "FusionConfig": "layerfusion.config.job:FusionConfig",
    "TrainerConfig": "layerfusion.config.job:TrainerConfig",
    "fit": "layerfusion.fusion.training:fit",
    "train": "layerfusion.commands.python:train",
    "load": "layerfusion.runs.bundle_loading:load_bundle",
    "push_to_hub": "layerfusion.commands.hub:push_to_hub",
    "results": "layerfusion.findings.frame:results",
    "write_report": "layerfusion.commands.python:write_report",
    "plot_layers": "layerfusion.report.plots:plot_layers",
    "plot_fusion": "layerfusion.report.plots:plot_fusion",
    "plot_cost": "layerfusion.report.plots:plot_cost",
    "UserError": "layerfusion.errors:UserError",
}
"""Public name to where it is defined."""

__all__ = [
    "FusionClassifier",
    "FusionConfig",
    "FusionDataModule",
    "FusionOperator",
    "LayerFusionClassifier",
    "Score",
    "TextDataset",
    "TextEmbedder",
    "TrainerConfig",
    "UserError",
    "embed",
    "extract",
    "fit",
    "load",
    "load_dataset",
    "open_backbones",
    "plot_cost",
    "plot_fusion",
    "plot_layers",
    "profile_layers",
    "push_to_hub",
    "rank",
    "results",
    "select_layers",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    from layerfusion.errors import naming_extras

    with naming_extras():
        found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
