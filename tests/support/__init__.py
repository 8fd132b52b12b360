"""What several test files share, and no fixtures: those are in conftest.py.

Of the code under test, helpers use values, errors and key names. Only `shop` and `fake_redis` use more: they start it.
"""
