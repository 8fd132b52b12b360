"""The model of a shop with several partitions: its laws hold whatever happens. `make model-check` searches more."""

import pytest

from tests.model_check.partitions.configuration import Configuration
from tests.model_check.partitions.configurations import SHORT
from tests.model_check.partitions.livelock import Contest, contests, explore
from tests.model_check.partitions.mutants import ANOMALY, MUTANTS
from tests.model_check.partitions.search import search

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("configuration", SHORT, ids=lambda configuration: configuration.name)
def test_all_laws_hold_in_every_state_that_a_shop_can_reach(configuration: Configuration) -> None:
    found = search(configuration, max_states=10_000)
    assert not found.fault, "\n".join((found.fault, *found.run))
    assert found.is_complete


@pytest.mark.parametrize(
    ("mutant", "expected"), [*MUTANTS, *ANOMALY], ids=[mutant.name for mutant, _ in [*MUTANTS, *ANOMALY]]
)
def test_the_search_finds_what_goes_wrong_without_a_safeguard(mutant: Configuration, expected: str) -> None:
    found = search(mutant, max_states=10_000)
    assert found.fault == expected
    assert found.run


@pytest.mark.parametrize("contest", contests(claims=True), ids=lambda contest: contest.name)
def test_no_order_waits_for_ever_for_units_that_others_take_from_it(contest: Contest) -> None:
    found = explore(contest)
    assert found.live_locks == 0
    assert found.stuck == 0


def test_without_claims_orders_take_units_from_each_other_for_ever() -> None:
    assert [explore(contest).live_locks > 0 for contest in contests(claims=False)] == [True] * 5 + [False]
