"""What results say, to be handed over: a page, Markdown, figures. Reads JSON, and knows no model."""

from keras_remos.report.envelope import envelope, of_file
from keras_remos.report.results import Result, open_results
from keras_remos.report.writer import write_report

__all__ = ["Result", "envelope", "of_file", "open_results", "write_report"]
