"""The error of this room."""


class DecisionError(ValueError):
    """An answer of the worksheet, or a value of a calculation, that cannot be; the message says how to mend it."""
