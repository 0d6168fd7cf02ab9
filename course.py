#!/usr/bin/env python3
"""The course's commands; they need nothing but Python.

    python course.py lab        set everything up and open JupyterLab on lesson 00
    python course.py test       set everything up and run all that CI runs (--fast leaves out what trains)
    python course.py setup      only set everything up
    python course.py doctor     say what is right and wrong with this machine
    python course.py refresh    re-run notebooks and store only the outputs that changed
    python course.py progress   what you reached in the labs (--export FILE, --reset)

For a class:

    python course.py preflight                    check a seat, with a kernel and a training step (--json for a list of seats)
    python course.py bundle DIR                   a folder for a room without a network: lab, test, setup --from DIR
    python course.py edition student DIR          a clean folder for a class: student, solution or instructor

Every command can be interrupted and run again: it goes on where it was.
"""
# This file must at least parse on an old Python, so that it can say what is wrong with it.
import argparse
import hashlib
import http.client
import importlib.util
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import webbrowser
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STATE = VENV / "course-state.json"
PIP_LOG = VENV / "pip.log"
LOWEST, HIGHEST = (3, 11, 5), (3, 13)  # from 3.11.5 on, as the pinned packages want it
PYTHONS = "Python 3.11 (3.11.5 or later), 3.12 or 3.13"
NEED_DISK_GB = 4.5  # environment 2.1 GB, pip's temporary files, weights 0.9 GB
FIRST_LESSON = "lessons/00_start_here.ipynb"
SEAT_SECONDS = 55  # what a pre-flight check may take


class Stop(Exception):
    """Something that the user must mend; the text says what and how."""


def say(text=""):
    print(text, flush=True)


# ------------------------------------------------------------------ set-up


def python_fits():
    return sys.version_info[:3] >= LOWEST and sys.version_info[:2] <= HIGHEST


def check_python():
    if not python_fits():
        raise Stop("This course needs {} (64 bit); this is Python {} at {}. Install one of them and start the command with it, "
                   "for example: python3.12 course.py lab".format(PYTHONS, platform.python_version(), sys.executable))
    if sys.maxsize < 2**32:
        raise Stop("This course needs a 64-bit Python; {} is a 32-bit one. Install the 64-bit build.".format(sys.executable))


def check_disk(need_gb, folder):
    free = shutil.disk_usage(str(folder)).free / 1e9
    if free < need_gb:
        raise Stop("Not enough disk: expected {:.1f} GB free in {}, found {:.1f} GB. Free some space, or move the course to "
                   "a larger disk.".format(need_gb, folder, free))


def read_state():
    try:
        return json.loads(STATE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_state(state):
    part = STATE.with_suffix(".part")
    part.write_text(json.dumps(state, indent=1), encoding="utf-8")
    part.replace(STATE)


def fingerprint():
    """Changes when what must be installed changes; also when the project was moved, for the environment points to it."""
    digest = hashlib.sha256(os.fsencode(str(ROOT)))
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def venv_works():
    """Whether the environment's Python and pip start. Stop where they give no answer: slow is not broken, and broken ones are deleted."""
    try:
        out = subprocess.run([str(PYTHON), "-m", "pip", "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120)
        return out.returncode == 0
    except subprocess.TimeoutExpired:
        raise Stop("The environment .venv gave no answer in two minutes; it stays as it is. Close other programs and run the command "
                   "again; if it stays so on a quiet machine, delete the folder .venv first.")
    except (OSError, subprocess.SubprocessError):
        return False


def make_venv():
    if VENV.exists():
        say("The environment .venv does not work (half made, moved, or its Python is gone): making it anew.")
    else:
        say("Making the environment .venv …")
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode or not venv_works():
        raise Stop("Python could not make a virtual environment in {}. On Debian and Ubuntu install the package "
                   "python3-venv; elsewhere re-install Python with pip and venv; then run the command again. Python said: {}".format(
                       VENV, " ".join(done.stdout.decode(errors="replace").split())[-300:] or "nothing"))


def pinned(package):
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.lower().startswith(package + "=="):
            return line.strip()
    return package


def torch_size():
    """Bytes of the torch wheel that pip would take, or 0 when that can't be told."""
    done = subprocess.run([str(PYTHON), "-m", "pip", "install", "-q", "--no-input", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-",
                           pinned("torch")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        url = json.loads(done.stdout.decode())["install"][0]["download_info"]["url"]
        if url.startswith("file:"):
            return Path(urllib.request.url2pathname(url[len("file://"):])).stat().st_size
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20) as answer:
            return int(answer.headers["Content-Length"])
    except (ValueError, LookupError, OSError, TypeError, http.client.HTTPException):
        return 0


def announce_sizes(torch_index):
    say("To download: the packages about 350 MB, the two models 176 MB; kept on disk: about 3 GB in all.")
    if torch_index or not sys.platform.startswith("linux"):
        return
    size = torch_size()
    if size > 400e6:
        check_disk(11, ROOT)
        say("Your package index serves the CUDA build of torch: about 2.6 GB more to download, 5 GB more on disk.\n"
            "On a machine without an NVIDIA GPU stop here (Ctrl-C) and give the address of PyTorch's CPU wheels, which\n"
            "pytorch.org shows under 'Get started' (Linux, pip, CPU):  python course.py lab --torch-index URL")
    elif size:
        say("torch: {:.0f} MB (a CPU build).".format(size / 1e6))


def pip(arguments, what):
    """Run pip in the environment, show what it is doing, and turn a failure into one sentence."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"] + arguments
    started, last, count = time.time(), "", 0
    with open(str(PIP_LOG), "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1,
                                   universal_newlines=True, encoding="utf-8", errors="replace",
                                   env=dict(os.environ, PYTHONIOENCODING="utf-8"))
        try:
            for line in process.stdout:
                log.write(line)
                last = line.strip() or last
                found = re.match(r"\s*(Downloading|Using cached|Processing) (\S+?)(?:\.metadata)?(?: \((.+)\))?$", line)
                if found and ".metadata" not in line:
                    count += 1
                    name = re.split(r"[/\\]", found.group(2))[-1].split("-")[0]
                    status("{}: {} packages, now {} {}".format(what, count, name, found.group(3) or ""))
                elif line.startswith("Installing collected packages"):
                    status("{}: unpacking {} packages …".format(what, line.count(",") + 1))
            process.wait()
        finally:
            if process.poll() is None:  # interrupted: a pip left behind would write while the next run does
                process.terminate()
                process.wait()
    if process.returncode:
        status(None)
        raise Stop(explain_pip(PIP_LOG.read_text(encoding="utf-8"), last))
    status("{}: done in {:.0f} s".format(what, time.time() - started))
    status(None)


NETWORK = re.compile(r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|Name or service|name resolution|getaddrinfo|"
                     r"Failed to (?:establish|resolve|connect)|timed out|didn't respond|Connection (?:broken|reset|refused|aborted)|"
                     r"not enough bytes|located at .+ is invalid|CERTIFICATE_VERIFY_FAILED", re.I)


def explain_pip(log, last):
    """One sentence for a failed pip: what its last error means and the fix. Old and new pips mark errors differently."""
    errors = [line.strip() for line in log.splitlines() if line.startswith(("ERROR:", "×")) and line.strip() != "ERROR: Exception:"]
    reason = (errors or [last or "no reason given"])[-1]
    unreached = "(from versions: none)" in log and NETWORK.search(log)  # otherwise a retry that went well may stand in the log
    if "No space left" in log or "Errno 28" in log or "not enough space" in log:
        fix = ("The disk is full: free about {} GB, also where pip keeps its temporary files ({}), then run the command "
               "again.".format(NEED_DISK_GB, tempfile.gettempdir()))
    elif unreached or NETWORK.search(reason):
        fix = "The network failed, or a proxy is in the way: check the connection and `pip config list`, then run the command again."
    elif "No matching distribution" in log:
        fix = "Your package index does not have this version for this Python: try Python 3.11, or another index."
    else:
        fix = "The whole output is in {}.".format(PIP_LOG)
    return "pip could not install the packages. {} ({})".format(fix, reason[:300])


_status = {"width": 0}


def status(text):
    """One line that changes in place on a terminal; None ends it. Elsewhere only the last text is printed."""
    tty = sys.stdout.isatty()
    if text is None:
        say("" if tty and _status["width"] else _status.get("text", ""))
        _status.update(width=0, text="")
    elif tty:
        text = text[:110]
        sys.stdout.write("\r" + text.ljust(_status["width"]))
        sys.stdout.flush()
        _status["width"] = len(text)
    else:
        _status["text"] = text


def installed():
    """The extras that the environment holds as they are pinned now."""
    state = read_state()
    return set(state.get("extras", ())) if state.get("fingerprint") == fingerprint() else set()


def install(extra, torch_index):
    works = venv_works()
    state, have = (read_state(), installed()) if works else ({}, set())  # what a broken environment holds does not count
    if extra in have:
        return
    check_disk(1 if state else NEED_DISK_GB, ROOT)
    if not works:
        make_venv()
    if not state and "PIP_NO_INDEX" not in os.environ:  # which use_bundle sets
        announce_sizes(torch_index)
    elif not have:
        write_state({"extras": []})  # if pip is interrupted now, going back to the old pins must install again
    if torch_index:
        pip(["--no-deps", "--index-url", torch_index, pinned("torch")], "Installing torch")
    pip(["-c", "constraints.txt", "-e", ".[{}]".format(extra)], "Installing packages")
    covered = {"lab", "test"} if extra == "test" else {extra}  # the test extra holds the lab extra
    write_state({"fingerprint": fingerprint(), "extras": sorted(have | covered)})


def load_fetch():
    """helpers/fetch.py without the rest of the package: it needs only the standard library."""
    if "course_fetch" not in sys.modules:
        spec = importlib.util.spec_from_file_location("course_fetch", str(ROOT / "helpers" / "fetch.py"))
        sys.modules["course_fetch"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["course_fetch"]


def weights():
    fetch = load_fetch()
    for artifact in fetch.ARTIFACTS:
        if not fetch.present(artifact):
            try:
                fetch.fetch(artifact, python=str(PYTHON), progress=lambda name, done, size: status(
                    "Fetching {}: {:.0f} of {:.0f} MB".format(name, done / 1e6, size / 1e6)))
            except fetch.FetchError as error:
                raise Stop(str(error))
            status("Fetched and verified {}".format(artifact.name))
            status(None)
    if not fetch.converted():
        say("Unpacking the base model to float32 (once, 538 MB) …")
        run_python(["-c", "from helpers import models; models.prepare()"], "The base model could not be unpacked")


def classroom(python, arguments, **options):
    """Run helpers.classroom where the user stands, for paths may be relative; the standard library is enough for most of it."""
    code = "import sys; sys.path[0] = sys.argv.pop(1); from helpers.classroom.__main__ import main; sys.exit(main())"
    environment = dict(os.environ, PYTHONIOENCODING="utf-8") if "stdout" in options else None  # None: a terminal has its own encoding
    return subprocess.run([python, "-c", code, str(ROOT)] + arguments, env=environment, **options)


def run_python(arguments, problem):
    done = subprocess.run([str(PYTHON)] + arguments, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = done.stdout.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Stop("{}: {}".format(problem, lines[-1]))
    return done.stdout.decode(errors="replace")


def set_up(extra, torch_index=None):
    install(extra, torch_index)
    weights()


def use_bundle(folder, extra):
    """From now on pip, and what asks pip, looks into a verified bundle and nowhere else. Nothing to do where all is there."""
    fetch = load_fetch()
    if extra in installed() and all(fetch.present(artifact) for artifact in fetch.ARTIFACTS) and venv_works():
        return
    say("Checking the bundle …")
    python = str(PYTHON) if venv_works() else sys.executable  # the one that will install
    done = classroom(python, ["verify", folder], stdout=subprocess.PIPE)
    said = done.stdout.decode(errors="replace").strip().splitlines() or ["no answer"]
    if done.returncode:
        raise Stop(said[-1].replace("Stopped: ", "", 1))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        del os.environ[name]
    # an address, for pip splits plain paths at spaces
    os.environ.update(PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="1", PIP_FIND_LINKS=said[-1])


def set_up_only(options):
    set_up("lab", options.torch_index)
    say("All is set up. Open the first lesson with: python course.py lab")
    return 0


# ------------------------------------------------------------------ lab


def trust_lessons():
    """Mark the notebooks that came with the course as trusted, so that their widgets show; again when they change."""
    notebooks = sorted(str(p.relative_to(ROOT)) for folder in ("lessons", "labs") for p in (ROOT / folder).rglob("*.ipynb")
                       if ".ipynb_checkpoints" not in p.parts)
    digest = hashlib.sha256(b"".join((ROOT / n).read_bytes() for n in notebooks)).hexdigest()
    state = read_state()
    if state.get("trusted") != digest and notebooks:
        run_python(["-m", "jupyter", "trust"] + notebooks, "The lessons could not be marked as trusted")
        write_state(dict(state, trusted=digest))


def server_socket():
    """A socket that may take a port whose last connection has just ended, as JupyterLab's may."""
    found = socket.socket()
    if os.name != "nt":  # there the option would also take ports in use
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return found


def free_port(wanted):
    """The wanted port, or 8888 or the next free one above it."""
    for port in [wanted] if wanted else range(8888, 8988):
        with server_socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError as error:
                reason = error.strerror
    if wanted:
        raise Stop("Port {0} can't be used ({1}). Leave out --port to take a free one, give another, or stop the program "
                   "that listens on {0}.".format(wanted, reason))
    raise Stop("No free port between 8888 and 8987. Close some servers, or give one with --port.")


def lab(options):
    if options.port is not None and not 1 <= options.port <= 65535:
        raise Stop("--port takes a number from 1 to 65535, found {}. Leave it out to take a free one.".format(options.port))
    port = free_port(options.port)  # known before the long work starts
    set_up("lab", options.torch_index)
    trust_lessons()
    token = secrets.token_urlsafe(24)
    environment = dict(os.environ, JUPYTER_TOKEN=token, **quiet_environment())
    settings = str(ROOT / "helpers" / "jupyter")
    environment["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [settings, os.environ.get("JUPYTER_CONFIG_PATH")]))
    server = subprocess.Popen(lab_command(port), cwd=str(ROOT), env=environment)
    url = "http://127.0.0.1:{}/lab/tree/{}?token={}".format(port, FIRST_LESSON, token)
    try:
        wait_for(port, token, server)
        say("\nJupyterLab is ready; it answers this machine only. Stop it with Ctrl-C.\n\n    {}\n".format(url))
        if not options.no_browser:
            webbrowser.open(url)
        return server.wait()
    finally:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


def lab_command(port):
    """JupyterLab on loopback. The token is not in it, because other users of the machine can read command lines."""
    command = [str(PYTHON), "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1", "--ServerApp.port={}".format(port),
               "--ServerApp.port_retries=0", "--ServerApp.root_dir={}".format(ROOT), "--LabApp.extension_manager=readonly",
               "--ServerApp.log_level=WARN"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return command


def wait_for(port, token, server):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        if server.poll() is not None:
            raise Stop("JupyterLab stopped while starting (exit code {}); its message stands above. If it names a missing "
                       "package, delete the folder .venv and run the command again.".format(server.returncode))
        try:
            opener.open("http://127.0.0.1:{}/api/status?token={}".format(port, token), timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise Stop("JupyterLab did not answer within a minute. Run the command again; if it happens twice, run: python course.py doctor")


def quiet_environment():
    """Nothing phones home: the libraries' telemetry switches, in their own names."""
    return {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


# ------------------------------------------------------------------ test and refresh


def whole_course():
    if (ROOT / "edition.json").is_file() and not (ROOT / "tests").is_dir():
        raise Stop("This is an edition of the course for a class: it holds no tests. Take the whole course for this command.")


def test(options, extra_arguments):
    whole_course()
    set_up("test", options.torch_index)
    command = [str(PYTHON), "-m", "pytest"]
    if options.fast:
        command += ["-m", "not trains"]
    return subprocess.call(command + extra_arguments, cwd=str(ROOT), env=dict(os.environ, **quiet_environment()))


def refresh(options, notebooks):
    whole_course()
    set_up("test", options.torch_index)
    return subprocess.call([str(PYTHON), str(ROOT / "tests" / "refresh.py")] + notebooks, cwd=str(ROOT),
                           env=dict(os.environ, **quiet_environment()))


# ------------------------------------------------------------------ doctor


def memory_gb():
    try:
        if os.name == "nt":
            import ctypes

            class Status(ctypes.Structure):
                _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
                    (n, ctypes.c_ulonglong) for n in ("total", "free", "tp", "fp", "tv", "fv", "ev")]

            status_ = Status(length=ctypes.sizeof(Status))
            ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status_))
            return status_.total / 1e9
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, OSError, ValueError):
        return None


def cpu_features():
    """The instruction sets that matter here, or None where this can't be told."""
    try:
        flags = set(re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M).group(1).split())
    except (OSError, AttributeError):
        return None
    names = (("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx512_bf16", "AVX512-BF16"), ("amx_bf16", "AMX-BF16"), ("asimd", "NEON"))
    return [name for flag, name in names if flag in flags]


def gpu():
    try:
        out = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, timeout=20)
        return out.stdout.decode().strip().splitlines()[0] if out.returncode == 0 and out.stdout.strip() else None
    except (OSError, subprocess.SubprocessError):
        return None


def version_problems():
    """Lines 'package: expected …, found …' for what is installed otherwise than constraints.txt says."""
    if not PYTHON.exists():
        return None
    code = ("import importlib.metadata as m, json; "
            "print(json.dumps({d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}))")
    try:
        done = subprocess.run([str(PYTHON), "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
        have = json.loads(done.stdout.decode())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    wanted = dict(re.findall(r"^([\w.\-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    # what an optional extra would bring may be absent; what is there must be the pinned version
    return ["{}: expected {}, found {}".format(n, v, have[n.lower().replace("_", "-")]) for n, v in sorted(wanted.items())
            if n.lower().replace("_", "-") in have and have[n.lower().replace("_", "-")].split("+")[0] != v]


def diagnose():
    """Rows (check, found, verdict, fix); verdict is ok, note or bad."""
    rows = []

    def row(check, found, good, fix="", bad="bad"):
        rows.append((check, found, "ok" if good else bad, "" if good else fix))

    row("Python", "{} ({})".format(platform.python_version(), "64 bit" if sys.maxsize > 2**32 else "32 bit"),
        python_fits() and sys.maxsize > 2**32, "install {} (64 bit) and start course.py with it".format(PYTHONS))
    free, need = shutil.disk_usage(str(ROOT)).free / 1e9, 1 if read_state() else NEED_DISK_GB
    row("disk", "{:.1f} GB free".format(free), free >= need, "free {:.1f} GB".format(need))
    memory = memory_gb()
    row("memory", "unknown" if memory is None else "{:.1f} GB".format(memory), memory is None or memory >= 7.5,
        "lessons that train need up to 6 GB: close other programs, or use a machine with 8 GB", "note")
    row("processors", str(os.cpu_count()), (os.cpu_count() or 1) >= 2, "with one processor lessons take twice as long", "note")
    features = cpu_features()
    row("CPU features", "unknown" if features is None else ", ".join(features) or "none of AVX2, AVX-512, AMX",
        features is None or bool(features), "training will be slow on a CPU without AVX2", "note")
    card = gpu()
    row("GPU", card or "none found (none is needed)", True)
    try:
        environment = ("none yet" if not VENV.exists() else "broken" if not venv_works() else
                       "ready" if read_state().get("fingerprint") == fingerprint() else "not up to date")
        row("environment", environment, environment == "ready", "run: python course.py lab")
    except Stop:
        row("environment", "no answer in two minutes", False, "close other programs and try again")
    problems = version_problems()
    if problems is None:
        row("versions", "unknown", False, "run: python course.py lab", "note")
    else:
        row("versions", "as in constraints.txt" if not problems else "; ".join(problems[:4]), not problems,
            "delete the folder .venv and run: python course.py lab")
    if python_fits():
        fetch = load_fetch()
        cache = existing(fetch.cache_dir())
        row("model cache", str(fetch.cache_dir()), cache.is_dir() and os.access(str(cache), os.W_OK), "set COURSE_CACHE to a folder you can write to")
        for artifact in fetch.ARTIFACTS:
            here = fetch.present(artifact)
            good = here and all(fetch.sha256(artifact.folder / f) == s for f, s in artifact.files.items())
            row(artifact.name, "verified" if good else "damaged" if here else "not fetched", good,
                "delete {} and run: python course.py lab".format(artifact.folder) if here else "run: python course.py lab")
        row("base model, float32", "ready" if fetch.converted() else "not unpacked", fetch.converted(), "run: python course.py lab")
    own = os.environ.get("COURSE_MODEL")
    if own:
        row("COURSE_MODEL", own, True)
    return rows


def existing(folder):
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def doctor(_options):
    return show(diagnose())


def show(rows):
    widths = [max(len(r[i]) for r in rows) for i in range(3)]
    say("{}  {}  {}".format("check".ljust(widths[0]), "found".ljust(widths[1]), "verdict"))
    for check, found, verdict, fix in rows:
        say("{}  {}  {}{}".format(check.ljust(widths[0]), found.ljust(widths[1]), verdict, "  -> " + fix if fix else ""))
    bad = sum(r[2] == "bad" for r in rows)
    say("\n{}".format("All is well." if not bad else "{} thing(s) to mend: see the arrows.".format(bad)))
    return 1 if bad else 0


# ------------------------------------------------------------------ for a class


def preflight(options):
    """The doctor's checks, and what only a try can tell; in less than a minute."""
    started = time.time()
    if not options.json:
        say("Checking this seat, at most a minute …\n")
    rows = diagnose()
    rows.append(loopback())
    if ("environment", "ok") in [(row[0], row[2]) for row in rows]:
        rows += tries(max(10, SEAT_SECONDS - (time.time() - started)))
    if not options.json:
        return show(rows)
    bad = [row for row in rows if row[2] == "bad"]
    print(json.dumps({"seat": socket.gethostname(), "system": platform.platform(), "good": not bad, "seconds": round(time.time() - started, 1),
                      "checks": [dict(zip(("check", "found", "verdict", "fix"), row)) for row in rows]}))
    return 1 if bad else 0


def loopback():
    """Whether this machine's programs reach each other, as the browser and JupyterLab must."""
    try:
        with server_socket() as server:
            server.bind(("127.0.0.1", free_port(None)))
            server.listen(1)
            socket.create_connection(server.getsockname(), timeout=5).close()
            return "port", "{} is free and answers".format(server.getsockname()[1]), "ok", ""
    except (Stop, OSError) as error:
        return "port", str(error), "bad", "let Python listen on 127.0.0.1: a firewall or another program is in the way"


def tries(limit):
    """Rows of what helpers.classroom.seat tries in the environment; what it did not reach in `limit` seconds is a row too."""
    late = False
    try:
        out = classroom(str(PYTHON), ["seat"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=limit).stdout
    except subprocess.TimeoutExpired as error:
        out, late = error.stdout or b"", True
    rows = [tuple(json.loads(line)) for line in out.decode(errors="replace").splitlines() if line.startswith('["')]
    if len(rows) == 2:
        return rows
    name = ("kernel", "model step")[len(rows)]
    if late:
        rows.append((name, "no answer in {:.0f} s".format(limit), "bad" if name == "kernel" else "note",
                     "close other programs and try again; if it stays so, lessons take much longer here"))
    else:
        rows.append((name, "the check ended without an answer", "bad", "close other programs (is the memory full?), or delete the folder .venv "
                     "and run: python course.py setup"))
    return rows


def bundle(arguments):
    if "-h" not in arguments and "--help" not in arguments and not venv_works():
        make_venv()  # its pip finds the packages for this Python
    return classroom(str(PYTHON) if PYTHON.exists() else sys.executable, ["bundle"] + arguments).returncode


def edition(arguments):
    return classroom(sys.executable, ["edition"] + arguments).returncode


# ------------------------------------------------------------------ progress


def progress(arguments):
    """What was reached in the labs; reading it needs nothing installed."""
    python = str(PYTHON) if PYTHON.exists() else sys.executable
    return subprocess.call([python, "-m", "helpers.checks"] + arguments, cwd=str(ROOT))


# ------------------------------------------------------------------ the command line


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="course.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    own = {"progress": progress, "bundle": bundle, "edition": edition}  # these read their arguments themselves
    for name, text in (("lab", "set up and open JupyterLab on lesson 00"), ("test", "set up and run the tests; further arguments go to pytest"),
                       ("setup", "only set everything up"), ("refresh", "re-run notebooks, store only the outputs that changed"),
                       ("doctor", "check this machine"), ("preflight", "check a seat: the doctor's checks, a kernel, a training step"),
                       ("bundle", "make a folder for a room without a network"), ("edition", "write a clean folder for a class"),
                       ("progress", "what you reached in the labs (--export FILE, --reset)")):
        sub = commands.add_parser(name, help=text, description=text, add_help=name not in own)
        if name in ("lab", "test", "setup", "refresh"):
            source = sub.add_mutually_exclusive_group()
            source.add_argument("--torch-index", metavar="URL", help="take torch, and only torch, from this package index (for a CPU build on Linux)")
            if name != "refresh":
                source.add_argument("--from", dest="bundle", metavar="DIR", help="install from this bundle, without a network")
        if name == "lab":
            sub.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
            sub.add_argument("--port", type=int, help="listen on this port (default: 8888 or the next free one)")
        if name == "test":
            sub.add_argument("--fast", action="store_true", help="leave out what trains")
        if name == "preflight":
            sub.add_argument("--json", action="store_true", help="one line of JSON, for a list of all seats")
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in ("test", "refresh") and options.command not in own:
        parser.error("unrecognized arguments: " + " ".join(rest))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal of another encoding is no reason to stop
    try:
        if options.command not in ("doctor", "preflight"):  # they have a row for it
            check_python()
        if options.command in own:
            return own[options.command](rest)
        if getattr(options, "bundle", None):
            use_bundle(options.bundle, "test" if options.command == "test" else "lab")
        if options.command == "test":
            return test(options, rest)
        if options.command == "refresh":
            return refresh(options, rest)
        return {"lab": lab, "setup": set_up_only, "doctor": doctor, "preflight": preflight}[options.command](options)
    except Stop as stop:
        say("\nStopped: {}".format(stop))
        return 1
    except OSError as error:
        say("\nStopped: could not use {} ({}). Check that the disk is not full and that you may write there, then run the "
            "command again.".format(error.filename or ROOT, error.strerror or error))
        return 1
    except KeyboardInterrupt:
        say("\nStopped. Run the same command again: it goes on where it was.")
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not killed on the spot: JupyterLab or pip must be stopped too
    sys.exit(main())
