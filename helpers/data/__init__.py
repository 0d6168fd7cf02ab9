"""Chat JSONL and the desk's data sets: load, validate, split, describe, find near-duplicates. Explained in lessons 00 and 04.

`contract` reads and writes chat JSONL, `splits` divides and compares rows, `desk` loads the course's own data, `own` a learner's,
`schema` says what stands in it, `style` checks the house style of a reply.
"""

from .contract import ROLES, DataError, Row, load_chat, read_chat, strict_json, write_chat
from .desk import (
    ANSWER_INSTRUCTION,
    EXTRACT_INSTRUCTION,
    HERE,
    NOT_IN_DOCUMENTS,
    REPLY_INSTRUCTION,
    TONE_INSTRUCTION,
    load_answer,
    load_articles,
    load_changes,
    load_extract,
    load_facts,
    load_parallel,
    load_preferences,
    load_probe,
    load_reply,
    load_tone,
    record_of,
    sections,
)
from .own import load_own
from .schema import Problem, Product, Record, Tone
from .splits import SPLITS, Pair, describe, jaccard, leaks, near_duplicates, prompt_of, stratified_split, word_ngrams
from .style import StyleReport, check_style

__all__ = [
    "ANSWER_INSTRUCTION", "EXTRACT_INSTRUCTION", "HERE", "NOT_IN_DOCUMENTS", "REPLY_INSTRUCTION", "ROLES", "SPLITS", "TONE_INSTRUCTION",
    "DataError", "Pair", "Problem", "Product", "Record", "Row", "StyleReport", "Tone", "check_style", "describe", "jaccard", "leaks",
    "load_answer", "load_articles", "load_changes", "load_chat", "load_extract", "load_facts", "load_own", "load_parallel",
    "load_preferences", "load_probe", "load_reply", "load_tone", "near_duplicates", "prompt_of", "read_chat", "record_of", "sections",
    "stratified_split", "strict_json", "word_ngrams", "write_chat",
]
