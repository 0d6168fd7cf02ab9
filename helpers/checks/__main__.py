"""Print, export or reset the progress in the labs: `python course.py progress` runs this."""

from __future__ import annotations

import argparse
import sys

from . import progress


def main(arguments: list[str] | None = None) -> int:
    """0 when all is well, 1 with a line that says what to mend."""
    parser = argparse.ArgumentParser(prog="course.py progress", description="What you reached in the labs.")
    parser.add_argument("--export", metavar="FILE", help="write it to a file too: .csv, or JSON")
    parser.add_argument("--reset", action="store_true", help="begin anew; the old file is kept under another name")
    options = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    try:
        if options.export:
            print(f"Written to {progress.export(options.export)}")
        if options.reset:
            aside = progress.reset()
            print(f"Begun anew; the old progress is kept in {aside}" if aside else "There was nothing to reset.")
        print(progress.text())
        print(f"kept in {progress.path() or 'no file: progress is switched off (COURSE_PROGRESS=off)'}")
    except (OSError, ValueError) as error:
        print(f"Stopped: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
