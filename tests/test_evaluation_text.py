"""Scores of text, labels, probabilities and likelihood: hand-worked examples, and equality with the reference libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from helpers import data
from helpers import evaluation as ev

# ---------------------------------------------------------------- generated text

NEPALI, MARATHI = "पानी चुहिरहेको छ", "पाणी गळत आहे"
CASES = [
    ("the cat sat on the mat", "the cat sat on the mat"), ("the cat sat on a mat", "the cat is on the mat"), ("mat the on sat cat the", "the cat sat on the mat"),
    ("47 minutes", "74 minutes"), ("It takes 47 minutes, no more.", "47 minutes"), ("47 minutes", "It takes 47 minutes, no more."), ("", ""), ("", "the cat"),
    ("the cat", ""), ("!?", "the cat"), ("THE CAT", "the cat"), ("a", "a"), ("€13, E-14: it's done!", "€13; E14, it is done."), ("x " * 300, "y " * 300),
    (NEPALI, NEPALI), (MARATHI, NEPALI), (f"{MARATHI}.", MARATHI), ("", MARATHI), (MARATHI, "the cat"), ("line one\nline two", "line one line two"),
]
ANSWERS, GOLD = [a for a, _ in CASES], [g for _, g in CASES]
ASCII = [(a, g) for a, g in CASES if (a + g).replace("€", "").isascii()]


def test_rouge_l_equals_the_library_where_the_library_can_read():
    from rouge_score.rouge_scorer import RougeScorer

    theirs = [RougeScorer(["rougeL"]).score(g, a)["rougeL"].fmeasure for a, g in ASCII]
    assert ev.rouge_l([a for a, _ in ASCII], [g for _, g in ASCII]) == pytest.approx(theirs, abs=1e-12) and len(ASCII) == 15


def test_rouge_l_reads_devanagari_where_the_library_sees_nothing():
    from rouge_score.rouge_scorer import RougeScorer

    assert RougeScorer(["rougeL"]).score(MARATHI, MARATHI)["rougeL"].fmeasure == 0
    assert ev.rouge_l([MARATHI, f"{MARATHI}।", MARATHI, "पाणी आहे"], [MARATHI, MARATHI, "the cat", MARATHI]) == pytest.approx([1, 1, 0, 4 / 5])


def test_rouge_l_by_hand():
    # the longest common subsequence of the first is "the cat on mat": 4 of 6 words on either side
    assert ev.rouge_l(["the cat sat on a mat", "b a", "a b c d"], ["the cat is on the mat", "a b", "a b"]) == pytest.approx([4 / 6, 1 / 2, 2 / 3])


def test_chrf_and_bleu_equal_sacrebleu():
    from sacrebleu.metrics import BLEU, CHRF

    theirs = [CHRF().sentence_score(a, [g]).score / 100 for a, g in CASES]
    assert ev.chrf(ANSWERS, GOLD) == pytest.approx(theirs, abs=1e-12)
    theirs = [BLEU(effective_order=True).sentence_score(a, [g]).score / 100 for a, g in CASES]
    assert ev.bleu(ANSWERS, GOLD) == pytest.approx(theirs, abs=1e-12)


def test_chrf_and_bleu_by_hand():
    # letters of "ab" against "ac": 1-grams 1 of 2, 2-grams 0 of 1; precision = recall = mean(1/2, 0) = F
    assert ev.chrf(["ab"], ["ac"]) == pytest.approx([1 / 4])
    # all words and pairs of the answer stand in the gold text, twice as long: only the penalty for brevity, exp(1 - 4/2)
    assert ev.bleu(["a b"], ["a b c d"]) == pytest.approx([math.exp(-1)])
    assert ev.bleu(["a b c d"], ["a b"])[0] < 0.5  # a precision: it is not the same turned around


@pytest.mark.parametrize("score", [ev.rouge_l, ev.chrf, ev.bleu])
def test_scores_of_text_lie_between_zero_and_one(score):
    values = score(ANSWERS, GOLD)
    assert values.shape == (len(CASES),) and values.dtype == float and (values >= 0).all() and (values <= 1).all()
    assert score([NEPALI, "a b c d e"], [NEPALI, "a b c d e"]) == pytest.approx([1, 1]) and score(["", "a", ""], ["a", "", ""]).tolist() == [0, 0, 0]


def test_style_scores_use_what_the_row_knows():
    rows = [r for part in data.load_reply().values() for r in part][:40]
    gold = [r["messages"][-1]["content"] for r in rows]
    assert ev.style_scores(gold, rows) == pytest.approx(1)
    expected = [data.check_style(g, name=r["name"], product=r["product"], known=r["known"]).score for g, r in zip(gold[::-1], rows)]
    swapped = ev.style_scores(gold[::-1], rows)  # another customer's reply: other name, product and figures
    assert swapped.tolist() == expected and swapped.mean() < 0.95
    assert ev.style_scores([""] * 40, rows).tolist() == [0] * 40


# ---------------------------------------------------------------- closed labels

TONES = ["angry", "neutral", "worried"]
rng = np.random.default_rng(0)
TRUE = [TONES[i] for i in rng.choice(3, size=120, p=[0.6, 0.3, 0.1])]
SAID = [t if rng.random() < 0.6 else TONES[rng.integers(3)] for t in TRUE]


def test_labels_equal_scikit_learn():
    assert ev.label_accuracy(SAID, TRUE).mean() == pytest.approx(metrics.accuracy_score(TRUE, SAID))
    assert ev.macro_f1_labels(SAID, TRUE).estimate == pytest.approx(metrics.f1_score(TRUE, SAID, average="macro"))
    table = ev.confusion(SAID, TRUE, TONES)
    assert (table[TONES].to_numpy() == metrics.confusion_matrix(TRUE, SAID, labels=TONES)).all()
    assert list(table.index) == TONES and (table[ev.NO_LABEL] == 0).all()


def test_answers_that_are_no_label_equal_scikit_learn_too():
    said = ["purple" if i % 5 == 0 else s for i, s in enumerate(SAID)]
    theirs = metrics.f1_score(TRUE, said, labels=[*TONES, "never"], average="macro", zero_division=np.nan)
    assert ev.macro_f1_labels(said, TRUE, [*TONES, "never"]).estimate == pytest.approx(theirs)
    table = ev.confusion(said, TRUE)
    assert table[ev.NO_LABEL].sum() == 24 and table.to_numpy().sum() == 120
    assert np.trace(table[sorted(TONES)]) == ev.label_accuracy(said, TRUE).sum()


def test_labels_by_hand():
    said, true = [" Angry.", "neutral", "neutral", "angry, I think"], ["angry", "angry", "neutral", "neutral"]
    assert ev.label_accuracy(said, true).tolist() == [1, 0, 1, 0]
    assert ev.macro_f1_labels(said, true).estimate == pytest.approx((2 / 3 + 1 / 2) / 2)  # angry: 1 hit, 1 miss; neutral: 1 hit, 1 wrong, 1 miss
    assert ev.confusion(said, true).to_numpy().tolist() == [[1, 1, 0], [0, 1, 1]]
    interval = ev.macro_f1_labels(SAID, TRUE)
    assert interval.low < interval.estimate < interval.high


# ---------------------------------------------------------------- probabilities


def test_calibration_by_hand():
    table, error = ev.calibration([0.1, 0.2, 0.9, 0.8, 0.7, 0.5], [0, 1, 1, 1, 0, 0], bins=2)
    assert table["rows"].tolist() == [3, 3]  # 0.5 stands on the edge and belongs below
    assert table["confidence"].tolist() == pytest.approx([0.8 / 3, 0.8]) and table["accuracy"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert error == pytest.approx(0.5 * (1 / 3 - 0.8 / 3) + 0.5 * (0.8 - 2 / 3))


def test_calibration_keeps_its_edges_and_its_empty_bins():
    tenths = np.arange(11) / 10
    table, _ = ev.calibration(tenths, np.ones(11))
    assert table["rows"].tolist() == [2] + [1] * 9  # 0 and 0.1, then one edge each: 0.3 and 0.7 too
    table, error = ev.calibration([1.0, 1.0], [1, 1], bins=5)
    assert table["rows"].tolist() == [0, 0, 0, 0, 2] and table["accuracy"].isna().sum() == 4 and error == 0
    assert ev.calibration([0.05], [0], bins=5).table["rows"].tolist() == [1, 0, 0, 0, 0]


def test_calibration_tells_honest_from_too_sure():
    p = np.random.default_rng(1).uniform(0.5, 1, 20_000)
    right = np.random.default_rng(2).random(20_000) < p
    assert ev.calibration(p, right).error < 0.02
    assert ev.calibration(np.sqrt(p), right).error == pytest.approx((np.sqrt(p) - p).mean(), abs=0.01)


def test_brier_equals_scikit_learn_and_a_constant_half_gets_a_quarter():
    p = np.random.default_rng(3).random(50)
    right = np.random.default_rng(4).random(50) < 0.5
    assert ev.brier(p, right).mean() == pytest.approx(metrics.brier_score_loss(right, p))
    assert ev.brier([0.5, 0.5, 1.0, 0.0, 0.9], [1, 0, 1, 1, 0]) == pytest.approx([0.25, 0.25, 0, 1, 0.81])


# ---------------------------------------------------------------- perplexity

TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def turns(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


CHATS = [turns("How long?", "47 minutes"), turns("Hi", "Hello, how can I help you today?"), turns("Why? " * 12, "No."), turns("पाणी गळत आहे", "ठीक"), turns("?", "")]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the two marks of a turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=TEMPLATE, pad_token="<|im_end|>", eos_token="<|im_end|>", padding_side="left")


@pytest.fixture()
def tiny(tokenizer):
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                                  num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.5)
    return AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
def plain_loop(model, tokenizer, row) -> list[float]:
    """Nats of each completion token, the plainest way: one row, one token after another, no padding."""
    render = lambda messages, **more: tokenizer.apply_chat_template(messages, tokenize=False, **more)
    ids = tokenizer(render(row["messages"]), add_special_tokens=False)["input_ids"]
    prompt = tokenizer(render(row["messages"][:-1], add_generation_prompt=True), add_special_tokens=False)["input_ids"]
    scores = [torch.log_softmax(model(torch.tensor([ids[:t]])).logits[0, -1], dim=0)[ids[t]].item() for t in range(len(prompt), len(ids))]
    return [-s for s in scores]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_perplexity_equals_a_plain_loop_however_it_is_batched(tiny, tokenizer, batch_size):
    found, expected = ev.perplexity(tiny, tokenizer, CHATS, batch_size), [plain_loop(tiny, tokenizer, row) for row in CHATS]
    assert found.tokens.tolist() == [len(e) for e in expected] == [12, 34, 5, 11, 2]  # bytes of the answer, <|im_end|> and a line break
    assert found.nll == pytest.approx([np.mean(e) for e in expected], abs=1e-4)
    assert found.value() == pytest.approx(math.exp(sum(map(sum, expected)) / 64), rel=1e-4)
    assert found.nll.std() > 0.1, "else the rows could be mixed up unseen"


def test_perplexity_does_not_see_the_prompt_as_something_to_predict(tiny, tokenizer):
    """The sum equals the model's own loss with all prompt labels masked, as completion-only training has it."""
    row = CHATS[0]
    ids = torch.tensor([tokenizer(tokenizer.apply_chat_template(row["messages"], tokenize=False), add_special_tokens=False)["input_ids"]])
    labels = ids.clone()
    labels[:, :-12] = -100
    assert ev.perplexity(tiny, tokenizer, [row]).nll[0] == pytest.approx(tiny(input_ids=ids, labels=labels).loss.item(), abs=1e-5)


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity(tiny, tokenizer):
    torch.nn.init.zeros_(tiny.get_output_embeddings().weight)
    found = ev.perplexity(tiny, tokenizer, CHATS)
    assert found.nll == pytest.approx(math.log(len(tokenizer)), abs=1e-5) and found.value() == pytest.approx(258, rel=1e-5)


def test_prose_is_scored_as_plain_text_from_its_second_token_on(tiny, tokenizer):
    row = {"messages": [{"role": "assistant", "content": "We left the village."}]}
    ids = torch.tensor([tokenizer(row["messages"][0]["content"])["input_ids"]])
    found = ev.perplexity(tiny, tokenizer, [row, *CHATS])
    assert found.tokens[0] == 19 and found.nll[0] == pytest.approx(tiny(input_ids=ids, labels=ids).loss.item(), abs=1e-4)


def test_dropout_does_not_reach_the_score_and_the_mode_stays(tiny, tokenizer):
    tiny.config.attention_dropout = 0.9
    for layer in tiny.model.layers:
        layer.self_attn.attention_dropout = 0.9
    still = ev.perplexity(tiny, tokenizer, CHATS)
    tiny.train()
    assert ev.perplexity(tiny, tokenizer, CHATS).nll == pytest.approx(still.nll, abs=1e-6) and tiny.training


@pytest.mark.parametrize("rows, found", [
    ([], "got none"), ([{"messages": []}], "got 'no turn'"), ([{"messages": CHATS[0]["messages"][:1]}], "got 'user'"),
    ([turns("x" * 300, "y")], r"at most 256 tokens, the model's context, got one of 3\d\d"), ([{"messages": [{"role": "assistant", "content": "x"}]}], "got none"),
])
def test_perplexity_refuses_what_it_cannot_score(tiny, tokenizer, rows, found):
    with pytest.raises(ValueError, match=f"perplexity: .*expected.*{found}.*Fix"):
        ev.perplexity(tiny, tokenizer, rows)


@pytest.mark.parametrize("call", [
    lambda: ev.rouge_l(["x"], []), lambda: ev.chrf([], []), lambda: ev.bleu(["x"], ["x", "y"]), lambda: ev.style_scores(["x"], [{"name": None}]),
    lambda: ev.style_scores(["x"], []), lambda: ev.label_accuracy(["x"], []), lambda: ev.macro_f1_labels(["x"], ["y"], ["x"]),
    lambda: ev.confusion(["x"], ["y"], ["x"]), lambda: ev.calibration([0.5], []), lambda: ev.calibration([1.5], [1]), lambda: ev.calibration([float("nan")], [1]),
    lambda: ev.calibration([0.5], [0.5]), lambda: ev.calibration([0.5], [1], bins=0), lambda: ev.brier([-0.1], [1]), lambda: ev.brier([[0.5]], [1]),
])
def test_bad_input_is_refused_with_what_was_expected_and_found(call):
    with pytest.raises(ValueError, match="(?s)expected.*got"):
        call()
