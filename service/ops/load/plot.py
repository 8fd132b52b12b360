"""Draws a rehearsal over time: orders per second, latencies, stock. The only module that uses matplotlib."""

from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from service.ops.load.measurements import SOLD_OUT, Measurements, Moment
from service.ops.load.plan import LoadPlan

_ACCEPTED: Final = "#1a73e8"
_STOCK: Final = "#12858d"
_FAILED: Final = "#d93025"
_REFUSED: Final = ("#e8710a", "#9334e6", "#a8701b", "#7a7f85")
"""One colour per reason. Further reasons share the last."""


def draw(plan: LoadPlan, measured: Measurements, path: Path) -> None:
    """Write a picture. Raise OSError if the file cannot be written."""
    moments = [(second + measured.width / 2, moment) for second, moment in measured.all_moments()]
    stocks = [(middle, moment.stock) for middle, moment in moments if moment.stock is not None]
    # After the last answer, only the stock was looked at: that is no time in which orders were refused.
    answered = [index for index, (_, moment) in enumerate(moments) if moment.latencies.count or moment.failed]
    moments = moments[: max(answered, default=-1) + 1]
    figure = Figure(figsize=(11, 9 if stocks else 6.5), layout="constrained")
    figure.suptitle(
        f"Rehearsal {plan.run_id}: {plan.rate:,g} orders/s for {plan.duration:,g} s, "
        f"{plan.products:,} products with {plan.stock:,} units each"
    )
    axes: list[Axes] = list(figure.subplots(3 if stocks else 2, 1, sharex=True))
    _draw_rates(axes[0], plan, measured, moments)
    _draw_latencies(axes[1], moments)
    if stocks:
        axes[2].plot(*zip(*stocks, strict=True), color=_STOCK, marker=".", label="units in stock")
        axes[2].set_ylabel("units, all products")
        axes[2].set_ylim(bottom=0)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False)
    axes[-1].set_xlabel("seconds since the start")
    axes[-1].set_xlim(left=0)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=120)


def _draw_rates(axis: Axes, plan: LoadPlan, measured: Measurements, moments: Sequence[tuple[float, Moment]]) -> None:
    def line(label: str, color: str, count: Callable[[Moment], int]) -> None:
        rates = [count(moment) / measured.width for _, moment in moments]
        axis.plot([middle for middle, _ in moments], rates, color=color, marker=".", label=label)

    axis.axhline(plan.rate, color="#9aa0a6", linestyle=":", label="planned")
    line("accepted", _ACCEPTED, lambda moment: moment.accepted)
    for index, (reason, _) in enumerate(measured.refusals.most_common()):
        label = "sold out" if reason == SOLD_OUT else reason
        line(label, _REFUSED[min(index, len(_REFUSED) - 1)], lambda moment, reason=reason: moment.refused[reason])  # type: ignore[misc]
    if measured.failures:
        line("failed", _FAILED, lambda moment: moment.failed)
    axis.set_ylabel("orders per second")
    axis.set_ylim(bottom=0)


def _draw_latencies(axis: Axes, moments: Sequence[tuple[float, Moment]]) -> None:
    for name, share, color in (("p99", 0.99, _FAILED), ("p50", 0.5, _ACCEPTED)):
        milliseconds = [
            moment.latencies.percentile(share) * 1000 if moment.latencies.count else nan for _, moment in moments
        ]
        axis.plot([middle for middle, _ in moments], milliseconds, color=color, marker=".", label=name)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_ylabel("latency since due, ms")
