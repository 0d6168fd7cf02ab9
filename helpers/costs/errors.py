"""The error of this room."""


class CostsError(ValueError):
    """A configuration or a setting whose costs cannot be predicted; the message says how to mend it."""
