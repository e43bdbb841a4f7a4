"""The report: from the records of finished jobs to tables, figures and one self-contained page.

These names are for blocks of one's own (docs/extend.md) and for notebooks.
"""

from layerfusion.findings.groups import DataGroup as DataGroup
from layerfusion.findings.tests import Findings as Findings
from layerfusion.report.block import Block as Block
from layerfusion.report.block import Bullets as Bullets
from layerfusion.report.block import Folded as Folded
from layerfusion.report.figures.canvas import drawing as drawing
from layerfusion.report.format import COUNT as COUNT
from layerfusion.report.format import NAME as NAME
from layerfusion.report.format import PERCENT as PERCENT
from layerfusion.report.format import POINTS as POINTS
from layerfusion.report.format import decimals as decimals
from layerfusion.report.page import write_comparison as write_comparison
from layerfusion.report.page import write_report as write_report
from layerfusion.report.plots import plot_cost as plot_cost
from layerfusion.report.plots import plot_fusion as plot_fusion
from layerfusion.report.plots import plot_gates as plot_gates
from layerfusion.report.plots import plot_layers as plot_layers
from layerfusion.report.plots import plot_scores as plot_scores
from layerfusion.report.plots import plot_similarity as plot_similarity
from layerfusion.report.table import Cell as Cell
from layerfusion.report.table import Column as Column
from layerfusion.report.table import Table as Table
