"""What an instructor needs: editions of the course for a class, a bundle for a room without a network, a check of one seat.

`course.py edition`, `bundle`, `preflight` and `--from` run this room as `python -m helpers.classroom`. `editions` and `bundles` need
the standard library only, because they work before anything is installed; `seat` runs inside the environment.
"""
