"""The tested package behind the lessons: plumbing only, the ideas stand in the notebooks."""

__version__ = "0.1.0"
