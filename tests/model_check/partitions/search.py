"""Visits every state that a shop can reach, the nearest first."""

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from tests.model_check.partitions.configuration import Configuration
from tests.model_check.partitions.laws import Laws
from tests.model_check.partitions.shop import Shop, State, Step
from tests.model_check.partitions.surroundings import failover_steps, hold_steps, sweeper_steps
from tests.model_check.partitions.workers import worker_steps

Packed = tuple[int, ...]


class Found(NamedTuple):
    """The result of a search. `fault`: the law that can be broken, or empty. `run`: the steps that lead there."""

    states: int
    steps: int
    fault: str
    run: list[str]
    is_complete: bool


def search(configuration: Configuration, max_states: int = 5_000_000) -> Found:
    """Search until a law is broken, or until all states are visited, or as many as `max_states`."""
    shop = Shop(configuration)
    laws, packing = Laws(shop), _Packing(shop)
    first = packing.pack(shop.first_state())
    parents: dict[Packed, Packed | None] = {first: None}
    queue, count = deque([first]), 0
    while queue and len(parents) < max_states:
        before = queue.popleft()
        for step in _steps(shop, packing.unpack(before)):
            count += 1
            packed = packing.pack(step.state)
            is_new = packed not in parents
            if is_new:
                parents[packed] = before
                queue.append(packed)
            fault = step.fault if configuration.laws == "all" else ""
            if not fault and is_new:
                fault = laws.fault_in(step.state)
            if fault:
                run = [*_run_to(before, parents, shop, packing), _text(step)]
                return Found(len(parents), count, fault, run, is_complete=False)
    return Found(len(parents), count, "", [], is_complete=not queue)


def _steps(shop: Shop, state: State) -> Iterator[Step]:
    return chain(
        shop.late_runs(state),
        worker_steps(shop, state),
        sweeper_steps(shop, state),
        hold_steps(shop, state),
        failover_steps(shop, state),
    )


def _run_to(end: Packed, parents: dict[Packed, Packed | None], shop: Shop, packing: "_Packing") -> list[str]:
    """Return the steps of a shortest run to a state."""
    run, state = [], end
    while (before := parents[state]) is not None:
        steps = _steps(shop, packing.unpack(before))
        run.append(_text(next(step for step in steps if packing.pack(step.state) == state)))
        state = before
    return run[::-1]


def _text(step: Step) -> str:
    text, *args = step.label
    return str(text).format(*args)


class _Packing:
    """Turns states into tuples of a few numbers, and back: a million states need 300 MB then."""

    def __init__(self, shop: Shop) -> None:
        self._count = shop.count
        self._numbers: tuple[dict[Any, int], ...] = ({}, {}, {}, {})
        self._parts: tuple[list[Any], ...] = ([], [], [], [])

    def pack(self, state: State) -> Packed:
        """Return the numbers of a state."""
        partitions, replicas, *parts = state
        packed = []
        for numbers, known, part in zip(self._numbers, self._parts, parts, strict=True):
            number = numbers.get(part)
            if number is None:
                number = numbers[part] = len(known)
                known.append(part)
            packed.append(number)
        return (*packed, *partitions, *replicas)

    def unpack(self, packed: Packed) -> State:
        """Return the state of such numbers."""
        workers, sweepers, sent, facts = (known[number] for known, number in zip(self._parts, packed, strict=False))
        end = len(self._parts) + self._count
        return State(packed[len(self._parts) : end], packed[end:], workers, sweepers, sent, facts)
