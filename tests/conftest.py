"""Shared set-up of the tests."""

import signal

# A shell that runs a command in the background lets it ignore Ctrl-C, and its children inherit that. Some tests send
# Ctrl-C to a child, so here it works however the tests were started.
signal.signal(signal.SIGINT, signal.default_int_handler)
