"""Writes what is made from code: `python -m tests.monitoring_files`. Tests refuse files that differ from it."""

from actors.exported_metrics import table
from tests.product import ROOT

DOCS = ROOT / "docs" / "metrics.md"
MARK = "<!-- from actors/exported_metrics.py: python -m tests.monitoring_files -->\n"


def docs() -> str:
    """docs/metrics.md: what stands before the mark is written by hand."""
    return DOCS.read_text().partition(MARK)[0] + MARK + "\n" + table()


if __name__ == "__main__":
    DOCS.write_text(docs())
