import pytest

# The state machine asserts, too: a failure there must show the compared values, as in a test file.
pytest.register_assert_rewrite("tests.model_check.results", "tests.model_check.shop_machine")
