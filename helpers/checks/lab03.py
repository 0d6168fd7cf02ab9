"""The exercises of lab 03: cut, search, fuse, filter, abstain. Lesson 03 explains them."""

from __future__ import annotations

from typing import Any, Callable, Collection, Mapping, Sequence

from helpers import results

from .compare import plain
from .exercise import Exercise, Mistake, Prediction

LAB = "lab03"

# ---------------------------------------------------------------- 1: windows that overlap


def _windows(words: Sequence[str], size: int, overlap: int) -> list[list[str]]:
    starts = range(0, max(len(words) - overlap, min(len(words), 1)), size - overlap)
    return [list(words[start : start + size]) for start in starts]


def _every(step: Callable[[int, int], int]) -> Callable[..., list[list[str]]]:
    """Windows up to the last word, with another step; the last one holds something new."""
    def cut(words: Sequence[str], size: int, overlap: int) -> list[list[str]]:
        made: list[list[str]] = []
        for start in range(0, len(words), step(size, overlap)):
            made.append(list(words[start : start + size]))
            if start + size >= len(words):
                break
        return made

    return cut


def _letters(count: int) -> list[str]:
    return [f"w{n}" for n in range(1, count + 1)]


def _as_windows(value: Any) -> Any:
    """Windows as lists of words; a window may also be a text."""
    value = plain(value)
    return [window.split() if isinstance(window, str) else window for window in value] if isinstance(value, list) else value


exercise_1 = Exercise(
    LAB, 1, 2,
    right=_windows,
    cases=lambda: {
        "10 words, windows of 4, overlap 1": (_letters(10), 4, 1),
        "12 words, windows of 5, overlap 2": (_letters(12), 5, 2),
        "9 words, windows of 3, no overlap": (_letters(9), 3, 0),
        "13 words, windows of 6, overlap 4": (_letters(13), 6, 4),
        "fewer words than one window": (_letters(3), 8, 2),
        "no words": ([], 8, 2),
        "fewer words than the overlap": (_letters(2), 8, 3),
        "words that come again": (["a", "b", "a", "b", "a", "b", "c"], 2, 0),
    },
    returns="a list of windows, each a list of words",
    read=_as_windows,
    mistakes=[
        Mistake(lambda words, size, overlap: [words[start : start + size] for start in range(0, len(words), size - overlap)],
                "Your last window repeats only what the window before already holds. It would be stored, embedded and found as a chunk of its own: stop "
                "when a window reaches the last word.", credit=0.5),
        Mistake(lambda words, size, overlap: [words[start : start + size] for start in range(0, len(words) - size + 1, size - overlap)],
                "Words at the end are lost: you only make windows of full size. The last window may be shorter; a text of 3 words has one window, too."),
        Mistake(_every(lambda size, overlap: size),
                "Your windows don't overlap: each begins where the one before ended. Begin the next one `size - overlap` words after the last start."),
        Mistake(_every(lambda size, overlap: size - overlap + 1),
                "Your windows share one word too few. The next start is exactly `size - overlap` after the last one.", credit=0.5),
        Mistake(_every(lambda size, overlap: max(size - overlap - 1, 1)),
                "Your windows share one word too many. The next start is exactly `size - overlap` after the last one.", credit=0.5),
        Mistake(lambda words, size, overlap: [words[max(start - overlap, 0) : start + size] for start in range(0, len(words), size)],
                "Your windows are longer than `size`: you put the overlap in front of a whole window. The overlap is part of the window: step by "
                "`size - overlap` and take `size` words.", credit=0.25),
        Mistake(_every(lambda size, overlap: overlap or size),
                "You step by the overlap. The overlap is what two windows share; the step is what is new: `size - overlap`."),
        Mistake(lambda words, size, overlap: [words[start : start + size] for start in range(0, len(words) - overlap, size - overlap)],
                "A text that is not longer than the overlap gets no window, and its words are lost. Any words at all give one window.", credit=0.5),
        Mistake(lambda words, size, overlap: _windows(words, size, overlap) or [[]],
                "Where there are no words, you return one window without words. It would be stored and found: return an empty list.", credit=0.5),
    ],
    after="Each word is in a window, and each window brings something new.",
)

# ---------------------------------------------------------------- 2: recall@k, predicted and measured


def _recall(found: Sequence[str], gold: Collection[str], k: int) -> float:
    return len(set(gold) & set(list(dict.fromkeys(found))[:k])) / len(gold)


def _many() -> tuple[list[str], set[str], int]:
    """Forty articles in no order, some of them several times; twelve are gold, ten places."""
    names = [f"kb-{7 * n % 41}" for n in range(1, 41)]
    return [names[0]] * 3 + names[:5] + names + names[:1], set(names[:10] + names[20:22]), 10


def _measured() -> float:
    """Hybrid search over sections, edition 1, the 64 test questions that the documents answer: the stored row."""
    return round(results.READING.stored(results.ReadingRecipe())["1"]["search"]["hybrid"]["recall@5"][0], 2)


exercise_2 = Exercise(
    LAB, 2, 3,
    right=_recall,
    cases=lambda: {
        "two sections of one article on top": (["kb-3", "kb-3", "kb-7", "kb-1"], {"kb-7"}, 2),
        "one of two gold articles": (["kb-1", "kb-2", "kb-3", "kb-4"], {"kb-2", "kb-9"}, 4),
        "two gold articles, one place": (["kb-1", "kb-2", "kb-3"], {"kb-1", "kb-2"}, 1),
        "a gold article three times": (["kb-1", "kb-1", "kb-1", "kb-2", "kb-5"], {"kb-1", "kb-2"}, 3),
        "just behind the first k": (["kb-1", "kb-2", "kb-3", "kb-4"], {"kb-4"}, 3),
        "nowhere": (["kb-1", "kb-2"], {"kb-8"}, 5),
        "many articles, repeats further down": _many(),
    },
    returns="the share of the gold articles that were found, a number from 0 to 1",
    prediction=Prediction(
        "recall@5 of hybrid search", 0, 1, _measured,
        typical=[
            (0, 0.85, "Where the right article is not first, it is nearly always one of the next four: a near miss is an article about a like thing."),
            (0.85, 0.97, "A little too careful: nearly every miss of the first place is a near miss."),
        ]),
    mistakes=[
        Mistake(lambda found, gold, k: len(set(gold) & set(found[:k])) / len(gold),
                "You take the first k chunks. Two sections of one article are one article: remove repeats first, so that the others move up, then take "
                "the first k.", credit=0.5),
        Mistake(lambda found, gold, k: sum(article in gold for article in found[:k]) / len(gold),
                "A gold article counts as often as it comes, so recall can be more than 1. Remove repeats from `found` first.", credit=0.25),
        Mistake(lambda found, gold, k: any(article in gold for article in list(dict.fromkeys(found))[:k]),
                "You ask whether any gold article was found. A question that needs two articles is half found with one: divide by the number of gold "
                "articles.", credit=0.5),
        Mistake(lambda found, gold, k: any(article in gold for article in found[:k]),
                "You ask whether any gold article stands among the first k chunks. Count articles, not chunks, and divide the gold ones found by all "
                "gold ones.", credit=0.25),
        Mistake(lambda found, gold, k: len(set(gold) & set(list(dict.fromkeys(found))[:k])) / k,
                "You divide by k. That is *precision*, the share of what was found that is gold. Recall divides by the number of gold articles.",
                credit=0.25),
        Mistake(lambda found, gold, k: sum(article in gold for article in found[:k]) / k,
                "You divide by k, and you count chunks. Recall counts gold articles that were found, each once, and divides by the number of gold articles."),
        Mistake(lambda found, gold, k: _recall(found, gold, k + 1),
                "You look at k + 1 articles. `list[:k]` holds exactly k.", credit=0.5),
        Mistake(lambda found, gold, k: len(set(gold) & set(list(set(found))[:k])) / len(gold),
                "You remove repeats with `set`, and a set has no order: any articles may come first, others each time Python starts. "
                "`dict.fromkeys(found)` keeps the order.", credit=0.5),
        Mistake(lambda found, gold, k: len(set(gold) & set(list(dict.fromkeys(found))[:k])) / min(len(gold), k),
                "Where there are fewer places than gold articles, you divide by the places. Recall divides by all gold articles, so with one place for two "
                "it is 0.5 at best.", credit=0.5),
    ],
    after="Each gold article counts once, wherever its sections stand.",
)

# ---------------------------------------------------------------- 3: reciprocal rank fusion

K = 60


def _fused(rankings: Sequence[Sequence[str]], share: Callable[[int], float] = lambda rank: 1 / (K + rank), best_first: bool = True,
           join: Callable[[list[float]], float] = sum, everywhere: bool = False) -> list[list[Any]]:
    shares: dict[str, list[float]] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, start=1):
            shares.setdefault(name, []).append(share(rank))
    scores = {name: join(some) for name, some in shares.items() if not everywhere or len(some) == len(rankings)}
    return [list(pair) for pair in sorted(scores.items(), key=lambda pair: pair[1], reverse=best_first)]


def _as_pairs(value: Any) -> Any:
    value = plain(value)
    return [list(pair) for pair in value.items()] if isinstance(value, dict) else value


exercise_3 = Exercise(
    LAB, 3, 3,
    right=_fused,
    cases=lambda: {
        "two searches": ([["a", "b", "c", "d"], ["c", "a", "e"]],),
        "first in one search only": ([["x", "a", "b"], ["a", "c", "b"]],),
        "three searches": ([["p", "q"], ["q", "r", "p"], ["s", "q", "t"]],),
        "a search that found nothing": ([["a", "b", "c"], []],),
    },
    returns="a list of pairs (name, score), best first",
    read=_as_pairs,
    mistakes=[
        Mistake(lambda rankings: _fused(rankings, lambda rank: 1 / (K + rank - 1)),
                "You count ranks from 0. The first place has rank 1, so its share is 1/61: use `enumerate(ranking, start=1)`.", credit=0.5),
        Mistake(lambda rankings: _fused(rankings, lambda rank: 1 / rank),
                "You leave out the 60. With 1/rank alone, a first place in one list outweighs a second and a third place together; the 60 makes "
                "agreement of the lists count.", credit=0.5),
        Mistake(lambda rankings: _fused(rankings, lambda rank: rank, best_first=False),
                "You add up ranks. A result that only one search found then has the smaller sum and wins: add 1 / (60 + rank) instead."),
        Mistake(lambda rankings: _fused(rankings, everywhere=True),
                "Results that are not in every list are lost. One search may find what the other can't: a list without the name just adds nothing.", credit=0.25),
        Mistake(lambda rankings: _fused(rankings, best_first=False),
                "The worst comes first. `sorted` goes upwards: add `reverse=True`.", credit=0.5),
        Mistake(lambda rankings: _fused(rankings, join=max),
                "You keep one share per name, the best one. Add them up: to be found by two searches must count more than by one.", credit=0.25),
        Mistake(lambda rankings: _fused(rankings, join=lambda some: some[-1]),
                "The second list overwrites the first: you assign the share. Add it to what the name has: `scores[name] = scores.get(name, 0) + …`.", credit=0.25),
        Mistake(lambda rankings: [name for name, _ in _fused(rankings)],
                "The order is right, but the scores are missing. Return pairs: (name, score).", credit=0.5),
        Mistake(lambda rankings: sorted(_fused(rankings)),
                "The scores are right, but the pairs are sorted by name: `sorted` looks at the first part. Give it `key=lambda pair: pair[1]` and "
                "`reverse=True`.", credit=0.5),
        Mistake(lambda rankings: [[name, dict(map(tuple, _fused(rankings)))[name]] for name in dict.fromkeys(n for r in rankings for n in r)],
                "The scores are right, but not sorted: the pairs stand in the order in which the names came.", credit=0.5),
        Mistake(lambda rankings: _fused(rankings, lambda rank: 1 / K + rank),
                "You divide 1 by 60 and then add the rank: without brackets the division comes first. Write `1 / (60 + rank)`.", credit=0.5),
        Mistake(lambda rankings: [pair[::-1] for pair in _fused(rankings)],
                "The scores and the order are right, but each pair is the wrong way round: first the name, then the score.", credit=0.5),
    ],
    after="A result that both searches put near the top beats one that a single search puts first.",
)

# ---------------------------------------------------------------- 4: a search that mixes editions

Chunk = Mapping[str, Any]
Kept = Callable[[int, int], bool]


def _best(scores: Sequence[float], chunks: Sequence[Chunk], k: int, kept: Callable[[Chunk], bool] = lambda chunk: True) -> list[Chunk]:
    order = sorted(range(len(chunks)), key=lambda n: -scores[n])
    return [chunks[n] for n in order if kept(chunks[n])][:k]


def _search(scores: Sequence[float], chunks: Sequence[Chunk], k: int, edition: int) -> list[str]:
    return [chunk["id"] for chunk in _best(scores, chunks, k, lambda chunk: chunk["edition"] == edition)]


def _afterwards(kept: Kept, more: int = 1) -> Callable[..., list[str]]:
    def search(scores: Sequence[float], chunks: Sequence[Chunk], k: int, edition: int) -> list[str]:
        return [chunk["id"] for chunk in _best(scores, chunks, k * more) if kept(chunk["edition"], edition)][:k]

    return search


def _wrong_places(scores: Sequence[float], chunks: Sequence[Chunk], k: int, edition: int) -> list[str]:
    """Scores of the chunks kept, places in the list of all chunks."""
    kept = [score for score, chunk in zip(scores, chunks) if chunk["edition"] == edition]
    return [chunks[n]["id"] for n in sorted(range(len(kept)), key=lambda n: -kept[n])[:k]]


def _places_of_all(scores: Sequence[float], chunks: Sequence[Chunk], k: int, edition: int) -> list[str]:
    """Places in the list of all chunks, looked up among the chunks kept; it may end in an IndexError."""
    kept = [chunk for chunk in chunks if chunk["edition"] == edition]
    return [kept[n]["id"] for n in sorted(range(len(chunks)), key=lambda n: -scores[n])[:k]]


def _documents(*rows: tuple[str, int, float]) -> tuple[list[float], list[dict[str, Any]]]:
    return [score for *_, score in rows], [{"id": f"{name}@{edition}", "edition": edition} for name, edition, _ in rows]


def _search_cases() -> dict[str, tuple]:
    both = _documents(("a", 1, 0.9), ("b", 1, 0.4), ("c", 1, 0.7), ("a", 2, 0.88), ("b", 2, 0.41), ("c", 2, 0.6), ("d", 2, 0.3))
    crowd = _documents(*((f"old{n}", 1, 0.9 - n / 100) for n in range(8)), ("x", 2, 0.2), ("y", 2, 0.5), ("z", 2, 0.3))
    flood = _documents(*((f"old{n}", 1, 0.9 - n / 1000) for n in range(300)), ("x", 2, 0.2), ("y", 2, 0.5), ("z", 2, 0.3))
    alike = _documents(("a", 1, 0.7), ("a", 2, 0.7), ("b", 2, 0.9), ("b", 1, 0.4), ("d", 2, 0.6), ("d", 1, 0.6), ("c", 2, 0.1))
    below = _documents(("a", 2, -0.2), ("b", 2, -0.5), ("c", 1, 0.1), ("d", 2, 0.05), ("e", 2, -0.1), ("e", 1, -0.3))
    three = _documents(("a", 3, 0.8), ("a", 1, 0.81), ("b", 2, 0.5), ("a", 2, 0.79), ("b", 3, 0.9), ("b", 1, 0.1))
    return {
        "edition 2 of two": (*both, 3, 2),
        "edition 1 of two": (*both, 2, 1),
        "the old edition fills the first places": (*crowd, 2, 2),
        "three editions": (*three, 2, 2),
        "fewer chunks than asked for": (*three, 5, 3),
        "the old edition fills 300 places": (*flood, 2, 2),
        "sections with the same score in both editions": (*alike, 3, 2),
        "scores below 0": (*below, 3, 2),
        "an edition without chunks": (*both, 2, 0),
    }


exercise_4 = Exercise(
    LAB, 4, 3,
    right=_search,
    cases=_search_cases,
    returns="the ids of the k best chunks of the edition, best first",
    mistakes=[
        Mistake(_afterwards(lambda has, asked: has <= asked),
                "Nothing has changed: old editions still come through (`<=`), and chunks are dropped after the k best were taken, so there may be too few."),
        Mistake(lambda scores, chunks, k, edition: [c["id"] for c in _best(scores, chunks, k, lambda chunk: chunk["edition"] <= edition)],
                "You filter first now, which is right, but older editions still come through: a value of last year reads as well as a new one. Ask for "
                "`==`.", credit=0.5),
        Mistake(_afterwards(lambda has, asked: has == asked, more=2),
                "You fetch more and filter afterwards. That helps until another edition fills all of those places, too: filter first, then take k.", credit=0.5),
        Mistake(_afterwards(lambda has, asked: has == asked),
                "The editions are no longer mixed, but you take the k best of all and drop chunks then. Where another edition fills the first places, too "
                "few are left, or none: filter first.", credit=0.5),
        Mistake(_wrong_places,
                "You number the chunks that are left and look those numbers up among all chunks, so the ids belong to others. Keep each chunk's number "
                "in the whole list.", credit=0.25),
        Mistake(lambda scores, chunks, k, edition: [c["id"] for c in _best([-score for score in scores], chunks, k, lambda chunk: chunk["edition"] == edition)],
                "The filter is right, but the worst comes first. `sorted` and `argsort` go upwards: turn the order round before you take k.", credit=0.5),
        Mistake(_places_of_all,
                "You number all chunks by score and look those numbers up among the chunks that are left: other chunks stand there. Filter the numbers, "
                "not the chunks.", credit=0.25),
        Mistake(lambda scores, chunks, k, edition: [c["id"] for c in _best(scores, chunks, k)],
                "There is no filter left: chunks of all editions come through."),
        Mistake(lambda scores, chunks, k, edition: [chunk["id"] for chunk in chunks if chunk["edition"] == edition][:k],
                "You filter, but then the chunks stand in the order of the documents. Sort by score, best first, before you take k.", credit=0.25),
        Mistake(lambda scores, chunks, k, edition: [chunks[scores.index(score)]["id"] for score in
                                                    sorted((s for s, chunk in zip(scores, chunks) if chunk["edition"] == edition), reverse=True)[:k]],
                "You look chunks up by their score. A section that did not change has the same score in both editions, and `index` finds the first: sort the "
                "numbers of the chunks instead.", credit=0.5),
        Mistake(lambda scores, chunks, k, edition: [c["id"] for _, c in sorted(zip(scores, chunks), reverse=True) if c["edition"] == edition][:k],
                "Where two scores are equal, `sorted` goes on to compare the chunks, and stops: dicts have no order. Give it `key=lambda pair: pair[0]`.",
                credit=0.5),
    ],
    after="Filter first, then take the k best: that is what a vector database does with a metadata filter.",
)

# ---------------------------------------------------------------- 5: abstain when nothing fits


def _abstains(best: Sequence[float], answerable: Sequence[bool], threshold: float, below: Callable[[float, float], bool] = lambda s, t: s < t) -> tuple[int, int, int, int]:
    """Abstentions and rows: of the unanswerable questions, then of the answerable ones."""
    said = [below(score, threshold) for score in best]
    return (sum(s and not a for s, a in zip(said, answerable)), sum(not a for a in answerable),
            sum(s and bool(a) for s, a in zip(said, answerable)), sum(map(bool, answerable)))


def _rates(best: Sequence[float], answerable: Sequence[bool], threshold: float, **other: Any) -> list[float]:
    should, nowhere, wrongly, somewhere = _abstains(best, answerable, threshold, **other)
    return [should / nowhere, wrongly / somewhere]


def _of_all(best: Sequence[float], answerable: Sequence[bool], threshold: float) -> list[float]:
    should, nowhere, wrongly, somewhere = _abstains(best, answerable, threshold)
    return [should / (nowhere + somewhere), wrongly / (nowhere + somewhere)]


def _of_abstentions(best: Sequence[float], answerable: Sequence[bool], threshold: float) -> list[float]:
    should, _, wrongly, _ = _abstains(best, answerable, threshold)
    return [should / max(should + wrongly, 1), wrongly / max(should + wrongly, 1)]


exercise_5 = Exercise(
    LAB, 5, 2,
    right=_rates,
    cases=lambda: {
        "scores apart": ([0.82, 0.31, 0.75, 0.2, 0.66], [True, False, True, False, True], 0.5),
        "scores mixed": ([0.8, 0.45, 0.61, 0.3, 0.7, 0.52, 0.66], [True, True, False, False, True, True, False], 0.6),
        "scores just at the threshold": ([0.5, 0.5, 0.7, 0.4, 0.5], [True, False, True, False, True], 0.5),
        "a threshold that is never reached": ([0.5, 0.4, 0.3], [True, False, True], 0.9),
    },
    returns="two shares: of the unanswerable questions, and of the answerable ones, those where it abstains",
    mistakes=[
        Mistake(lambda best, answerable, t: _rates(best, answerable, t, below=lambda s, t: s <= t),
                "A score exactly at the threshold fits: abstain only where the score is *below* it, `<` and not `<=`.", credit=0.5),
        Mistake(_of_all,
                "You divide by all questions. Then the numbers depend on how many unanswerable ones are asked: divide the first by the unanswerable "
                "questions, the second by the answerable ones.", credit=0.25),
        Mistake(lambda best, answerable, t: _rates(best, answerable, t)[::-1],
                "The two shares are exchanged: first the unanswerable questions, where it should abstain, then the answerable ones.", credit=0.5),
        Mistake(lambda best, answerable, t: _rates(best, answerable, t, below=lambda s, t: s >= t),
                "You abstain where the score is high. A low score says that nothing fits: abstain below the threshold.", credit=0.25),
        Mistake(_of_abstentions,
                "You divide by the abstentions. The question is another one: of the unanswerable questions, how many does it refuse? Divide by all of "
                "these, answered or not.", credit=0.25),
        Mistake(lambda best, answerable, t: sum((score >= t) == bool(a) for score, a in zip(best, answerable)) / len(best),
                "You return one number, the share of right decisions. It hides which mistake was made: return the two shares.", credit=0.25),
        Mistake(lambda best, answerable, t: [(r := _rates(best, answerable, t))[0], 1 - r[1]],
                "Your second number is the share that it answers. Return the share of answerable questions that it refuses, the *false abstentions*.", credit=0.5),
        Mistake(lambda best, answerable, t: list(_abstains(best, answerable, t)[::2]),
                "These are numbers of questions. Divide each by the questions of its kind: the first by the unanswerable ones, the second by the answerable "
                "ones.", credit=0.5),
        Mistake(lambda best, answerable, t: [float("nan"), _rates(best, answerable, t)[1]],
                "Your first number is no number: nothing was chosen. `not answerable` or `answerable == False` asks about the list as a whole. Make it an "
                "array, and use `~answerable`.", credit=0.5),
    ],
    after="Two numbers, and neither says anything without the other.",
)
