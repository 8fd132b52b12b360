"""The `holdfast` command: one module per command. Only this package prints and ends the process.

It may import everything below it, but only inside of functions: `holdfast --help` must not load Redis or pydantic.
"""
