import pytest

# Helpers assert too: a failure there must show the compared values, as in a test file.
pytest.register_assert_rewrite("tests.support")
