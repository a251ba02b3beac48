"""The report of a study: one self-contained page, every figure as PNG and SVG, every table as CSV and Parquet."""

from .corpus import Corpus
from .report import Report, check_folder, write_report
from .section import LeftOut, Missing, Picture, Section, Table, attempt

__all__ = [
    "Corpus",
    "LeftOut",
    "Missing",
    "Picture",
    "Report",
    "Section",
    "Table",
    "attempt",
    "check_folder",
    "write_report",
]
