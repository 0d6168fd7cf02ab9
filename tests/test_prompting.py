"""Prompts: what stands in them, how examples are chosen, and labels scored as they would be one at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from helpers import data, models, prompting
from helpers.models import ModelError


def row(number: int, label: str = "angry", text: str | None = None) -> dict:
    turns = [("system", "Name the tone."), ("user", text or f"message {number}"), ("assistant", label)]
    return {"id": f"t-{number}", "messages": [{"role": r, "content": c} for r, c in turns]}


POOL = [row(n, ("angry", "neutral", "worried")[n % 3 if n < 12 else 0]) for n in range(30)]


def label(r: dict) -> str:
    return r["messages"][-1]["content"]


@pytest.fixture(scope="module")
def loaded():
    return models.load_tokenizer(), models.load_model()


def test_examples_stand_as_earlier_turns_and_the_gold_answer_is_not_in_the_prompt():
    built = prompting.messages(row(99, "SECRET"), "Do it.", POOL[:2])
    assert [m["role"] for m in built] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert built[0]["content"] == "Do it." and built[1:3] == POOL[0]["messages"][1:] and built[-1]["content"] == "message 99"
    assert "SECRET" not in str(built) and prompting.messages(row(99))[0]["content"] == "Name the tone."


def test_the_same_prompt_as_one_text():
    text = prompting.as_text(row(99, "SECRET"), "Do it.", POOL[:2], ("Message", "Tone"))
    assert text == "Do it.\n\nMessage: message 0\nTone: angry\n\nMessage: message 1\nTone: neutral\n\nMessage: message 99\nTone:"
    assert prompting.first_line(" angry \nMessage: next") == "angry" and prompting.first_line("") == ""


def test_a_row_may_not_be_its_own_example():
    with pytest.raises(ValueError, match="its own examples"):
        prompting.messages(POOL[3], None, POOL[:5])
    with pytest.raises(ValueError, match="expected the turns system, user, assistant, got"):
        prompting.messages({"messages": POOL[0]["messages"][1:]})


@pytest.mark.parametrize("need", prompting.INSTRUCTIONS)
def test_long_instructions_begin_with_the_short_ones_of_the_data(need):
    short = {"extract": data.EXTRACT_INSTRUCTION, "tone": data.TONE_INSTRUCTION, "answer": data.ANSWER_INSTRUCTION, "reply": data.REPLY_INSTRUCTION}
    assert prompting.INSTRUCTIONS[need].startswith(short[need]) and len(prompting.INSTRUCTIONS[need]) > len(short[need]) + 40


def test_the_tones_are_those_of_the_data():
    assert set(prompting.TONES) == {label(r) for r in data.load_tone()["train"]}


def test_random_examples_grow_and_differ_by_seed():
    eight = prompting.choose_random(POOL, 8, seed=1)
    assert prompting.choose_random(POOL, 3, seed=1) == eight[:3] and prompting.choose_random(POOL, 8, seed=2) != eight
    assert len({r["id"] for r in eight}) == 8 and prompting.choose_random(POOL, 0) == []


def test_balanced_examples_share_out_the_labels_while_they_last():
    chosen = prompting.choose_by_label(POOL, 14, label)
    assert Counter(map(label, chosen[:12])) == {"angry": 4, "neutral": 4, "worried": 4}
    assert Counter(map(label, chosen)) == {"angry": 6, "neutral": 4, "worried": 4}, "the rare labels are used up"
    assert prompting.choose_by_label(POOL, 5, label) == chosen[:5] and len({r["id"] for r in chosen}) == 14


@pytest.mark.parametrize("k", (-1, 31))
def test_more_examples_than_there_are_is_an_error(k):
    for choose in (lambda: prompting.choose_random(POOL, k), lambda: prompting.choose_by_label(POOL, k, label)):
        with pytest.raises(ValueError, match=f"from 0 to 30 examples.*got k={k}"):
            choose()


def test_nearest_examples_are_the_most_alike_with_the_best_last():
    texts = ["the washing machine leaks", "my parcel is late", "water drips under the washer", "the invoice is wrong"]
    pool = [row(n, text=t) for n, t in enumerate(texts)]
    nearest = prompting.Nearest(pool, models.load_embedder())
    (leak, parcel), none = nearest.choose([row(8, text="there is water under my washing machine"), row(9, text="where is my delivery?")], 2), nearest.choose([POOL[0]], 0)
    assert {r["id"] for r in leak} == {"t-0", "t-2"} and parcel[-1]["id"] == "t-1" and none == [[]]
    assert nearest.choose([], 2) == []


def test_how_many_examples_fit(loaded):
    tokenizer, _ = loaded
    size = models.count_tokens(tokenizer, prompting.messages(row(99), None, POOL[:7])) + 10
    fit = lambda context: prompting.how_many_fit(tokenizer, row(99), None, POOL, context, answer_tokens=10)
    assert fit(size) == 7 and fit(size - 1) == 6 and fit(10) == 0 and fit(10**6) == 30


def one_by_one(tokenizer, model, prompt, name, end) -> float:
    """The definition: the sum of the log-probabilities of the label's tokens, in one plain forward pass."""
    before = tokenizer(models.render(tokenizer, prompt), add_special_tokens=False)["input_ids"]
    after = tokenizer(name, add_special_tokens=False)["input_ids"] + ([tokenizer.eos_token_id] if end else [])
    with torch.inference_mode():
        scores = torch.log_softmax(model(input_ids=torch.tensor([before + after])).logits[0].float(), dim=-1)
    return sum(float(scores[len(before) - 1 + n, token]) for n, token in enumerate(after))


@pytest.mark.parametrize("end", (True, False))
@pytest.mark.parametrize("shots", (0, 3))
def test_labels_score_as_they_would_one_at_a_time(loaded, end, shots):
    tokenizer, model = loaded
    texts = ["It leaks.", "Thank you so much for the quick repair of my oven, Ines was wonderful and so very patient with all of us.", "hm"]
    prompts = [prompting.messages(row(n, text=t), None, POOL[:shots]) for n, t in enumerate(texts)]
    got = prompting.label_log_likelihoods(model, tokenizer, prompts, prompting.TONES, end=end, batch_size=2)
    want = [[one_by_one(tokenizer, model, p, name, end) for name in prompting.TONES] for p in prompts]
    assert got.shape == (3, 6) and np.abs(got - want).max() < 1e-3
    alone = prompting.label_log_likelihoods(model, tokenizer, prompts[:1], prompting.TONES, end=end)
    assert np.abs(alone - got[:1]).max() < 1e-3, "the other rows of the batch change nothing"


def test_label_probabilities_sum_to_one_and_do_not_overflow():
    p = prompting.label_probabilities(np.array([[-1000.0, -1001.0], [0.0, 0.0]]))
    assert np.allclose(p.sum(axis=1), 1) and np.allclose(p[0, 0], 1 / (1 + np.exp(-1))) and np.allclose(p[1], 0.5)


def test_labels_that_cannot_be_told_apart_are_refused(loaded):
    tokenizer, model = loaded
    for bad in (["one"], ["a", "a"], ["a", ""]):
        with pytest.raises(ValueError, match="two or more different labels"):
            prompting.label_log_likelihoods(model, tokenizer, [POOL[0]["messages"][:2]], bad)
    assert prompting.label_log_likelihoods(model, tokenizer, [], ["a", "b"]).shape == (0, 2)
    with pytest.raises(ModelError, match="longest prompt with a label needs"):
        prompting.label_log_likelihoods(model, tokenizer, [prompting.messages(row(1, text="word " * 9000))], ["a", "b"])


def test_a_text_is_continued_without_the_template(loaded):
    tokenizer, model = loaded
    assert models.render(tokenizer, "The sky is") == "The sky is"
    assert models.count_tokens(tokenizer, "The sky is") < models.count_tokens(tokenizer, [{"role": "user", "content": "The sky is"}])
    text = "France: Paris\nItaly: Rome\nSpain:"
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    out = model.generate(**ids, max_new_tokens=5, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    continued = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert models.generate(model, tokenizer, [text], max_new_tokens=5) == [continued]
    assert models.generate(model, tokenizer, [[{"role": "user", "content": text}]], max_new_tokens=5) != [continued]
