"""What a rehearsal decides before it sends anything, and how it counts: the schedule, purchases, percentiles."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from service.ops.load.measurements import Histogram, Measurements
from service.ops.load.plan import LoadPlan
from service.ops.load.report import client_problems

PLAN = LoadPlan(run_id="test", rate=500, duration=10, products=10, stock=100, buyers=50, retries=True)


def test_orders_are_due_at_equal_distances() -> None:
    times = list(PLAN.due_times())
    assert len(times) == PLAN.expected_purchases == 5000
    assert (times[0], times[1], times[-1]) == (0, 0.002, 9.998)


def test_random_moments_have_the_rate_and_depend_only_on_the_seed() -> None:
    plan = replace(PLAN, poisson=True)
    times = list(plan.due_times())
    assert 4700 < len(times) < 5300
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 10
    distances = [later - earlier for earlier, later in pairwise(times)]
    assert sum(distance > 0.002 for distance in distances) / len(distances) == pytest.approx(0.37, abs=0.03)  # 1 / e
    assert times == list(replace(plan, run_id="other").due_times())
    assert times != list(replace(plan, seed=2).due_times())


def test_purchases_depend_only_on_seed_and_number_and_the_first_product_is_wanted_most() -> None:
    purchases = [PLAN.purchase(number) for number in range(2000)]
    assert purchases[17] == PLAN.purchase(17)
    assert purchases != [replace(PLAN, seed=2).purchase(number) for number in range(2000)]
    wanted = Counter(position for purchase in purchases for position in purchase.units)
    assert wanted[0] > 1.5 * wanted[1] > 1.5 * wanted[9] > 0
    assert {len(purchase.units) for purchase in purchases} == {1, 2, 3}
    assert {purchase.buyer for purchase in purchases} == set(range(50))
    courses = Counter(purchase.course for purchase in purchases)
    assert courses["buy"] == pytest.approx(1600, abs=100)
    assert min(courses[course] for course in ("complete", "cancel", "abandon")) > 40
    impatience = Counter(purchase.impatience for purchase in purchases)
    assert impatience["none"] == pytest.approx(1800, abs=60)
    assert min(impatience["twice"], impatience["hang up"]) > 30
    assert all(0 < purchase.pause <= 2 < PLAN.hold_seconds for purchase in purchases)


def test_without_retries_nobody_is_impatient_and_one_product_is_enough() -> None:
    plan = replace(PLAN, retries=False, products=1, hold_share=0)
    for number in range(200):
        purchase = plan.purchase(number)
        assert (purchase.impatience, purchase.course, set(purchase.units)) == ("none", "buy", {0})


def test_percentiles_are_exact_to_one_percent() -> None:
    draw = random.Random(5)
    values = sorted(draw.lognormvariate(-6, 1.5) for _ in range(10_000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for share in (0.001, 0.5, 0.9, 0.99, 0.999):
        assert histogram.percentile(share) == pytest.approx(values[int(share * 10_000) - 1], rel=0.011)
    assert histogram.max == values[-1]
    assert histogram.percentile(1) == pytest.approx(values[-1], rel=0.011)


def test_percentiles_of_nothing_and_of_one_value() -> None:
    histogram = Histogram()
    assert (histogram.percentile(0.99), histogram.max) == (0, 0)
    histogram.add(0.0)
    assert histogram.percentile(0.5) == 0
    histogram.add(3.0)
    assert histogram.percentile(0.99) == pytest.approx(3, rel=0.011)


def test_a_long_rehearsal_has_no_more_moments_than_a_plot_can_show() -> None:
    day = Measurements(86_400)
    for second in range(0, 86_400, 20):
        day.add_accepted(second, 0.002)
    assert len(list(day.all_moments())) == 300
    assert sum(moment.accepted for _, moment in day.all_moments()) == 4320


def test_the_live_numbers_are_those_of_the_last_two_seconds() -> None:
    measured = Measurements(10)
    measured.add_accepted(0.5, 9)
    for _ in range(30):
        measured.add_accepted(2.5, 0.010)
        measured.add_refused(3.2, 0.020, "insufficient-stock")
    accepted, refused, p50, p99 = measured.live(3.5)
    assert (accepted, refused) == (20, 20)
    assert [p50, p99] == pytest.approx([0.010, 0.020], rel=0.02)
    assert Measurements(10).live(0.0) == (0, 0, 0, 0)


def measure(own_delay: float, latency: float, seconds: float, cpu_share: float) -> Measurements:
    measured = Measurements(10)
    for _ in range(5000):
        measured.own_delay.add(own_delay)
        measured.add_accepted(1, latency)
    measured.sent, measured.seconds, measured.cpu_share = 5000, seconds, cpu_share
    return measured


@pytest.mark.parametrize(
    ("own_delay", "latency", "seconds", "cpu_share", "words"),
    [
        (0.0002, 0.002, 10, 0.3, ""),
        (0.004, 0.005, 10, 0.3, ""),
        (0.020, 0.500, 10, 0.3, ""),
        (0.020, 0.030, 10, 0.3, "left more than 20.0"),
        (0.001, 0.030, 20, 0.99, "sent 250 orders/s instead of 500"),
        (0.001, 0.030, 20, 0.3, ""),
    ],
)
def test_a_late_client_says_that_its_numbers_do_not_count(
    own_delay: float, latency: float, seconds: float, cpu_share: float, words: str
) -> None:
    sentences = client_problems(PLAN, measure(own_delay, latency, seconds, cpu_share))
    assert len(sentences) == bool(words)
    assert words in "".join(sentences)
