"""Draws a rehearsal over time: orders per second, latencies, stock. The only module that uses matplotlib."""

from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from service.ops.load.measurements import SOLD_OUT, Measurements
from service.ops.load.plan import LoadPlan

_ACCEPTED: Final = "#1a73e8"
_FAILED: Final = "#d93025"
_REFUSED: Final = ("#e8710a", "#9334e6", "#12858d", "#a8701b", "#7a7f85")
"""One colour per reason. Further reasons share the last."""


def picture_formats() -> set[str]:
    """Return the endings of file names that `draw` can write."""
    return set(FigureCanvasAgg(Figure()).get_supported_filetypes())


def draw(plan: LoadPlan, measured: Measurements, path: Path) -> None:
    """Write a picture. Raise OSError if the file cannot be written."""
    seconds = [second for second, _ in measured.all_moments()]
    moments = [moment for _, moment in measured.all_moments()]
    has_stock = any(moment.stock is not None for moment in moments)
    figure = Figure(figsize=(10, 9 if has_stock else 6.5), layout="constrained")
    figure.suptitle(
        f"Rehearsal {plan.run_id}: {plan.rate:,g} orders/s for {plan.duration:,g} s, "
        f"{plan.products:,} products with {plan.stock:,} units each"
    )
    axes: list[Axes] = list(figure.subplots(3 if has_stock else 2, 1, sharex=True))
    rates, latencies = axes[:2]

    def rate(counts: list[int]) -> list[float]:
        return [count / measured.width for count in counts]

    middle = [second + measured.width / 2 for second in seconds]
    rates.plot(middle, rate([moment.accepted for moment in moments]), color=_ACCEPTED, marker=".", label="accepted")
    for index, (reason, _) in enumerate(measured.refusals.most_common()):
        label = "sold out" if reason == SOLD_OUT else f"refused: {reason}"
        counts = rate([moment.refused[reason] for moment in moments])
        rates.plot(middle, counts, color=_REFUSED[min(index, len(_REFUSED) - 1)], marker=".", label=label)
    if any(moment.failed for moment in moments):
        rates.plot(middle, rate([moment.failed for moment in moments]), color=_FAILED, marker=".", label="failed")
    rates.axhline(plan.rate, color="#9aa0a6", linestyle=":", label="wanted")
    rates.set_ylabel("orders per second")
    rates.set_ylim(bottom=0)

    for name, share, color in (("p50", 0.5, _ACCEPTED), ("p99", 0.99, _FAILED)):
        values = [moment.latencies.percentile(share) * 1000 if moment.latencies.count else None for moment in moments]
        latencies.plot(middle, values, color=color, marker=".", label=name)  # type: ignore[arg-type]
    latencies.set_yscale("log")
    latencies.yaxis.set_major_formatter("{x:g}")
    latencies.set_ylabel("latency from due time, ms")

    if has_stock:
        seen = [
            (second, moment.stock) for second, moment in zip(middle, moments, strict=True) if moment.stock is not None
        ]
        axes[2].plot(*zip(*seen, strict=True), color=_REFUSED[2], marker=".", label="units in stock, all products")
        axes[2].set_ylabel("units")
        axes[2].set_ylim(bottom=0)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(loc="best", fontsize="small")
    axes[-1].set_xlabel("seconds since the start")
    axes[-1].set_xlim(left=0)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=120)
