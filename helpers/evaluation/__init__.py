"""Scores and how sure they are. Explained in lesson 08; lessons 00 and 05 use the first of them.

`records` scores JSON records (need `extract`), `answers` short answers and abstention (`answer`), `labels` closed labels and
their probabilities (`tone`), `text` generated text and its style (`reply`), `ranking` what a search found, `probe` the general
probe, `likelihood` how probable a model finds a text. `judge` lets a model compare two answers, `kappa` says how far two raters
agree, `rules` holds numbers against rules that were written before them. `intervals` says how sure a score or a difference is.
A score is an array with one value per row, shape (rows,), so that each can get an interval or a paired comparison.
"""

from .answers import abstains, abstention, answer_right
from .intervals import Interval, Values, bootstrap, compare_paired, permutation_test, proportion, rows_needed
from .judge import Judgements, agreement, judge_messages, judge_pairs, length_bias, position_bias
from .kappa import cohens_kappa
from .labels import NO_LABEL, Calibration, brier, calibration, confusion, label_accuracy, macro_f1_labels
from .likelihood import Perplexity, perplexity
from .probe import passes
from .ranking import ndcg_at_k, recall_at_k, reciprocal_rank
from .records import exact_match, f1, field_counts, field_f1, macro_f1, parse_record, report, valid_json, valid_record
from .rules import Card, Rule, card, rules_hash
from .text import bleu, chrf, rouge_l, style_scores

__all__ = [
    "NO_LABEL", "Calibration", "Card", "Interval", "Judgements", "Perplexity", "Rule", "Values", "abstains", "abstention", "agreement",
    "answer_right", "bleu", "bootstrap", "brier", "calibration", "card", "chrf", "cohens_kappa", "compare_paired", "confusion",
    "exact_match", "f1", "field_counts", "field_f1", "judge_messages", "judge_pairs", "label_accuracy", "length_bias", "macro_f1",
    "macro_f1_labels", "ndcg_at_k", "parse_record", "passes", "permutation_test", "perplexity", "position_bias", "proportion",
    "recall_at_k", "reciprocal_rank", "report", "rouge_l", "rows_needed", "rules_hash", "style_scores", "valid_json", "valid_record",
]
