"""A model judge: what it is asked, its biases on hand-made verdicts, and its scores beside a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from helpers import evaluation as ev
from helpers.evaluation import Judgements

TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
FAIR = Judgements(np.array([[0.9, 0.8], [0.2, 0.1], [0.5, 0.5], [0.7, 0.7]]))
ALWAYS_A = Judgements(np.array([[0.8, 0.1], [0.9, 0.2], [0.7, 0.3], [0.6, 0.4]]))  # B's chance of being better is 1 - p when it stands second


def test_verdicts_by_hand():
    assert FAIR.letters.tolist() == [["A", "B"], ["B", "A"], ["A", "A"], ["A", "B"]]
    assert FAIR.winner.tolist() == [1, -1, 0, 1] and FAIR.probability == pytest.approx([0.85, 0.15, 0.5, 0.7])
    assert (ALWAYS_A.letters == "A").all() and ALWAYS_A.winner.tolist() == [-1, 1, 0, 0]


def test_position_bias_tells_a_place_from_an_answer():
    fair, biased = ev.position_bias(FAIR), ev.position_bias(ALWAYS_A)
    assert (fair.follows_place.estimate, fair.says_first.estimate) == (1 / 4, 5 / 8)
    assert (biased.follows_place.estimate, biased.says_first.estimate) == (1, 1)
    always_b = ev.position_bias(Judgements(1 - ALWAYS_A.prefers_first))
    assert (always_b.follows_place.estimate, always_b.says_first.estimate) == (1, 0)
    assert fair.follows_place == ev.proportion([0, 0, 1, 0])


def test_length_bias_by_hand():
    first, second = ["a b c", "a b c", "a b c", "same"], ["a", "a b c d", "a b", "same"]
    found = ev.length_bias(FAIR, first, second, gold=[1, 0, 0, 1])
    assert found.longer_wins.estimate == pytest.approx((1 + 1 + 0.5) / 3) and found.longer_is_better.estimate == pytest.approx(2 / 3)
    assert ev.length_bias(FAIR, second, first).longer_wins.estimate == pytest.approx(0.5 / 3) and ev.length_bias(FAIR, first, second).longer_is_better is None
    assert ev.length_bias(FAIR, ["ab", "a", "a", "a"], ["a"] * 4).longer_wins.estimate == 1, "letters decide where words do not"


def test_agreement_by_hand_and_by_scikit_learn():
    found = ev.agreement(FAIR, [1, 1, 1, 0])
    assert found.share.estimate == 1 / 4
    assert found.kappa.estimate == pytest.approx(cohen_kappa_score([1, -1, 0, 1], [1, 1, 1, -1]))
    right = Judgements(np.array([[0.9, 0.6], [0.1, 0.4]] * 10))
    assert ev.agreement(right, [1, 0] * 10).kappa == ev.Interval(1, 1, 1) and ev.agreement(right, [0, 1] * 10).kappa.estimate == -1
    assert ev.agreement(Judgements(np.full((9, 2), 0.9)), [1] * 8 + [0]).kappa.estimate == 0, "a judge who always says the same knows nothing"


@pytest.mark.parametrize("seed", range(5))
def test_kappa_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    a = rng.choice(["left", "right", "tie"], 60, p=[0.6, 0.3, 0.1])
    b = np.where(rng.random(60) < 0.6, a, rng.choice(["left", "right", "both bad"], 60))
    found = ev.cohens_kappa(a.tolist(), b.tolist())
    assert found.estimate == pytest.approx(cohen_kappa_score(a, b), abs=1e-12) and found.low < found.estimate < found.high


def test_kappa_by_hand():
    # 25 items: both yes 10, both no 7, only a 3, only b 5. Chance: 13/25 * 15/25 + 12/25 * 10/25 = 0.504; observed 0.68
    a, b = ["y"] * 13 + ["n"] * 12, ["y"] * 10 + ["n"] * 3 + ["y"] * 5 + ["n"] * 7
    assert ev.cohens_kappa(a, b).estimate == pytest.approx((0.68 - 0.504) / (1 - 0.504))
    assert ev.cohens_kappa(["y", "y"], ["y", "y"]).estimate == 1 and ev.cohens_kappa(["y", "y"], ["n", "n"]).estimate == 0


# ---------------------------------------------------------------- with a model


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the two marks of a turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=TEMPLATE, pad_token="<|im_end|>", eos_token="<|im_end|>", padding_side="left")


@pytest.fixture(scope="module")
def tiny(tokenizer):
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                                  num_key_value_heads=2, max_position_embeddings=600, initializer_range=0.5)
    return AutoModelForCausalLM.from_config(config).eval()


QUESTIONS, FIRST, SECOND = ["How long?", "Why? " * 9, "पाणी?", "?"], ["47 minutes", "No.", "ठीक", "same"], ["74 minutes, or so", "Because.", "", "same"]


@torch.no_grad()
def plain_loop(model, tokenizer, question, a, b) -> float:
    """Probability of "A" against "B", the plainest way: one prompt, no padding."""
    text = tokenizer.apply_chat_template(ev.judge_messages(question, a, b), tokenize=False, add_generation_prompt=True)
    scores = model(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits[0, -1]
    a_score, b_score = (scores[tokenizer(letter, add_special_tokens=False)["input_ids"][0]].item() for letter in "AB")
    return 1 / (1 + np.exp(b_score - a_score))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_judge_pairs_equals_a_plain_loop_however_it_is_batched(tiny, tokenizer, batch_size):
    found = ev.judge_pairs(tiny, tokenizer, QUESTIONS, FIRST, SECOND, batch_size=batch_size).prefers_first
    expected = [[plain_loop(tiny, tokenizer, q, a, b), 1 - plain_loop(tiny, tokenizer, q, b, a)] for q, a, b in zip(QUESTIONS, FIRST, SECOND)]
    assert found == pytest.approx(np.array(expected), abs=1e-5) and found.shape == (4, 2) and found[:3].std() > 0.01


def test_the_same_answer_twice_is_a_draw_and_swapping_sides_swaps_the_winner(tiny, tokenizer):
    found, swapped = (ev.judge_pairs(tiny, tokenizer, QUESTIONS, *sides) for sides in ((FIRST, SECOND), (SECOND, FIRST)))
    assert found.probability[3] == pytest.approx(0.5, abs=1e-6) and found.prefers_first[3, 0] != pytest.approx(0.5, abs=1e-6)
    assert swapped.probability == pytest.approx(1 - found.probability, abs=1e-6) and (swapped.winner == -found.winner).all()


def test_the_judge_sees_question_answers_and_criterion():
    text = ev.judge_messages("Q1", "one", "two", "Which is kinder?")[1]["content"]
    assert text.index("Q1") < text.index("Answer A:\none") < text.index("Answer B:\ntwo") < text.index("Which is kinder?")


def test_dropout_does_not_reach_the_verdict_and_the_mode_stays(tiny, tokenizer):
    still = ev.judge_pairs(tiny, tokenizer, QUESTIONS, FIRST, SECOND).prefers_first
    for layer in tiny.model.layers:
        layer.self_attn.attention_dropout = 0.9
    tiny.train()
    assert ev.judge_pairs(tiny, tokenizer, QUESTIONS, FIRST, SECOND).prefers_first == pytest.approx(still, abs=1e-6) and tiny.training
    tiny.eval()


@pytest.mark.parametrize("call", [
    lambda m, t: ev.judge_pairs(m, t, ["?"], ["a"], []), lambda m, t: ev.judge_pairs(m, t, [], [], []), lambda m, t: ev.judge_pairs(m, t, ["x" * 700], ["a"], ["b"]),
    lambda m, t: ev.agreement(FAIR, [1, 0]), lambda m, t: ev.agreement(FAIR, [1, 0, 0.5, 1]), lambda m, t: ev.length_bias(FAIR, ["a"] * 4, ["b"] * 4),
    lambda m, t: ev.length_bias(FAIR, ["a"], ["b"]), lambda m, t: ev.cohens_kappa(["a"], []), lambda m, t: ev.cohens_kappa([], []),
])
def test_bad_input_is_refused_with_what_was_expected_and_found(tiny, tokenizer, call):
    with pytest.raises(ValueError, match="(?s)expected.*got"):
        call(tiny, tokenizer)
