"""The report: from the records of finished jobs to tables, figures and one self-contained page."""

from layerfusion.report.block import Block, Bullets, Folded
from layerfusion.report.figures.canvas import drawing
from layerfusion.report.findings.tests import Finding, Findings
from layerfusion.report.format import COUNT, NAME, PERCENT, POINTS, Format, decimals
from layerfusion.report.jobs import FinishedJob
from layerfusion.report.load import DataGroup
from layerfusion.report.page import write_report
from layerfusion.report.plots import (
    plot_cost,
    plot_fusion,
    plot_gates,
    plot_layers,
    plot_scores,
    plot_similarity,
)
from layerfusion.report.table import Cell, Column, Table

__all__ = [
    "COUNT",
    "NAME",
    "PERCENT",
    "POINTS",
    "Block",
    "Bullets",
    "Cell",
    "Column",
    "DataGroup",
    "Finding",
    "Findings",
    "FinishedJob",
    "Folded",
    "Format",
    "Table",
    "decimals",
    "drawing",
    "plot_cost",
    "plot_fusion",
    "plot_gates",
    "plot_layers",
    "plot_scores",
    "plot_similarity",
    "write_report",
]
