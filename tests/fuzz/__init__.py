"""Requests that nobody thought of. `make fuzz` sends more than a million, `make test` a few thousand.

- from_description.py: schemathesis makes requests, and sequences of them, from the description of the API (hooks.py).
- sockets.py sends the bytes of grammar.py and bodies.py over many connections; oracle.py judges the answers.
- targets.py reads bytes with the service and with other parsers, in this process. coverage_guided.py lets atheris find
  bytes that reach new code; mutations.py does without atheris.
"""
