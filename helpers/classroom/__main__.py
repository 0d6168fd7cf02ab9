"""`course.py` runs this: `edition`, `bundle`, `verify` (for `--from`) and `seat` (for `preflight`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from helpers import fetch
from helpers.classroom import bundles, editions


def main(arguments: list[str] | None = None) -> int:
    """0 when all is well; 1 with a line that says what to mend; 130 when interrupted."""
    options = _parser().parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    try:
        return {"edition": _edition, "bundle": _bundle, "verify": _verify, "seat": _seat}[options.command](options)
    except (editions.EditionError, bundles.BundleError, fetch.FetchError) as error:
        print(f"\nStopped: {error}")
    except OSError as error:
        print(f"\nStopped: could not use {error.filename or getattr(options, 'folder', 'a file')} ({error.strerror or error}). "
              "Check that the disk is not full and that you may write there, then run the command again.")
    except KeyboardInterrupt:
        return 130  # course.py, which got the same Ctrl-C, says so
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="course.py")
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("edition", help="write a clean folder for a class")
    sub.add_argument("kind", choices=editions.KINDS)
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--force", action="store_true", help="also where DIR is not empty; the old folder is kept under another name")
    sub = commands.add_parser("bundle", help="make a folder from which a room without a network installs the course")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--edition", choices=editions.KINDS, default="instructor", help="which edition of the course goes in (default: all of it)")
    sub.add_argument("--torch-index", metavar="URL", help="take torch, and only torch, from this package index (for a CPU build on Linux)")
    commands.add_parser("verify").add_argument("folder", type=Path, metavar="DIR")
    commands.add_parser("seat")
    return parser


def _edition(options: argparse.Namespace) -> int:
    made = editions.write(options.kind, options.folder, options.force)
    print(f"Written to {options.folder}: {len(made.files)} files, {made.origin}.")
    return 0


def _bundle(options: argparse.Namespace) -> int:
    bundle = bundles.make(options.folder, options.edition, options.torch_index)
    size = sum(entry["bytes"] for entry in bundle["files"].values()) / 1e6
    print(f"The bundle is whole: {len(bundle['files'])} files, {size:.0f} MB, for Python {bundle['python']} on {bundle['platform']}.\n"
          f"What to do on a seat stands in {options.folder / 'README.txt'}.")
    return 0


def _verify(options: argparse.Namespace) -> int:
    print(bundles.verify(options.folder).resolve().as_uri())
    return 0


def _seat(_options: argparse.Namespace) -> int:
    from helpers.classroom import seat  # which needs the environment

    seat.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
