"""Ten worked cases: the scenarios of the source documents as filled-in worksheets, with the verdict and the thought behind it. Lesson 01.

The answers are invented, the rows that judge them are measured. A test fails when a verdict no longer follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from .answers import Answers

LLAMA_8B = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False}


@dataclass(frozen=True)
class WorkedCase:
    """A filled-in worksheet. `source`: the scenario of the source documents; `verdict`: what `recommend` says; `why`: the thought in a sentence."""

    name: str
    source: str
    answers: Answers
    verdict: str
    why: str


CASES = (
    WorkedCase(
        "clinic notes", "domain adaptation, medical: clinical notes",
        Answers("Turn a dictated clinic note into the record that the clinic's software reads.", ("format",), target=0.8, prompt=0.35, test_rows=200,
                good_rows=900, tokens_per_row=600, config=LLAMA_8B, device="gpu", memory_gb=24, training_hours=2, per_hour=1, private=True,
                requests=6000),
        "LoRA", "A record is form, and a prompt carries it badly. Nine hundred notes are enough rows. The notes may not leave the clinic, so it hosts the model. "
        "All weights led LoRA on the like need, but they need four times the memory of the card."),
    WorkedCase(
        "contract review", "domain adaptation, legal: contract review",
        Answers("Answer questions on a contract and point to the clause.", ("facts",), target=0.8, prompt=0.2, rag=0.88, test_rows=300,
                fact_changes=200, show_sources=True, good_rows=500, requests=2000),
        "RAG", "Every contract is new and the clause must be shown. Retrieval reaches the target already, so tuning has nothing to add."),
    WorkedCase(
        "a shop's questions and answers", "corporate: customer service; RAG for questions that bring several facts together",
        Answers("Answer customers' questions on delivery, prices and returns.", ("facts",), target=0.85, prompt=0.1, rag=0.6, test_rows=150,
                fact_changes=52, good_rows=60, requests=20_000, price=0.5),
        "RAG", "Prices change weekly. Retrieval falls short, but sixty rows are too few to tune a reader: first see whether the search finds the right text."),
    WorkedCase(
        "brand voice", "task specialisation: content in a style and tone",
        Answers("Write product texts in the house's voice.", ("style",), target=0.9, prompt=0.55, test_rows=200, good_rows=60, requests=800),
        "measure first", "Style is what tuning is good at, but sixty texts are fewer than tuning needed here. A curve over more rows tells, before money is spent."),
    WorkedCase(
        "code in a house framework", "task specialisation: code for a language or framework",
        Answers("Complete code that uses the company's own framework.", ("skill",), target=0.7, prompt=0.3, test_rows=250, good_rows=3000,
                tokens_per_row=900, config=LLAMA_8B, device="gpu", memory_gb=12, training_hours=10, per_hour=1, private=True, requests=50_000),
        "QLoRA", "The prompt falls short and there are rows. The weights in 16 bits do not fit the card, in 4 bits they do."),
    WorkedCase(
        "a language pair", "task specialisation: translation for a language pair or field",
        Answers("Translate manuals from Marathi into English.", ("skill",), target=0.8, test_rows=150, good_rows=5000, requests=300),
        "measure first", "Five thousand rows are tempting. But nobody measured what the model does with a good prompt, so no gain could be claimed."),
    WorkedCase(
        "an automation flow", "automated business flow: RAG and fine-tuning together",
        Answers("Read a supplier's mail, look up the order rules and write the call for the order system.", ("format", "facts"), target=0.85,
                prompt=0.25,
                rag=0.5, test_rows=300, fact_changes=12, good_rows=800, requests=30_000, price=0.5),
        "RAG + LoRA", "The rules change, so they come from documents. The call must have a fixed form, which documents do not bring."),
    WorkedCase(
        "ingredients of recipes", "the recipe assistant: find generic ingredients in a recipe",
        Answers("List the generic ingredients of a recipe.", ("format",), target=0.9, prompt=0.95, test_rows=500, good_rows=1500,
                prompt_tokens=1400, price=1.0, requests=3_000_000, hosting=300),
        "full", "The prompt is good enough. But its examples are paid for three million times a month, and a tuned model needs none. All weights led LoRA on the like "
        "need, and here nothing forbids them: they fit, there is one task, and the house hosts its model."),
    WorkedCase(
        "sorting mail by tone", "text classification",
        Answers("Find angry and worried mails, so that they are answered first.", ("labels",), target=0.85, prompt=0.93, test_rows=300, good_rows=450,
                prompt_tokens=120, price=0.5, requests=5000),
        "prompt", "The prompt reaches the target and five thousand short prompts a month cost little. Tuning would cost more than it saves."),
    WorkedCase(
        "risk in financial reports", "domain adaptation, finance: report analysis, risk",
        Answers("Label each paragraph of a report with one of our risk classes.", ("labels",), target=0.9, prompt=0.5, test_rows=400, good_rows=2000,
                tunable=False, host="provider", requests=10_000, price=2.0),
        "don't", "The model that the house may use cannot be tuned, and its best prompt falls far short. Another model is the question, not tuning."),
)
