"""The instructor's page is true to what it speaks of: links, sections, minutes, points and each quoted number."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "labs" / "INSTRUCTOR.md"
TEXT = PAGE.read_text(encoding="utf-8")
LESSONS = {p.name[:2]: p for p in sorted((ROOT / "lessons").glob("[0-9]*.ipynb"))}
LABS = {p.name[:2]: p for p in sorted((ROOT / "labs").glob("[0-9]*.ipynb"))}
LINES = [line for line in TEXT.splitlines() if line.strip()]


@functools.cache
def cells(path: Path) -> list[dict]:
    return [cell | {"source": "".join(cell["source"])} for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def squeezed(text: str) -> str:
    return " ".join(text.split())


@functools.cache
def sections(path: Path) -> dict[str, str]:
    """Heading -> all stored outputs from there to the next heading."""
    found, here = {}, None
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            for heading in re.findall(r"^#{2,3} (.+)$", cell["source"], re.M):
                here = heading.replace("`", "").strip()
                found.setdefault(here, "")
        for output in cell.get("outputs", []):
            texts = [output.get("text", ""), *(output.get("data", {}).get(kind, "") for kind in ("text/plain", "text/markdown"))]
            if here:
                found[here] += " " + squeezed(" ".join("".join(t) for t in texts))
    return found


def stated(lab: str) -> dict[str, list[int] | int]:
    """What a lab says about itself: minutes of its exercises, its own time, its points, which exercise repairs and which predicts."""
    text = "\n".join(cell["source"] for cell in cells(LABS[lab]))
    exercises = re.findall(r"^## Exercise (\d): (.+)\n\nDifficulty .* about (\d+) minutes · (\d+) points?", text, re.M)
    return {
        "minutes": [int(minutes) for _, _, minutes, _ in exercises], "points": sum(int(points) for *_, points in exercises),
        "time": int(re.search(r"\| Time \| about (\d+) minutes", text)[1]),
        "repair": [int(n) for n, title, *_ in exercises if title.startswith("Repair")],
        "predict": [int(n) for n, title, *_ in exercises if title.startswith("Predict")],
    }


def named(line: str, lesson: str | None) -> list[tuple[str, str]]:
    """The sections that a line names in italics, each with the lesson named last before it."""
    plain, found = re.sub(r"`[^`]*`|\*\*", "", line), []
    for number, section in re.findall(r"\b[Ll]esson (\d\d)|\*([^*]+)\*", plain):
        lesson = number or lesson
        found += [(lesson, section)] if section else []
    return found


def blocks():
    """(part of the page, line, lesson of its heading), for each line that is no heading."""
    part = lesson = None
    for line in LINES:
        if line.startswith("#"):
            part = line[3:] if line.startswith("## ") else part
            lesson = (re.search(r"^### Lesson (\d\d)", line) or [None, None])[1]
        else:
            yield part, line, lesson


def test_every_link_leads_somewhere():
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", TEXT, re.M)}
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", TEXT):
        assert target[1:] in anchors if target.startswith("#") else (PAGE.parent / target).exists(), target


def test_every_command_is_one_of_the_courses():
    known = set(re.findall(r"^    python course\.py (\w+)", (ROOT / "course.py").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"python course\.py (\w+)", TEXT)) <= known


def test_every_lesson_lab_section_and_question_exists():
    assert set(re.findall(r"[Ll]essons? (\d\d)", TEXT)) <= set(LESSONS) and set(re.findall(r"[Ll]ab (\d\d)", TEXT)) <= set(LABS)
    for _, line, lesson in blocks():
        for of, section in named(line, lesson):
            assert of in LESSONS and section in sections(LESSONS[of]), f"lesson {of} has no section {section!r}: {line[:80]}"
    questions = set(re.findall(r"^\*\*(\d+)\. ", TEXT, re.M))
    for some in re.findall(r"Questions? ([\d, and or]+)", TEXT):
        assert set(re.findall(r"\d+", some)) <= questions, some


def test_every_quoted_number_stands_in_the_outputs_of_its_section():
    quoted = 0
    for part, line, lesson in blocks():
        if part in ("Runs of show", "Sentences and their numbers", "Numbers that seem to disagree", "Questions to discuss"):
            places = named(line, lesson)
            for piece in re.findall(r"`([^`]+)`", line):
                piece = squeezed(piece.replace("\\|", "|"))
                at = rf"(?<![\d.]){re.escape(piece)}(?!\d)"
                assert any(re.search(at, sections(LESSONS[of])[section]) for of, section in places), f"{piece!r} is not what {places} store"
                quoted += 1
    assert quoted > 80


def shows() -> list:
    found = re.findall(r"^#{3,4} [^\n]* in (\d+) minutes\n(.*?)(?=^#)", TEXT, re.M | re.S)
    return [pytest.param(int(minutes), body, id=minutes) for minutes, body in found]


def test_there_is_a_run_of_show_for_60_90_180_minutes_and_two_days():
    assert [p.values[0] for p in shows()] == [60, 90, 180, 480, 480]


@pytest.mark.parametrize("minutes, body", shows())
def test_the_parts_of_a_run_of_show_add_up_and_hold_what_is_in_them(minutes, body):
    parts = [(int(n), part) for n, part in re.findall(r"^\| (\d+) \| ([^|]+) \|", body, re.M)]
    assert sum(n for n, _ in parts) == minutes
    for n, part in parts:
        assert sum(map(int, re.findall(r"\((?:runs )?(\d+) min\)", part))) <= n, part


def test_minutes_of_lessons_are_those_of_the_map_and_of_their_first_cells():
    rows = re.findall(r"^\| \[(\d\d) .*\| (\d+) \| (\d+) GB \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    runs, memory = ({number: row[i] for number, *row in rows} for i in (0, 1))
    for number, minutes in re.findall(r"[Ll]esson (\d\d)[^|\n]*?\(runs (\d+) min", TEXT):
        assert minutes == runs[number], number
    headings = re.findall(r"^### Lesson (\d\d): \[.+\]\(\.\./lessons/(.+)\) \(runs \d+ min, read (\d+) min, (\d+) GB\)$", TEXT, re.M)
    assert len(headings) == TEXT.count("\n### Lesson ") >= 10
    for number, name, read, gb in headings:
        assert name == LESSONS[number].name and gb == memory[number] and f" {read} minutes to read" in cells(LESSONS[number])[0]["source"], number


def test_minutes_and_points_of_labs_are_those_that_they_state():
    for lab, number, minutes in re.findall(r"[Ll]ab (\d\d) exercise (\d) \((\d+) min\)", TEXT):
        assert stated(lab)["minutes"][int(number) - 1] == int(minutes), (lab, number)
    for lab, minutes in re.findall(r"[Ll]ab (\d\d) \((\d+) min\)", TEXT):
        assert stated(lab)["time"] == int(minutes), lab
    table = re.findall(r"^\| \[(\d\d)\]\((\S+)\) \| ([\d, ]+) \| (\d+) \| (\d+) \| ([\d, ]+) \| ([\d, ]+) \|$", TEXT, re.M)
    assert len(table) == len(re.findall(r"^\| \[\d\d\]", TEXT, re.M)) >= 9
    for lab, name, *columns in table:
        said = [[int(n) for n in column.split(",")] for column in columns]
        says = stated(lab)
        assert name == LABS[lab].name
        assert said == [says["minutes"], [says["time"]], [says["points"]], says["repair"], says["predict"]], lab


def test_it_is_short_enough_for_a_tired_instructor():
    assert len(TEXT.splitlines()) < 450
