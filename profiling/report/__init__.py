"""The report of a study: one self-contained page, every figure as PNG and SVG, every table as CSV and Parquet."""

from .report import Report, check_folder, write_report
from .section import LeftOut, Picture, Section
from .tables import Table

__all__ = ["LeftOut", "Picture", "Report", "Section", "Table", "check_folder", "write_report"]
