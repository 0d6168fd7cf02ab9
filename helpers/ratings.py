"""People compare two systems side by side: hide who is who, keep every vote, count with intervals. Explained in lesson 08.

The buttons that a person presses are `helpers.widgets.rate`.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import combinations
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

from helpers.evaluation import Interval, cohens_kappa, proportion

VERDICTS = ("left", "right", "tie", "both bad")
Key = tuple[str, str, frozenset[str]]


@dataclass(frozen=True)
class Pair:
    """Two answers to one question. What a rater sees is `question`, `left` and `right`; the names of the systems stay hidden."""

    id: str
    question: str
    left: str
    right: str
    left_system: str
    right_system: str

    def key(self, rater: str) -> Key:
        """What a vote of this rater on this pair is stored under."""
        return rater.strip(), self.id, frozenset((self.left_system, self.right_system))


@dataclass(frozen=True)
class Vote:
    """One verdict: of `VERDICTS`, by a rater, on the pair whose systems were shown so. `time` is UTC, ISO 8601."""

    pair: str
    verdict: str
    left_system: str
    right_system: str
    rater: str
    time: str

    @property
    def key(self) -> Key:
        """What a rater can vote on once: a later vote with the same key replaces the earlier one."""
        return self.rater, self.pair, frozenset((self.left_system, self.right_system))

    @property
    def choice(self) -> str:
        """The system that was preferred, or "tie", or "both bad"."""
        return {"left": self.left_system, "right": self.right_system}.get(self.verdict, self.verdict)


class Summary(NamedTuple):
    """What the votes say. `pairs`, `votes`: how many. `verdicts`: how often each was given. `wins`: system -> share of its pairs that it
    won; a pair is won by the system that more raters chose, and may have no winner. `left`: share of the decided votes that went to
    the left side, None without one. `kappa`: for every two raters with pairs in common, Cohen's kappa of what they chose."""

    pairs: int
    votes: int
    verdicts: dict[str, int]
    wins: dict[str, Interval]
    left: Interval | None
    kappa: dict[tuple[str, str], Interval]

    def __str__(self) -> str:
        lines = [f"{self.pairs} pairs, {self.votes} votes: " + ", ".join(f"{name} {n}" for name, n in self.verdicts.items())]
        lines += [f"{system} wins {share}" for system, share in self.wins.items()]
        lines += [f"the left side was chosen in {self.left} of the decided votes"] if self.left else []
        return "\n".join(lines + [f"kappa of {a} and {b}: {value}" for (a, b), value in self.kappa.items()])

    __repr__ = __str__


def pairs(
    a: Sequence[str], b: Sequence[str], ids: Sequence[str], seed: int = 0, *, questions: Sequence[str] | None = None, names: tuple[str, str] = ("a", "b"),
) -> list[Pair]:
    """Pairs to rate: the answers of two systems to the same questions, on sides drawn by the seed.

    Half of the pairs (one more where their number is odd) have system a on the left. `names`: what the systems are called in the
    file and in the summary; the rater does not see it. Raises ValueError when the lists differ in length, an id stands twice, or the
    names are not two. Explained in lesson 08.
    """
    questions = [""] * len(ids) if questions is None else questions
    if not len(a) == len(b) == len(ids) == len(questions) or not len(ids):
        raise ValueError(f"pairs: expected as many answers of each system as ids and questions, and at least one, got {len(a)}, {len(b)}, {len(ids)} and "
                         f"{len(questions)}. Fix: answer the same rows with both systems.")
    if len(set(ids)) < len(ids):
        raise ValueError(f"pairs: expected each id once, got {Counter(ids).most_common(1)[0][0]!r} twice or more. Fix: give every row an id of its own.")
    if len(set(names)) != 2 or set(names) & set(VERDICTS):
        raise ValueError(f"pairs: expected two different names, other than {', '.join(VERDICTS)}, got {names}. Fix: name the two systems.")
    sides = [k % 2 == 0 for k in range(len(ids))]
    random.Random(seed).shuffle(sides)
    return [
        Pair(str(i), q, *((x, y, *names) if left else (y, x, *names[::-1])))
        for i, q, x, y, left in zip(ids, questions, a, b, sides)
    ]


class Ratings:
    """Votes in a file, one JSON object a line, only ever added to: a vote that was given is not lost.

    Each vote is written whole, under a lock, and reaches the disk before `add` returns; two notebooks may write at once. A rater has
    one vote per pair, and the last one counts. Use a new file for new answers: a vote is about the texts that were shown.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, pair: Pair, verdict: str, rater: str = "me") -> Vote:
        """Store one vote and return it. Raises ValueError for another verdict or an empty rater, OSError when the file cannot be written."""
        if verdict not in VERDICTS:
            raise ValueError(f"verdict: expected one of {', '.join(VERDICTS)}, got {verdict!r}. Fix: choose one of them.")
        if not rater.strip():
            raise ValueError(f"rater: expected a name, got {rater!r}. Fix: any word that tells the raters apart.")
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        vote = Vote(pair.id, verdict, pair.left_system, pair.right_system, rater.strip(), now)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            with _locked(handle):
                line = (json.dumps(asdict(vote), ensure_ascii=False) + "\n").encode()
                size = os.fstat(handle).st_size
                if size:
                    os.lseek(handle, size - 1, os.SEEK_SET)
                    if os.read(handle, 1) != b"\n":
                        line = b"\n" + line  # a half line of a crash ends here, so that it spoils no other
                if os.write(handle, line) != len(line):
                    raise OSError(f"{self.path}: expected to write a whole vote, wrote a part of it. Fix: free some disk space and vote again.")
                os.fsync(handle)
        finally:
            os.close(handle)
        return vote

    def read(self) -> tuple[list[Vote], list[str]]:
        """The votes that count, in order of their keys' first appearance, and a message for each line that is not a vote."""
        votes, messages = {}, []
        text = self.path.read_bytes() if self.path.exists() else b""
        for number, line in enumerate(text.split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                vote = _vote(line)
            except (ValueError, TypeError) as error:
                messages.append(f"{self.path.name}, line {number}: expected a vote, found {error}. It is left out; vote on that pair again.")
            else:
                votes[vote.key] = vote
        return list(votes.values()), messages

    def votes(self) -> list[Vote]:
        """The votes that count."""
        return self.read()[0]

    def voted(self, pair: Pair, rater: str = "me") -> Vote | None:
        """The rater's vote on a pair, if there is one."""
        return next((vote for vote in self.votes() if vote.key == pair.key(rater)), None)

    def summary(self) -> Summary:
        """Count the votes; every share with Wilson's interval over pairs, not over votes, since two votes on one pair are not independent.

        Raises ValueError when there is no vote yet.
        """
        votes = self.votes()
        if not votes:
            raise ValueError(f"{self.path}: expected at least one vote, got none. Fix: rate a pair first.")
        by_pair: dict[tuple, list[Vote]] = defaultdict(list)
        for vote in votes:
            by_pair[vote.key[1:]].append(vote)
        wins: dict[str, list[bool]] = defaultdict(list)
        for (_, systems), given in by_pair.items():
            chosen = Counter(vote.choice for vote in given)
            for system in sorted(systems):
                wins[system].append(all(chosen[system] > chosen[other] for other in systems - {system}))
        decided = [vote.verdict == "left" for vote in votes if vote.verdict in ("left", "right")]
        counts = Counter(vote.verdict for vote in votes)
        return Summary(len(by_pair), len(votes), {name: counts[name] for name in VERDICTS}, {name: proportion(wins[name]) for name in sorted(wins)},
                       proportion(decided) if decided else None, _kappas(votes))


def _kappas(votes: Sequence[Vote]) -> dict[tuple[str, str], Interval]:
    choices: dict[str, dict[tuple, str]] = defaultdict(dict)
    for vote in votes:
        choices[vote.rater][vote.key[1:]] = vote.choice
    found = {}
    for a, b in combinations(sorted(choices), 2):
        if common := [key for key in choices[a] if key in choices[b]]:
            found[a, b] = cohens_kappa([choices[a][key] for key in common], [choices[b][key] for key in common])
    return found


def _vote(line: bytes) -> Vote:
    try:
        row = json.loads(line.decode())
    except ValueError:
        raise ValueError("no JSON (a line that was cut off, by a crash or a full disk)") from None
    names = list(Vote.__dataclass_fields__)
    if not isinstance(row, dict) or sorted(row) != sorted(names) or not all(isinstance(value, str) for value in row.values()):
        raise ValueError(f"something other than the texts {', '.join(names)}")
    if row["verdict"] not in VERDICTS:
        raise ValueError(f"the verdict {row['verdict']!r}")
    return Vote(**row)


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    """Only one process at a time; the system takes the lock off a process that dies. (The Windows branch is not verified on Windows.)"""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        os.lseek(handle, 1 << 30, os.SEEK_SET)  # a byte far behind the end: readers stay free
        msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
        try:
            yield
        finally:
            os.lseek(handle, 1 << 30, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
