"""The benchmark: run it with `python -m bench`, and see README.md in this directory."""
