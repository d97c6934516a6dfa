"""What results say, to be handed over: a page, Markdown, figures. Reads JSON, and knows no model."""

from keras_remos.report.envelope import envelope, of_file
from keras_remos.report.figures import write_figures
from keras_remos.report.folder import check_audit_folder
from keras_remos.report.markdown import markdown
from keras_remos.report.page import page
from keras_remos.report.results import Result, open_results
from keras_remos.report.writer import FORMATS, check_installed, default_path, write_report

__all__ = [
    "FORMATS",
    "Result",
    "check_audit_folder",
    "check_installed",
    "default_path",
    "envelope",
    "markdown",
    "of_file",
    "open_results",
    "page",
    "write_figures",
    "write_report",
]
