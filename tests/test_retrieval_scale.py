"""Distractors, embedding with a cache, latency and growth, and the losses that tune the retriever."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
import torch

from helpers import data, models
from helpers.retrieval import Chunk, Index, by_section, distractors, embed, gold_sections, grow, latency
from helpers.retrieval import scale
from helpers.retrieval.contrastive import DIFFERENT, SIMILAR, ContrastiveLoss, Pair, RankingLoss, training_pairs, tune
from words_embedder import WordsEmbedder

PRODUCTS = r"\b(Rill|Tumbla|Tarn|Fjell|Glod|Skarn|Brisa|Mokko|Pip|Plissa|Pellwarth)\b"


@pytest.fixture(scope="module")
def sections() -> list[Chunk]:
    return by_section(data.load_articles(1))


@pytest.fixture(scope="module")
def questions() -> list[str]:
    return [row["messages"][1]["content"] for row in data.load_answer(1)["validation"]]


# ---------------------------------------------------------------- distractors


def test_distractors_look_like_the_desk_and_hold_no_right_answer(sections):
    made = distractors(sections, 3000)
    assert len(made) == 3000 == len({c.id for c in made}) == len({c.content for c in made})
    assert all(c.id.startswith("distractor-") and c.article.startswith("distractor-") and c.edition == 1 for c in made)
    assert not [c for c in made if re.search(PRODUCTS, c.content)]
    originals = {c.id: c for c in sections}
    for chunk in made[:500]:  # the same text but for names and numbers
        original = originals[chunk.id.split("/", 1)[1]]
        assert re.search(PRODUCTS, original.content)
        bare = [re.sub(rf"\d|\b({'|'.join(scale.WORDS)})\b", "#", text, flags=re.I) for text in (original.content, chunk.content)]
        bare[0] = re.sub(PRODUCTS, "NAME", bare[0])
        assert re.fullmatch(re.escape(bare[0]).replace("NAME", "[A-Z][a-z]+"), bare[1])
        numbers = [re.findall(r"(?<!\d)\d\d+", c.text) for c in (original, chunk)]
        assert all(a != b and len(a) == len(b) for a, b in zip(*numbers, strict=True))


def test_a_fact_is_not_in_its_distractors(sections):
    row = next(r for r in data.load_answer(1)["test"] if r["facts"] == ["kb-001/f1"] or r["articles"])
    gold = gold_sections(row, sections)
    assert gold_sections(row, [*sections, *distractors(sections, 1000)]) == gold


def test_distractors_are_the_same_each_time_and_grow_at_the_end(sections):
    made = distractors(sections, 1000)
    assert distractors(sections, 1000) == made and distractors(sections, 400) == made[:400] and distractors(sections, 0) == []
    assert distractors(sections, 1000, seed=1) != made
    first, second = ({c.title for c in made if c.id.startswith(f"distractor-{tile}/")} for tile in (0, 1))
    assert not first & second  # other names in each tile
    with pytest.raises(ValueError, match="whose title names a product"):
        distractors([c for c in sections if not re.search(PRODUCTS, c.title)], 10)


def test_list_numbers_stay_and_other_numbers_change():
    text = "1. Undo the four bolts with the 14 mm key.\n2. Wait 110 minutes. It costs €24.50."
    made = distractors([Chunk("a", "a", 1, "The Rill", "", text)], 20)
    for chunk in made:
        match = re.fullmatch(r"1\. Undo the (\w+) bolts with the (\d\d) mm key\.\n2\. Wait (\d{3}) minutes\. It costs €(\d\d)\.(\d\d)\.", chunk.text)
        assert match and match[1] != "four" and match[2] != "14" and match[3] != "110" and (match[4], match[5]) != ("24", "50"), chunk.text


# ---------------------------------------------------------------- embed


class Stops(WordsEmbedder):
    """Stops after some batches, as Ctrl-C would."""

    left = 3

    def encode(self, texts):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().encode(texts)


def test_embedding_can_be_stopped_and_goes_on_where_it_was(tmp_path, sections):
    texts, file = [c.content for c in sections], tmp_path / "vectors.npy"
    with pytest.raises(KeyboardInterrupt):
        embed(texts, Stops(), file, batch=100)
    assert json.loads((tmp_path / "vectors.npy.json").read_text())["done"] == 200
    embedder, seen = WordsEmbedder(), []
    matrix = embed(texts, embedder, file, batch=100, progress=lambda done, of: seen.append((done, of)))
    assert embedder.texts == len(texts) - 200 + 1 and seen == [(300, 368), (368, 368)]
    fresh = WordsEmbedder().encode(texts)
    assert np.allclose(matrix, fresh / np.linalg.norm(fresh, axis=1, keepdims=True), atol=1e-6)
    again = WordsEmbedder()
    assert np.array_equal(embed(texts, again, file), matrix) and again.texts == 1
    with pytest.raises(ValueError, match="expected vectors of these 10 texts.*Fix: "):
        embed(texts[:10], again, file)
    with pytest.raises(ValueError, match="another precision"):
        embed(texts, again, file, bf16=not models.has_fast_bf16())


# ---------------------------------------------------------------- latency and growth


def test_latency_measures_each_way_and_the_exact_one_agrees_with_numpy(tmp_path, sections, questions):
    index = Index(tmp_path / "index", WordsEmbedder())
    index.update([*sections, *distractors(sections, 2000)], 1)
    times = latency(index, questions[:10])
    assert times["chunks"] == 2368 and times["questions"] == 10 and times["exact"]["recall"] == 1
    assert 0.5 < times["approximate"]["recall"] <= 1 and times["approximate"]["build_s"] > 0
    for way in ("embed", "exact", "approximate", "text", "hybrid", "numpy"):
        assert 0 < times[way]["median_ms"] <= times[way]["p95_ms"]
    assert [i.name for i in index.table.list_indices()] == ["content_idx"]  # the index is left as it was
    assert json.loads(json.dumps(times)) == times
    few = latency(index, questions[:3], vectors=WordsEmbedder().encode(questions[:3]), least=10_000)
    assert "approximate" not in few and "embed" not in few
    with pytest.raises(ValueError, match="expected questions"):
        latency(index, [])


def test_growth_gives_one_plain_dictionary_per_size(tmp_path, sections):
    rows = list(data.load_answer(1)["validation"])
    made = list(grow([368, 1000], sections, rows, WordsEmbedder(), tmp_path / "vectors.npy", folder=tmp_path))
    assert [m["chunks"] for m in made] == [368, 1000] and json.loads(json.dumps(made)) == made
    for mode in ("text", "vector", "hybrid"):
        small, large = (m["recall"][mode] for m in made)
        assert 0 <= small[1] <= small[0] <= small[2] <= 1
        assert mode != "vector" or large[0] <= small[0], mode  # BM25 may gain: near misses teach it which words are common
    assert made[1]["megabytes"] > made[0]["megabytes"] > 0 and made[0]["index_s"] > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["vectors.npy", "vectors.npy.json"]
    with pytest.raises(ValueError, match="sizes of at least 368"):
        next(grow([80], sections, rows, WordsEmbedder(), tmp_path / "vectors.npy"))


# ---------------------------------------------------------------- losses


def test_the_contrastive_loss_is_worked_by_hand():
    a, b = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.3, 0.4]])
    # similar at distance 5: 25; different at distance 1 = margin: 0; different at 0.5: 0.25
    value = ContrastiveLoss(1.0)(a, b, torch.tensor([SIMILAR, DIFFERENT, DIFFERENT]))
    assert value.item() == pytest.approx((25 + 0 + 0.25) / 3, abs=1e-4)


def test_the_contrastive_loss_is_twice_that_of_sentence_transformers_with_labels_flipped():
    from sentence_transformers.sentence_transformer import losses

    torch.manual_seed(0)
    a, b, y = torch.randn(40, 8), torch.randn(40, 8), torch.randint(0, 2, (40,))
    for margin in (0.5, 2.0, 4.0):
        theirs = losses.ContrastiveLoss(None, distance_metric=losses.SiameseDistanceMetric.EUCLIDEAN, margin=margin)
        ours = ContrastiveLoss(margin)
        assert ours(a, b, y).item() == pytest.approx(2 * theirs.compute_loss_from_embeddings([a, b], 1 - y).item(), rel=1e-5)
        assert ours(a, b, y).item() != pytest.approx(2 * theirs.compute_loss_from_embeddings([a, b], y).item(), rel=1e-2)


def test_the_ranking_loss_is_that_of_sentence_transformers():
    from sentence_transformers.sentence_transformer import losses

    torch.manual_seed(0)
    a, right, wrong = torch.randn(12, 8), torch.randn(12, 8), torch.randn(12, 8)
    theirs = losses.MultipleNegativesRankingLoss(None, scale=20.0).compute_loss_from_embeddings([a, right, wrong], None)
    ours = RankingLoss(20.0)(torch.cat([a, a]), torch.cat([right, wrong]), torch.tensor([SIMILAR] * 12 + [DIFFERENT] * 12))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.fixture(scope="module")
def embedder():
    return models.load_embedder()


def test_training_pairs_are_gold_sections_and_near_misses(tmp_path, embedder, sections):
    index = Index(tmp_path / "index", embedder)
    index.update(sections, 1)
    rows = list(data.load_answer(1)["train"])[:40]
    pairs = training_pairs(rows, sections, index, negatives=2)
    by_question = {row["messages"][1]["content"]: row for row in rows}
    article = {c.content: c.article for c in sections}
    assert {p.question for p in pairs} == {q for q, row in by_question.items() if row["articles"]}  # no unanswerable one
    for pair in pairs:
        assert (article[pair.text] in by_question[pair.question]["articles"]) == (pair.label == SIMILAR)
    assert sum(p.label == DIFFERENT for p in pairs) == 2 * sum(p.label == SIMILAR for p in pairs)


@pytest.mark.parametrize("loss", [ContrastiveLoss(1.0), RankingLoss()], ids=lambda loss: type(loss).__name__)
def test_tuning_lowers_the_loss_moves_the_last_layers_only_and_can_be_repeated(embedder, loss):
    pairs = [Pair(q, text, int(q[-2] != text[0])) for q in ("Where is a?", "Where is b?", "Where is c?") for text in ("a is here", "b is there", "c is not")]
    before = embedder.encode(["Where is a?"])
    runs, models_ = [], []
    for _ in range(2):
        copied = copy.deepcopy(embedder)
        runs.append(tune(copied, pairs, loss, epochs=6, batch=9, learning_rate=1e-4, layers=2, seed=1))
        models_.append(copied)
    assert len(runs[0]) == 6 and runs[0] == runs[1] and runs[0][-1] < runs[0][0]
    assert np.array_equal(embedder.encode(["Where is a?"]), before)  # the original is as it was
    moved = [name for (name, p), (_, q) in zip(embedder.named_parameters(), models_[0].named_parameters()) if not torch.equal(p, q)]
    assert moved and {re.search(r"layer\.(\d)", name)[1] for name in moved} == {"4", "5"}


def test_a_layer_too_many_is_refused(embedder):
    with pytest.raises(ValueError, match="from 1 to 6 layers to train, got 7"):
        tune(copy.deepcopy(embedder), [], ContrastiveLoss(), layers=7)
