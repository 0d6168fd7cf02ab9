"""To tune or not: the worksheet as plain functions over answers and measured rows, its record, and the ledger of claims. Explained in lesson 01.

`recommend(Answers(…))` says what to do and why, each reason with its stored row; it may say "measure first". `evidence` reads the rows,
`bill` predicts costs, `record` writes the decision record, `CASES` are ten worked examples, `ledger` compares documents with measurements.
"""

from .answers import MISSING, QUESTIONS, SMOLLM2, Answers, Question, answers_from
from .bills import Bill, bill
from .breakeven import break_even, break_even_months, request_price
from .cases import CASES, WorkedCase
from .claims import DOCUMENTS, Claim, Entry, Finding, all_claims, ledger, ledger_table
from .errors import DecisionError
from .evidence import NEEDS, TUNED, Cite, Measured, best_prompt, best_tuned, enough_rows, lead, learning_curve, measured, stored_rows
from .reasons import Reason
from .records import record, write_record
from .table import measured_table, original_table
from .verdict import VERDICTS, Recommendation, recommend

__all__ = [
    "CASES", "DOCUMENTS", "MISSING", "NEEDS", "QUESTIONS", "SMOLLM2", "TUNED", "VERDICTS", "Answers", "Bill", "Cite", "Claim", "DecisionError",
    "Entry", "Finding", "Measured", "Question", "Reason", "Recommendation", "WorkedCase", "all_claims", "answers_from", "best_prompt", "best_tuned",
    "bill", "break_even", "break_even_months", "enough_rows", "lead", "learning_curve", "ledger", "ledger_table", "measured", "measured_table",
    "original_table", "recommend", "record", "request_price", "stored_rows", "write_record",
]
