"""Scores and how sure they are. Explained in lesson 08; lessons 00 and 05 use the first of them.

`records` scores JSON records, `probe` the general probe, `intervals` says how sure a score or a difference is. A score
is an array with one value per row, shape (rows,), so that each can get an interval or a paired comparison.
"""

from .intervals import Interval, Values, bootstrap, compare_paired, proportion
from .probe import passes
from .records import exact_match, f1, field_counts, field_f1, macro_f1, parse_record, report, valid_json, valid_record

__all__ = [
    "Interval", "Values", "bootstrap", "compare_paired", "exact_match", "f1", "field_counts", "field_f1", "macro_f1", "parse_record",
    "passes", "proportion", "report", "valid_json", "valid_record",
]
