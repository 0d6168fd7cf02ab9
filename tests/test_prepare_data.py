"""What lesson 04 stands on: the label mask in words, TRL's preparation of rows, the parallel sentences, the figure of tokens per word."""

from __future__ import annotations

import unicodedata

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from helpers import data, models, plots, training
from helpers.evaluation import Interval

MESSAGES = [{"role": "system", "content": "Name the tone."}, {"role": "user", "content": "It <b>leaks</b>\nagain."}, {"role": "assistant", "content": "angry"}]
SPLIT = {"prompt": MESSAGES[:-1], "completion": MESSAGES[-1:]}
LONGER = {"prompt": [*MESSAGES[:1], {"role": "user", "content": "It leaks. " * 40}], "completion": MESSAGES[-1:]}


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer()


@pytest.fixture(scope="module")
def tiny(tokenizer):
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(
        "llama", vocab_size=tokenizer.vocab_size, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, tie_word_embeddings=True, pad_token_id=2, eos_token_id=2))


@pytest.fixture
def prepare(tiny, tokenizer, tmp_path):
    def made(rows, **choices) -> SFTTrainer:
        settings = SFTConfig(output_dir=str(tmp_path), **training.quiet_settings(0), **choices)
        return SFTTrainer(tiny, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    return made


# ---------------------------------------------------------------- the mask in words


def test_the_mask_says_of_a_prepared_row_what_is_masked_and_what_is_trained(prepare, tokenizer):
    strip = training.show_mask(tokenizer, prepare([SPLIT]).train_dataset[0])
    (first, masked), (second, trained) = strip.runs
    assert (first, second) == ("masked", "trained")
    assert "".join(masked).endswith("again.<|im_end|>↵<|im_start|>assistant↵") and "".join(trained) == "angry<|im_end|>↵"
    assert repr(strip).splitlines()[1] == "trained    4  ang·ry·<|im_end|>·↵"


def test_padding_of_a_batch_is_told_apart_from_the_masked_prompt(prepare, tokenizer):
    trainer = prepare([SPLIT, LONGER])
    batch = trainer.data_collator(list(trainer.train_dataset))
    short = training.show_mask(tokenizer, {name: values[0] for name, values in batch.items()})
    assert [state for state, _ in short.runs] == ["masked", "trained", "padding"], "TRL pads on the right while it trains"
    assert len(short.runs[2][1]) == len(batch["input_ids"][1]) - len(trainer.train_dataset[0]["input_ids"])


def test_the_table_says_the_state_in_words_and_shows_markup_as_text(tokenizer):
    ids = tokenizer("<b>leaks</b>\n<|im_end|>")["input_ids"]
    page = training.show_mask(tokenizer, {"input_ids": ids, "labels": [-100] * (len(ids) - 1) + ids[-1:]})._repr_html_()
    assert "<th>masked</th>" in page and "<th>trained</th><td>1</td>" in page
    assert "<b>" not in page and "&lt;|im_end|&gt;" in page and "↵" in page


def test_runs_keep_the_order_of_the_tokens():
    strip = plots.token_strip(list("abcde"), ["masked", "trained", "trained", "masked", "trained"])
    assert strip.runs == [("masked", ["a"]), ("trained", ["b", "c"]), ("masked", ["d"]), ("trained", ["e"])]


@pytest.mark.parametrize("row, message", [
    ({"input_ids": [5, 6, 7], "labels": [6, 7, -100]}, "got 6 for token 5 at position 0. Fix: don't shift"),
    ({"input_ids": [5, 6, 7], "labels": [-100, 6]}, "got 3 tokens, 2 labels"),
    ({"input_ids": [5, 6], "labels": [-100, 6], "attention_mask": [1]}, "got 2 tokens, 2 labels, 1 values"),
    ({"input_ids": [], "labels": []}, "got 0 tokens"),
])
def test_a_row_that_no_trainer_makes_is_refused(tokenizer, row, message):
    with pytest.raises(ValueError, match=message):
        training.show_mask(tokenizer, row)


def test_tensors_do_as_well_as_lists(tokenizer):
    ids = torch.tensor(tokenizer("two words")["input_ids"])
    assert [state for state, _ in training.show_mask(tokenizer, {"input_ids": ids, "labels": ids}).runs] == ["trained"]


# ---------------------------------------------------------------- what TRL does with a row: the lesson's text says so


def trained(trainer: SFTTrainer, tokenizer) -> str:
    return tokenizer.decode([label for label in trainer.train_dataset[0]["labels"] if label != -100])


def test_trl_trains_messages_in_full_even_when_told_completion_only(prepare, tokenizer):
    everything = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert trained(prepare([{"messages": MESSAGES}]), tokenizer) == everything
    assert trained(prepare([{"messages": MESSAGES}], completion_only_loss=True), tokenizer) == everything
    assert trained(prepare([SPLIT]), tokenizer) == "angry<|im_end|>\n"


def test_trl_adds_an_end_to_plain_text_also_where_one_stands(prepare, tokenizer):
    rendered = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert trained(prepare([{"text": rendered}]), tokenizer).endswith("angry<|im_end|>\n<|im_end|>")
    assert trained(prepare([{"prompt": rendered, "completion": "angry"}]), tokenizer) == "angry<|im_end|>"


def test_trl_drops_rows_without_a_label_and_says_nothing(prepare, capfd):
    assert len(prepare([SPLIT, LONGER], max_length=60).train_dataset) == 1
    assert "drop" not in "".join(capfd.readouterr()).lower()


# ---------------------------------------------------------------- three languages


def test_each_parallel_sentence_stands_in_its_script():
    rows = list(data.load_parallel())
    assert len(rows) == 12 and len({row["id"] for row in rows}) == 12
    for row in rows:
        scripts = {key: {unicodedata.name(c).split()[0] for c in row[key] if c.isalpha()} for key in ("en", "mr", "ne")}
        assert scripts == {"en": {"LATIN"}, "mr": {"DEVANAGARI"}, "ne": {"DEVANAGARI"}}, row["id"]
        assert all(row[key] == unicodedata.normalize("NFC", row[key]).strip() and row[key][-1] in ".?।" for key in scripts), row["id"]
        assert row["mr"] != row["ne"]


def test_fertility_bars_draw_and_name_each_language():
    figure = plots.fertility_bars({"English": Interval(1.3, 1.2, 1.4), "Nepali": Interval(9.0, 8.0, 10.0)}, "More tokens")
    assert [bar.get_width() for container in figure.axes[0].containers if hasattr(container, "patches") for bar in container.patches] == [1.3, 9.0]
    assert repr(figure) == "[figure] More tokens (English 1.300 [1.200, 1.400]; Nepali 9.000 [8.000, 10.000])"
    assert figure.axes[0].get_xlim()[1] > 10 and figure._repr_png_().startswith(b"\x89PNG")


def test_fertility_bars_of_nothing_are_refused():
    with pytest.raises(ValueError, match="expected at least one language, got none. Fix"):
        plots.fertility_bars({}, "x")
