"""Helpers that several test files share. Fixtures are in conftest.py.

Helpers use only values, errors, key names and CommandSender of the code under test, so that they can check the rest.
Exceptions: `shop` and `network` start the code under test, `scripts` and `fake_redis` run its scripts.
"""
