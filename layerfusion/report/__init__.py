"""From finished jobs to tables, figures and one self-contained page."""

from layerfusion.report.page import write_report

__all__ = ["write_report"]
