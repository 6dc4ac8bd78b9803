"""A result as one HTML file: verdict, figures, layers, spectra, curves, decisions; nothing is loaded from a network."""

from tuckertree.tools.html_report.making import default_output, write_report
from tuckertree.tools.html_report.writing import page_html

__all__ = ["default_output", "page_html", "write_report"]
