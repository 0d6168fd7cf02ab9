"""Editions, bundles and the pre-flight check. Real pip, real wheels of a few bytes that the test builds; no network, no real weights."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from helpers import fetch
from helpers.classroom import __main__ as command
from helpers.classroom import bundles, editions

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = b"weights" * 100

# ---------------------------------------------------------------- a course of a few lines, and its packages


def wheel(name: str, version: str, files: dict[str, str | bytes] | None = None, requires: str = "") -> tuple[str, bytes]:
    """(file name, content) of a valid wheel."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (f"Requires-Dist: {requires}\n" if requires else "")
    inside = {f"{name}.py": "", **(files or {}), f"{info}/METADATA": metadata,
              f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in {**inside, f"{info}/RECORD": "".join(f"{p},,\n" for p in inside)}.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return f"{name}-{version}-py3-none-any.whl", buffer.getvalue()


MODEL_WHEEL = wheel("tiny_weights", "1.0", {"tiny_weights/w.bin": WEIGHTS})
ARTIFACT = f"""Artifact(name="tiny", package="tiny-weights", version="1.0", inside="tiny_weights/", wheel_bytes={len(MODEL_WHEEL[1])},
    wheel_sha256="{hashlib.sha256(MODEL_WHEEL[1]).hexdigest()}", files={{"w.bin": "{hashlib.sha256(WEIGHTS).hexdigest()}"}})"""
TINY = eval(ARTIFACT, {"Artifact": fetch.Artifact})
PYPROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny-course"
version = "1"
"""
BACKEND = '''"""A build backend of a few lines, so that nothing must be downloaded to install the course itself."""
import os, zipfile
INFO = "tiny_course-1.dist-info"
METADATA = """Metadata-Version: 2.1
Name: tiny-course
Version: 1
Provides-Extra: lab
Provides-Extra: test
Requires-Dist: tiny-a
Requires-Dist: tiny-b; extra == 'lab'
Requires-Dist: tiny-course[lab]; extra == 'test'
"""
WHEEL = "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
def prepare_metadata_for_build_wheel(folder, settings=None):
    os.makedirs(os.path.join(folder, INFO))
    for name, text in (("METADATA", METADATA), ("WHEEL", WHEEL)):
        open(os.path.join(folder, INFO, name), "w").write(text)
    return INFO
prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel
def build_editable(folder, settings=None, metadata=None):
    name = "tiny_course-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        for path, text in ((INFO + "/METADATA", METADATA), (INFO + "/WHEEL", WHEEL), (INFO + "/RECORD", "")):
            archive.writestr(path, text)
    return name
build_wheel = build_editable
'''
MODELS = "from helpers import fetch\n\ndef prepare():\n    fetch.converted_dir().mkdir()\n    (fetch.converted_dir() / 'model.safetensors').touch()\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A course with two packages and one artifact; course.py and helpers/classroom are the real ones."""
    folder = tmp_path_factory.mktemp("class") / "project"
    for name in ("course.py", *(f"helpers/{n}" for n in ("__init__.py", "fetch.py")),
                 *(p.relative_to(ROOT).as_posix() for p in (ROOT / "helpers" / "classroom").glob("*.py"))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    with open(folder / "helpers" / "fetch.py", "a", encoding="utf-8") as stream:
        stream.write(f"\n\nARTIFACTS = ({ARTIFACT},)\n")
    for name, text in (("pyproject.toml", PYPROJECT), ("constraints.txt", "tiny-a==1.0\ntiny-b==2.0\ntorch==2.13.0\n"), ("backend.py", BACKEND),
                       ("helpers/models.py", MODELS), ("labs/solutions/01_x.ipynb", "{}"), ("tests/test_x.py", ""),
                       (".gitignore", "out/\n.venv/\n__pycache__/\n"),
                       ("README.md", "three hints go from a nudge to the answer\n"), ("out/scrap.txt", "scrap")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def links(tmp_path_factory) -> Path:
    """The only place where pip looks: newer packages than the pinned ones lie there too."""
    folder = tmp_path_factory.mktemp("package index")
    for name, content in (wheel("tiny_a", "1.0", requires="tiny-b"), wheel("tiny_a", "1.5"), wheel("tiny_b", "2.0"), wheel("tiny_b", "3.0"),
                          wheel("setuptools", "80.0"), MODEL_WHEEL):
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def only_these_links(links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_looks_in(links, monkeypatch)


def pip_looks_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in (("PIP_CONFIG_FILE", os.devnull), ("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", folder.as_uri())):
        monkeypatch.setenv(name, value)


def make(folder: Path, project: Path, **options) -> dict:
    return bundles.make(folder, root=project, artifacts=[TINY], say=lambda text: None, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory, project: Path, links: Path) -> Path:
    """One whole bundle for the module; tests take a copy."""
    folder = tmp_path_factory.mktemp("made") / "a bundle"
    with pytest.MonkeyPatch.context() as patch:
        pip_looks_in(links, patch)
        make(folder, project)
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "my bundle"))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refused(call, *arguments, error=bundles.BundleError, **options) -> str:
    """The one sentence or two with which a call refuses."""
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message and len(message) < 600, message
    return message


PACKAGES = {f"wheels/{name}-py3-none-any.whl" for name in ("tiny_a-1.0", "tiny_b-2.0", "setuptools-80.0", "tiny_weights-1.0")}

# ---------------------------------------------------------------- a bundle that is whole


def test_a_bundle_holds_the_pinned_packages_the_weights_and_the_course(bundle: Path, project: Path) -> None:
    assert names(bundle) == PACKAGES | {"bundle.json", "course.zip", "README.txt"}
    said = json.loads((bundle / "bundle.json").read_text())
    assert said["complete"] and {key: said[key] for key in ("python", "platform")} == bundles.machine()
    assert {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in names(bundle) - {"bundle.json"}} == {
        name: entry["sha256"] for name, entry in said["files"].items()}
    with zipfile.ZipFile(bundle / "course.zip") as archive:
        inside = {name.removeprefix("fine-tuning-course/") for name in archive.namelist()}
    assert {"course.py", "tests/test_x.py", "labs/solutions/01_x.ipynb", "edition.json"} <= inside and "out/scrap.txt" not in inside
    assert bundles.verify(bundle, project) == bundle / "wheels"


def test_a_seat_is_set_up_from_a_bundle_alone(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """course.py of the bundle's own course.zip, a real virtual environment, and nothing behind any address."""
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(bundle / "course.zip"), str(tmp_path)], check=True)
    seat = tmp_path / "fine-tuning-course"
    environment = {**os.environ, "COURSE_CACHE": str(tmp_path / "cache"), "PIP_FIND_LINKS": "/no/such/folder", "PIP_INDEX_URL": "http://127.0.0.1:9/",
                   "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    environment.pop("PYTHONPATH", None)

    def setup(folder: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "fine-tuning-course/course.py", "setup", "--from", folder], cwd=tmp_path, env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", timeout=300)

    done = setup("my bundle")
    assert done.returncode == 0 and "All is set up" in done.stdout and "To download" not in done.stdout, done.stdout
    python = next(path for path in (seat / ".venv" / "bin" / "python", seat / ".venv" / "Scripts" / "python.exe") if path.exists())
    code = "import importlib.metadata as m; print(m.version('tiny-a'), m.version('tiny-b'), m.version('tiny-course'))"
    assert subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment).stdout.split() == ["1.0", "2.0", "1"]
    assert (tmp_path / "cache" / "tiny-1.0" / "w.bin").read_bytes() == WEIGHTS
    shutil.rmtree(bundle)
    done = setup("my bundle")  # all is there: the bundle is not needed any more
    assert done.returncode == 0, done.stdout


# ---------------------------------------------------------------- a bundle that is broken, or not for this seat


def edit(bundle: Path, **changes) -> None:
    said = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**said, **changes}))


WHEEL = "wheels/tiny_a-1.0-py3-none-any.whl"
BREAKS = {
    f"{WHEEL} (missing)": lambda b: (b / WHEEL).unlink(),
    f"{WHEEL} (damaged)": lambda b: (b / WHEEL).write_bytes((b / WHEEL).read_bytes()[:-1] + b"x"),
    "course.zip (damaged) and 1 more": lambda b: [(b / name).write_bytes(b"") for name in ("course.zip", "README.txt")],
    "wheels/tiny_a-1.0-2-py3-none-any.whl (in no list)": lambda b: shutil.copy(b / WHEEL, b / "wheels" / "tiny_a-1.0-2-py3-none-any.whl"),
    "is not a bundle: expected a folder with bundle.json": lambda b: (b / "bundle.json").unlink(),
    "bundle.json is damaged": lambda b: (b / "bundle.json").write_text("{"),
    "bundle.json is damaged or of": lambda b: edit(b, files={"../../evil": {"sha256": "", "bytes": 0}}),
    "is not finished": lambda b: edit(b, complete=False),
    "is for Python 3.99 on": lambda b: edit(b, python="3.99"),
    "on amiga m68k: this is Python 3.": lambda b: edit(b, platform="amiga m68k"),
    "is for another version of the course": lambda b: edit(b, pins="0" * 64),
}


@pytest.mark.parametrize("message", BREAKS)
def test_a_broken_bundle_is_refused_by_name(bundle: Path, project: Path, message: str) -> None:
    BREAKS[message](bundle)
    assert message in refused(bundles.verify, bundle, project)


def test_course_py_says_it_in_one_sentence_and_installs_nothing(bundle: Path, project: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    course = load(project)
    monkeypatch.setattr(course, "set_up", lambda *_: pytest.fail("went on"))
    edit(bundle, complete=False)
    assert course.main(["lab", "--from", str(bundle)]) == 1
    assert capsys.readouterr().out.split("\nStopped: ")[1].startswith(f"The bundle in {bundle} is not finished. Run")
    with pytest.raises(SystemExit):
        course.main(["lab", "--from", str(bundle), "--torch-index", "https://example.invalid"])


@pytest.mark.parametrize("works", [True, False])
def test_the_python_that_will_install_checks_the_bundle(project: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
    course, asked = load(project), []
    monkeypatch.setattr(course, "venv_works", lambda: works)
    monkeypatch.setattr(course, "classroom", lambda python, *_, **__: asked.append(python) or subprocess.CompletedProcess([], 1, b"no"))
    with pytest.raises(course.Stop):
        course.use_bundle(str(bundle), "lab")
    assert asked == [str(course.PYTHON) if works else sys.executable]


# ---------------------------------------------------------------- interrupted, mended, refused


def committed(folder: Path) -> Path:
    """The folder, with all its files in a first commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x", "--no-verify"]):
        if shutil.which("git") is None or subprocess.run(git + arguments, capture_output=True).returncode:
            pytest.skip("no git here")
    return folder


def asked(monkeypatch: pytest.MonkeyPatch, stop_after: int = 99) -> list[str]:
    """What pip is asked to fetch from now on; after so many packages somebody presses Ctrl-C."""
    calls, real = [], bundles._wheels

    def wheels(folder, bundle, python, root, where, requirements):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        real(folder, bundle, python, root, where, requirements)
        calls.extend(requirements)

    monkeypatch.setattr(bundles, "_wheels", wheels)
    return calls


def test_an_interrupted_bundle_goes_on_where_it_was(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundle"
    monkeypatch.setattr(bundles, "GROUP", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        asked(patch, stop_after=1)
        make(folder, project)
    assert names(folder) == {"bundle.json", "wheels/setuptools-80.0-py3-none-any.whl"}
    assert "is not finished" in refused(bundles.verify, folder, project)
    calls = asked(monkeypatch)
    monkeypatch.setattr(bundles, "_plan", lambda *_: pytest.fail("asked pip for the plan again"))
    make(folder, project)
    assert calls == ["tiny-a==1.0", "tiny-b==2.0"]
    bundles.verify(folder, project)


def test_only_what_is_damaged_or_missing_is_made_again(bundle: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / WHEEL).write_bytes(b"half")
    (bundle / "wheels" / TINY.wheel_name).unlink()
    kept = bundle / "wheels" / "tiny_b-2.0-py3-none-any.whl"
    before, calls = kept.stat().st_mtime_ns, asked(monkeypatch)
    make(bundle, project)
    assert calls == ["tiny-a==1.0"] and kept.stat().st_mtime_ns == before
    bundles.verify(bundle, project)


def test_a_whole_bundle_is_confirmed_without_a_network(bundle: Path, project: Path, tmp_path: Path) -> None:
    make(bundle, project, python=str(tmp_path / "no-such-python"))


def test_changed_pins_replace_what_changed(bundle: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = Path(shutil.copytree(project, tmp_path / "newer"))
    (newer / "constraints.txt").write_text("tiny-a==1.0\ntiny-b==3.0\n")
    assert "another version of the course" in refused(bundles.verify, bundle, newer)
    calls = asked(monkeypatch)
    make(bundle, newer)
    assert calls == ["tiny-b==3.0"] and {n for n in names(bundle) if "tiny_b" in n} == {"wheels/tiny_b-3.0-py3-none-any.whl"}
    bundles.verify(bundle, newer)


def test_torch_comes_from_its_own_index_when_asked(project: Path, links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index" / "torch").mkdir(parents=True)
    name, content = wheel("torch", "2.13.0+cpu")
    (tmp_path / "index" / "torch" / name).write_bytes(content)
    (tmp_path / "index" / "torch" / "index.html").write_text(f'<!DOCTYPE html><html><body><a href="{name}">{name}</a></body></html>')
    wants = Path(shutil.copytree(project, tmp_path / "project"))
    (wants / "backend.py").write_text(BACKEND.replace("Requires-Dist: tiny-a\n", "Requires-Dist: tiny-a\nRequires-Dist: torch\n"))
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "nothing").as_uri())  # an index without a single package
    said = make(tmp_path / "bundle", wants, torch_index=(tmp_path / "index").as_uri())
    assert "torch==2.13.0+cpu" in said["plan"] and said["files"][f"wheels/{name}"]["for"] == "torch==2.13.0+cpu"
    calls = asked(monkeypatch)
    make(tmp_path / "bundle", wants, torch_index=(tmp_path / "index").as_uri())
    assert calls == []


@pytest.mark.parametrize("before, now, kept", [(None, "https://cpu.invalid", False), ("https://cpu.invalid", "https://gpu.invalid", False),
                                               ("https://cpu.invalid", None, False), ("https://cpu.invalid", "https://cpu.invalid", True)])
def test_torch_of_another_index_is_fetched_again(bundle: Path, project: Path, before: str | None, now: str | None, kept: bool) -> None:
    torch, content = wheel("torch", "2.13.0+cu130")
    (bundle / "wheels" / torch).write_bytes(content)
    said = json.loads((bundle / "bundle.json").read_text())
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "for": "torch==2.13.0+cu130"}
    edit(bundle, torch_index=before, plan=["torch==2.13.0+cu130"], files={**said["files"], f"wheels/{torch}": entry})
    begun = bundles._begin(bundle, now, project)
    assert begun["torch_index"] == now and not begun["complete"] and (begun["plan"] is not None) == kept
    assert (bundles._held(begun, "torch") is not None) == (bundle / "wheels" / torch).exists() == kept
    assert PACKAGES <= set(begun["files"]), "what needs no new torch stays"


def test_pins_that_are_not_committed_are_refused_before_the_download(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = committed(Path(shutil.copytree(project, tmp_path / "copy")))
    monkeypatch.setattr(bundles, "_pip", lambda *_: pytest.fail("asked pip"))
    (copy / "constraints.txt").write_text("tiny-a==1.5\n")
    assert refused(make, tmp_path / "bundle", copy).startswith("constraints.txt: expected as in the last commit")
    assert not (tmp_path / "bundle").exists()
    subprocess.run(["git", "-C", str(copy), "checkout", "-q", "constraints.txt"], check=True)
    (copy / "constraints.txt").write_bytes((copy / "constraints.txt").read_bytes().replace(b"\n", b"\r\n"))  # as git may write it on Windows
    bundles._same_pins(editions.edition("instructor", copy), copy)


def test_no_network_is_one_sentence(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_looks_in(tmp_path, monkeypatch)
    message = refused(make, tmp_path / "bundle", project)
    assert message.startswith("pip could not fetch the packages (ERROR: No matching distribution") and "Check the network" in message


def test_a_full_disk_is_one_sentence(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**10, 10**10, 10**8))
    assert "expected 1.5 GB free in" in (message := refused(make, tmp_path / "bundle", project)) and "got 0.1 GB. Free some space" in message


def test_a_folder_of_something_else_stays_as_it_is(project: Path, tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "is not empty and not a bundle" in refused(make, tmp_path / "mine", project)
    assert names(tmp_path / "mine") == {"thesis.txt"}
    edit(bundle, python="3.99")
    assert "is for Python 3.99" in refused(make, bundle, project) and names(bundle) > PACKAGES
    assert "in the course's own folder" in refused(make, project / "bundle", project, error=editions.EditionError)


# ---------------------------------------------------------------- editions


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("class") / "for students"
    assert command.main(["edition", "student", str(folder)]) == 0
    return folder


def test_a_student_edition_holds_no_answers(student: Path) -> None:
    have, whole = names(student), set(editions.edition("instructor").files)
    assert whole - have and all(editions._matches(name, editions.LEFT_OUT["student"]) for name in whole - have)
    assert not [name for name in have if name.startswith(("labs/solutions", "tests", ".ci", "labs/INSTRUCTOR", "labs/GRADING"))]
    labs = sorted((student / "labs").glob("*.ipynb"))
    assert {f"labs/{lab.name}" for lab in labs} == {name for name in whole if re.fullmatch(r"labs/\w+\.ipynb", name)}
    for lab in labs:
        text = lab.read_text(encoding="utf-8")
        assert "Hint 2: " in text and "Hint 3" not in text and "three hints" not in text and "BEGIN SOLUTION" not in text, lab.name
        assert text.count("<details>") == text.count("</details>") == 2 * text.count("Hint 1: ")
    assert json.loads((student / "edition.json").read_text())["edition"] == "student"


def test_a_student_edition_changes_nothing_but_the_hints(student: Path) -> None:
    whole = editions.edition("instructor").files
    for name in names(student) - {"README.md", "edition.json"}:
        if not re.fullmatch(r"labs/\w+\.ipynb", name):
            assert (student / name).read_bytes() == whole[name].content
            continue
        ours, theirs = json.loads((student / name).read_bytes()), json.loads(whole[name].content)
        assert [cell | {"source": 0} for cell in ours["cells"]] == [cell | {"source": 0} for cell in theirs["cells"]]
        changed = [c["source"] for c, t in zip(ours["cells"], theirs["cells"], strict=True) if c["source"] != t["source"]]
        assert all("Hint 2: " in "".join(source) or "two hints" in "".join(source) for source in changed)


@pytest.mark.parametrize("kind", ["student", "solution"])
def test_links_of_an_edition_lead_somewhere(kind: str) -> None:
    files = editions.edition(kind).files
    folders = {str(Path(name).parent) for name in files}
    for name, file in files.items():
        if not name.endswith((".md", ".ipynb")):
            continue
        text = file.content.decode("utf-8")
        for link in re.findall(r"\]\((?!https?://|#|attachment:)([^)\s#\"\\]+)", text):
            target = os.path.normpath(os.path.join(os.path.dirname(name), link)).replace(os.sep, "/")
            assert target in files or target in folders, (name, link)


def test_the_solution_edition_adds_the_solutions_and_keeps_the_hints(student: Path) -> None:
    files = editions.edition("solution").files
    assert {n for n in set(files) - names(student)} == {n for n in editions.edition("instructor").files if n.startswith("labs/solutions/")} != set()
    assert all("Hint 3: the answer" in file.content.decode() for name, file in files.items() if re.fullmatch(r"labs/\d\d_\w+\.ipynb", name))


def test_an_edition_knows_what_it_lacks(student: Path, capsys) -> None:
    assert "is itself the edition 'student'" in refused(editions.edition, "solution", student, error=editions.EditionError)
    assert set(editions.edition("student", student).files) >= names(student) - {"edition.json"}
    assert load(student).main(["test"]) == 1
    assert "This is an edition of the course for a class: it holds no tests." in capsys.readouterr().out


def test_a_folder_is_only_replaced_by_force_and_then_kept(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    editions.write("student", folder, root=project)  # an empty one is fine
    (folder / "notes.txt").write_text("mine")
    assert "is not empty" in refused(editions.write, "student", folder, root=project, error=editions.EditionError)
    editions.write("solution", folder, force=True, root=project)
    editions.write("solution", folder, force=True, root=project)
    assert (tmp_path / "class.old-1" / "notes.txt").read_text() == "mine" and "notes.txt" not in names(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["class", "class.old-1", "class.old-2"]
    for inside in (project / "class", project, project.parent):
        assert "own folder, or around it" in refused(editions.write, "student", inside, force=True, root=project, error=editions.EditionError)


def test_an_interrupted_edition_leaves_the_old_folder_and_no_scraps(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editions.write("student", tmp_path / "class", root=project)
    before = names(tmp_path)
    real, left = Path.write_bytes, [2]

    def write_bytes(path: Path, content: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError):
        editions.write("instructor", tmp_path / "class", force=True, root=project)
    assert names(tmp_path) == before


@pytest.mark.parametrize("full", [True, False])
def test_an_edition_that_can_not_get_its_name_puts_the_old_folder_back(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    if full:
        (folder / "notes.txt").write_text("mine")
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if ".part-" in path.name:
            raise PermissionError(13, "a virus scanner holds a file")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(PermissionError):
        editions.write("student", folder, force=True, root=project)
    assert names(tmp_path) == ({"class/notes.txt"} if full else set()) and [p.name for p in tmp_path.iterdir()] == ["class"]


def test_with_git_the_last_commit_counts_and_without_git_an_answer_is_seen(project: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "copy"))
    lab = copy / "labs" / "01_x.ipynb"
    cell = {"cell_type": "code", "id": "answer", "metadata": {"nbgrader": {"solution": True}}, "outputs": [], "execution_count": None}
    lab.write_text(json.dumps({"cells": [cell | {"source": ["def f():\n", "    raise NotImplementedError"]}]}))
    committed(copy)
    lab.write_text(json.dumps({"cells": [cell | {"source": ["def f():\n", "    return 42"], "outputs": [{}]}]}))
    made = editions.edition("student", copy)
    assert b"return 42" not in made.files["labs/01_x.ipynb"].content and "1 changed file(s) are not committed" in made.origin
    shutil.rmtree(copy / ".git")
    assert "labs/01_x.ipynb, cell answer, holds an answer" in refused(editions.edition, "student", copy, error=editions.EditionError)
    assert "out/scrap.txt" not in editions.edition("instructor", copy).files


@pytest.mark.parametrize("name, content, says", [
    ("edition.json", '{"edit', "edition.json is damaged: expected"), ("edition.json", "[]", "edition.json is damaged: expected"),
    ("labs/01_x.ipynb", '{"cells": [', "labs/01_x.ipynb is not a whole notebook: expected JSON with cells, got JSONDecodeError"),
    ("labs/01_x.ipynb", "{}", "labs/01_x.ipynb is not a whole notebook: expected JSON with cells, got KeyError: 'cells'"),
])
def test_a_half_saved_file_is_one_sentence(project: Path, tmp_path: Path, name: str, content: str, says: str) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "copy"))
    (copy / name).write_text(content)
    assert says in refused(editions.edition, "student", copy, error=editions.EditionError)


# ---------------------------------------------------------------- pre-flight


def load(project: Path) -> ModuleType:
    """course.py of a folder."""
    sys.modules.pop("course_fetch", None)
    spec = importlib.util.spec_from_file_location("course_under_test", project / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def course(project: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A machine in good order, as the doctor sees it."""
    module = load(project)
    monkeypatch.setattr(module, "diagnose", lambda: [("environment", "ready", "ok", "")])
    return module


def seat_that(monkeypatch: pytest.MonkeyPatch, course: ModuleType, out: str, late: bool = False) -> None:
    def run(python, arguments, **options):
        assert options["timeout"] <= 55, "a check takes less than a minute"
        if late:
            raise subprocess.TimeoutExpired(python, options["timeout"], output=out.encode())
        return subprocess.CompletedProcess(arguments, 0, out.encode())

    monkeypatch.setattr(course, "classroom", run)


KERNEL = '["kernel", "starts and computes", "ok", ""]\n'
STEP = '["model step", "300 tokens per second in training", "ok", ""]\n'


@pytest.mark.parametrize("out, late, code, verdicts", [
    (KERNEL + STEP, False, 0, {"kernel": "ok", "model step": "ok"}),
    ("a library's line\n" + KERNEL + STEP, False, 0, {"kernel": "ok", "model step": "ok"}),
    (KERNEL, True, 0, {"kernel": "ok", "model step": "note"}),
    ("", True, 1, {"kernel": "bad"}),
    (KERNEL, False, 1, {"kernel": "ok", "model step": "bad"}),  # killed: the memory was full
])
def test_preflight_reports_a_seat_as_one_line_of_json(course: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys, out, late, code, verdicts) -> None:
    seat_that(monkeypatch, course, out, late)
    assert course.main(["preflight", "--json"]) == code
    line = capsys.readouterr().out
    report = json.loads(line)
    assert line.count("\n") == 1 and report["good"] is (code == 0) and report["seat"]
    found = {row["check"]: row["verdict"] for row in report["checks"]}
    assert found == {"environment": "ok", "port": "ok", **verdicts}
    assert all(row["fix"] for row in report["checks"] if row["verdict"] != "ok")


def test_preflight_of_a_bare_seat_says_what_to_do_and_tries_nothing(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    course = load(project)
    seat_that(monkeypatch, course, "tried")
    assert course.main(["preflight"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"^environment +none yet +bad  -> run: ", said, re.M) and "thing(s) to mend" in said and "kernel" not in said
    monkeypatch.setattr(course, "free_port", lambda wanted: (_ for _ in ()).throw(course.Stop("No free port.")))
    assert course.loopback()[:3] == ("port", "No free port.", "bad")


@pytest.mark.skipif(os.name == "nt", reason="there a port is free at once")
def test_a_port_that_was_used_a_moment_ago_is_good(course: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as JupyterLab does
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()  # who closes first keeps the port for a minute
            assert client.recv(1) == b""
    monkeypatch.setattr(course, "free_port", lambda wanted: port)
    assert course.loopback() == ("port", f"{port} is free and answers", "ok", "")


def test_a_kernel_starts_here_and_a_broken_check_is_a_row() -> None:
    from helpers.classroom import seat

    assert seat.kernel() == ("kernel", "starts and computes", "ok", "")
    row = seat.guarded("kernel", lambda: importlib.import_module("no_such_package"))
    assert row[0] == "kernel" and row[2] == "bad" and "no_such_package" in row[1] and ".venv" in row[3]


def test_a_model_step_trains_and_sees_numbers_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from helpers.classroom import seat

    config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(config)
    name, found, verdict, _ = seat.model_step(model, rows=2, length=8, seconds=0)
    assert (name, verdict) == ("model step", "ok") and int(found.split()[0]) > 0
    assert all(weight.abs().max() > 0 for name, weight in model.named_parameters() if "lora_B" in name), "these start as zeros: nothing was learned"
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    assert seat.model_step(model, rows=2, length=8, seconds=0)[1:3] == ("expected a finite loss, got nan", "bad")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    assert seat.model_step()[1:3] == ("not tried: the base model is not there", "note")
