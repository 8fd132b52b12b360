"""Requests that schemathesis makes from the description of the API, to a real service.

`make fuzz` sends very many, `make test` a few.
"""
