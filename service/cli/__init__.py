"""The `holdfast` command: one module per command. Only this package prints.

May import all other packages, but only inside of functions: `holdfast --help` must not load Redis or pydantic.
"""
