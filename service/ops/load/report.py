"""Shows the numbers and the verdict of a rehearsal, as a table and as JSON. Pure functions."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from service.ops.load.measurements import SOLD_OUT, Histogram, Measurements
from service.ops.load.plan import LoadPlan
from service.ops.load.verdict import FindingKind, Verdict

_SHARES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

_MAX_OWN_DELAY_SECONDS: Final = 0.005
"""A client that is later than this at the p99, and also by a fifth of the p99 of the orders, measures itself."""

_MAX_OWN_SHARE: Final = 0.2

_MIN_RATE_SHARE: Final = 0.95

_KINDS: Final[Mapping[FindingKind, str]] = {
    "oversold": "oversold",
    "lost": "lost or changed order",
    "double": "double order",
    "unwanted": "order of a refused purchase",
    "contradiction": "contradiction",
    "stock": "wrong stock",
}


def client_problems(plan: LoadPlan, measured: Measurements) -> list[str]:
    """Return sentences that say why the latencies are those of the client, and not of the service."""
    own, orders = measured.own_delay.percentile(0.99), Histogram()
    orders.add_all(measured.accepted)
    orders.add_all(measured.refused)
    sentences = []
    if own > max(_MAX_OWN_DELAY_SECONDS, _MAX_OWN_SHARE * orders.percentile(0.99)):
        sentences.append(
            f"The client was the bottleneck: 1 % of the orders left more than {_ms(own)} ms late "
            f"({measured.cpu_share:.0%} of a core used). The latencies do not count: use a lower --rate, or another "
            "machine for the client."
        )
    elif measured.achieved_rate < _MIN_RATE_SHARE * plan.rate and measured.cpu_share > 0.9 and not _few(measured):
        sentences.append(
            f"The client was the bottleneck: it sent {measured.achieved_rate:,.0f} orders/s instead of "
            f"{plan.rate:,.0f}. The latencies do not count."
        )
    return sentences


def table_lines(plan: LoadPlan, measured: Measurements) -> Iterator[str]:
    """Yield the lines of the table for people."""
    wanted = f"of {plan.rate:,g}/s" + (", at random moments" if plan.poisson else "")
    yield f"sent          {measured.sent:,} orders, {measured.achieved_rate:,.1f}/s {wanted}"
    yield f"accepted      {measured.accepted.count:,}"
    yield f"sold out      {measured.refusals[SOLD_OUT]:,}"
    others = Counter({reason: count for reason, count in measured.refusals.items() if reason != SOLD_OUT})
    yield f"refused       {_counts(others)}"
    yield f"failed        {_counts(measured.failures)}"
    yield f"not sent      {measured.dropped:,}"
    yield f"pending       {_counts(measured.endings_by_kind)}"
    yield f"sent again    {_counts(measured.repeats)}"
    yield f"replayed      {measured.replays:,}"
    yield ""
    yield f"{'latency, ms':20}" + "".join(f"{name:>10}" for name in (*_SHARES, "max"))
    for name, histogram in _histograms(measured).items():
        yield f"{name:20}" + "".join(
            f"{_ms(value) if histogram.count else '-':>10}" for value in _percentiles(histogram).values()
        )
    yield ""


def verdict_lines(plan: LoadPlan, measured: Measurements, verdict: Verdict) -> Iterator[str]:
    """Yield the lines of the verdict for people."""
    units = f"{verdict.stocked:,} units"
    sold, held, left = (sum(level[index] for level in verdict.levels) for index in (2, 1, 0))
    yield _line("oversold", verdict.counts["oversold"], f"no: of {units}, {sold:,} sold, {held:,} held, {left:,} left")
    there = f"none: all {verdict.acknowledged:,} acknowledged orders are there, as ordered"
    yield _line("lost orders", verdict.counts["lost"], there)
    once = f"none: {verdict.purchases:,} purchases have at most one order each"
    yield _line("double orders", verdict.counts["double"], once)
    agree = "yes" if not verdict.unsure_units else f"yes, but {verdict.unsure_units:,} units are not certain: see below"
    yield _line("numbers agree", verdict.counts["stock"] + verdict.counts["unwanted"], agree)
    if verdict.counts["contradiction"]:
        yield _line("answers", verdict.counts["contradiction"], "")
    for kind, sentences in verdict.examples.items():
        for sentence in sentences:
            yield f"  {_KINDS[kind]}: {sentence}"
        if verdict.counts[kind] > len(sentences):
            yield f"  {_KINDS[kind]}: {verdict.counts[kind] - len(sentences):,} more"
    if verdict.unknown:
        yield (
            f"{verdict.unknown:,} purchases got no final answer: {verdict.unknown_placed:,} of them have an order, "
            "the others have none."
        )
    if verdict.unsure_units:
        yield (
            f"{verdict.unsure_units:,} units may be taken or not: their orders were pending when they were read, or "
            "got no answer."
        )
    yield from client_problems(plan, measured)
    yield {
        "good": "Verdict: good.",
        "bad": f"Verdict: BAD. Findings: {verdict.counts.total():,}.",
        "none": "Verdict: none. No order was accepted, so nothing was tested.",
    }[verdict.word]


def as_dict(plan: LoadPlan, measured: Measurements, verdict: Verdict) -> dict[str, Any]:
    """Return the whole report for programs. Latencies are in milliseconds, times in seconds since the start."""
    return {
        "verdict": None if verdict.word == "none" else verdict.word,
        "findings": {
            kind: {"count": count, "examples": verdict.examples[kind]} for kind, count in verdict.counts.items()
        },
        "run": plan.run_id,
        "plan": {
            name: getattr(plan, name)
            for name in (
                *("rate", "duration", "products", "stock", "buyers", "hold_share", "hold_seconds", "limit"),
                *("retries", "poisson", "seed"),
            )
        },
        "sent": measured.sent,
        "rate": round(measured.achieved_rate, 1),
        "accepted": measured.accepted.count,
        "refused": dict(measured.refusals),
        "failed": dict(measured.failures),
        "not_sent": measured.dropped,
        "pending": dict(measured.endings_by_kind),
        "sent_again": dict(measured.repeats),
        "replayed": measured.replays,
        "latency_ms": {
            name: {label: round(value * 1000, 3) for label, value in _percentiles(histogram).items()}
            for name, histogram in _histograms(measured).items()
        },
        "client": {
            "cpu_share": round(measured.cpu_share, 3),
            "problems": client_problems(plan, measured),
        },
        "read_back": {
            "purchases": verdict.purchases,
            "acknowledged": verdict.acknowledged,
            "unknown": verdict.unknown,
            "unknown_placed": verdict.unknown_placed,
            "units": verdict.stocked,
            **{
                name: sum(level[index] for level in verdict.levels)
                for index, name in enumerate(("stock", "held", "sold"))
            },
            "unsure_units": verdict.unsure_units,
        },
        "moments": [
            {
                "second": second,
                "accepted": moment.accepted,
                "refused": dict(moment.refused),
                "failed": moment.failed,
                "p50_ms": round(moment.latencies.percentile(0.5) * 1000, 3),
                "p99_ms": round(moment.latencies.percentile(0.99) * 1000, 3),
                "stock": moment.stock,
            }
            for second, moment in measured.all_moments()
        ],
    }


def _line(name: str, findings: int, otherwise: str) -> str:
    return f"{name:14}{f'{findings:,} FINDINGS' if findings else otherwise}"


def _few(measured: Measurements) -> bool:
    """Return whether too few orders were sent to speak of a rate: the run was ended early."""
    return measured.seconds < 1


def _histograms(measured: Measurements) -> dict[str, Histogram]:
    return {
        "accepted": measured.accepted,
        "refused": measured.refused,
        "completed, cancelled": measured.endings,
        "client's own delay": measured.own_delay,
    }


def _percentiles(histogram: Histogram) -> dict[str, float]:
    return {**{name: histogram.percentile(share) for name, share in _SHARES.items()}, "max": histogram.max}


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.2f}" if seconds < 0.1 else f"{seconds * 1000:,.0f}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "0"
