"""Turns the results of the benchmark into tables and plots."""

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")  # draws files, opens no window

import matplotlib.pyplot as plt

Row = dict[str, Any]

MARKERS: Final = ("<!-- results: written by `make bench` -->", "<!-- end of results -->")
SERVERS: Final = {
    "ceiling": "ceiling",
    "holdfast": "Holdfast",
    "pool": "Holdfast on redis-py's pool",
    "postgres": "FastAPI + PostgreSQL",
}
_COLOURS: Final = {"ceiling": "#9aa0a6", "holdfast": "#1a73e8", "pool": "#7baaf7", "postgres": "#e8710a"}
_CASE: Final = ("load", "lines", "products", "orders", "connections", "workers", "durability")
_LABELS: Final[dict[str, Callable[[Any], str]]] = {
    "load": {
        "orders": "orders",
        "keyed": "orders with a new Idempotency-Key",
        "replay": "replays (placed already)",
        "sold_out": "orders of sold-out products",
        "flash": "flash sale",
        "page": "100 products, the same page",
        "pages": "100 products, random pages",
        "order_pages": "100 orders, random pages",
        "product": "one product",
        "mixed": "mixed",
    }.__getitem__,
    "lines": lambda lines: "1 line" if lines == 1 else f"{lines} lines",
    "products": lambda count: f"{count:,} products",
    "orders": lambda count: f"{count:,} stored orders",
    "connections": lambda count: f"{count:,} connections",
    "workers": lambda count: "1 worker" if count == 1 else f"{count} workers",
    "durability": str,
}


QUEUE_MS: Final = 100
"""With a higher p50, requests came faster than they were answered: p50 and p99 grow with the length of the run."""


def write_report(results: dict[str, Any], folder: Path) -> str:
    """Draw the plots. Put the tables between the markers of README.md, if the directory has one, and return them."""
    text = "\n\n".join([*_tables(results), *(f"![{name}]({name}.png)" for name in _plots(results, folder))])
    readme = folder / "README.md"
    if readme.exists():
        before, _, rest = readme.read_text().partition(MARKERS[0])
        _, _, after = rest.partition(MARKERS[1])
        readme.write_text(f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}")
    return text


def ratio(row: Row | None, other: Row | None, *names: str) -> float | None:
    """Return the ratio of two rows: the median of the ratios within each round. None if a row is missing.

    `names`: the fields of a run whose sum is compared. Without names, the field `rate` is compared.
    """
    if row is None or other is None or "failed" in row or "failed" in other:
        return None
    pairs = [
        tuple(sum(run[name] for name in names or ("rate",)) for run in runs)
        for runs in zip(row["runs"], other["runs"], strict=True)
    ]
    ratios = [total / other_total for total, other_total in pairs if other_total]
    return statistics.median(ratios) if ratios else None


def _tables(results: dict[str, Any]) -> Iterator[str]:
    yield _about(results)
    yield (
        "### Goals\n\nOne worker, 64 connections, orders of two lines, `always`, unless the row says otherwise.\n\n"
        + _table(("goal", "measured"), _goals(results))
    )
    for key, group in results["groups"].items():
        title = f"### {group['title']}"
        if "failed" in group:
            yield f"{title}\n\n**Failed:** {group['failed']}"
        else:
            yield f"{title}\n\n{_SPECIAL.get(key, _group_table)(group['rows'])}"


def _about(results: dict[str, Any]) -> str:
    machine = results["machine"]
    shared = machine["cores_of_servers"] == machine["cores_of_load_generator"]
    cores = (
        "shared by servers and load generator"
        if shared
        else f"1 for the load generator, {len(machine['cores_of_servers'])} for the servers and their backends"
    )
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"Measured {results['taken_at']} by `make {'bench-full' if results['full'] else 'bench'}` in "
        f"{results['took_seconds'] / 60:.0f} minutes: {results['rounds']} rounds of {results['seconds_of_a_run']} s."
        "\n\n"
        f"{machine['processor']}, {machine['cores']} cores ({cores}), {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}, data on {machine['file_system']}; {versions}."
    )


def _group_table(rows: list[Row]) -> str:
    varying = [name for name in _CASE if len({row[name] for row in rows}) > 1]
    header = (
        *("case", "server", "requests/s", "(lowest to highest)", "accepted/s", "refused/s"),
        *("p50 ms", "p99 ms", "p99.9 ms", "server µs", "engine µs", "engine busy"),
        *("of the ceiling", "× pool", "× PostgreSQL"),
    )
    lines: list[tuple[str, ...]] = []
    for row in rows:
        case = ", ".join(_LABELS[name](row[name]) for name in varying) or _LABELS["load"](row["load"])
        if "failed" in row:
            lines.append((case, SERVERS[row["server"]], f"failed: {row['failed']}"))
            continue
        median, rates = row["median"], [run["rate"] for run in row["runs"]]
        per_request = median["rate"] / (median["ok"] + median["created"] + median["refused"])
        peers = {
            other["server"]: other
            for other in rows
            if other is not row and all(other[name] == row[name] for name in _CASE)
        }
        lines.append(
            (
                case,
                SERVERS[row["server"]],
                f"{median['rate']:,.0f}",
                f"{min(rates):,.0f} to {max(rates):,.0f}",
                _format("{:,.0f}", median["created"] * per_request),
                _format("{:,.0f}", median["refused"] * per_request),
                *(f"{median[name]:.1f}" for name in ("p50_ms", "p99_ms", "p999_ms")),
                f"{median['server_us']:.0f}",
                _format("{:.0f}", median["backend_us"]),
                _format("{:.0%}", median["engine_busy"]),
                _format("{:.0%}", ratio(row, peers.get("ceiling"))),
                *(_format("{:.1f}", ratio(row, peers.get(name))) for name in ("pool", "postgres")),
            )
        )
    balances = sorted({f"{SERVERS[row['server']]}: {row['balance']}" for row in rows if row.get("balance")})
    return _table(header, lines) + "\n\n" + "; ".join(balances) + "."


def _latency_table(rows: list[Row]) -> str:
    header = (
        "server",
        "rate",
        "of the maximum",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "p99 / p50",
        "delay of the client, p99 ms",
    )
    return f"Medians of {len(rows[0]['runs'])} runs.\n\n" + _table(
        header,
        [
            (
                SERVERS[row["server"]],
                f"{row['max_rate'] * row['share']:,.0f}/s",
                f"{row['share']:.0%}",
                *(f"{row['median'][name]:.2f}" for name in ("p50_ms", "p99_ms", "p999_ms")),
                _format("{:.1f}", tail_ratio(row)),
                f"{row['median']['client_delay_p99_ms']:.2f}",
            )
            for row in rows
        ],
    )


def tail_ratio(row: Row | None) -> float | None:
    """Return p99 divided by p50, the median over the rounds. None if the row is missing."""
    return statistics.median(run["p99_ms"] / run["p50_ms"] for run in row["runs"]) if row else None


def _tail(row: Row | None) -> str:
    """Return the ratio of p99 and p50 as a text; or why it means nothing."""
    if row is not None and row["median"]["p50_ms"] > QUEUE_MS:
        return f"no result: a queue grew all the time, so p50 was {row['median']['p50_ms']:.0f} ms"
    return _format("{:.1f} ×", tail_ratio(row))


def _engine_table(rows: list[Row]) -> str:
    return _table(
        ("orders", "append-only file", "orders/s", "engine µs per order"),
        [
            (
                _LABELS["lines"](row["lines"]),
                row["durability"],
                f"{row['median']['rate']:,.0f}",
                f"{row['median']['backend_us']:.1f}",
            )
            for row in rows
        ],
    )


def _memory_table(rows: list[Row]) -> str:
    return _table(
        ("server", "idle server, MiB", "per idle connection, KiB", "per stored order of two lines, bytes"),
        [
            (
                SERVERS[row["server"]],
                f"{row['median']['idle_bytes'] / 2**20:.0f}",
                f"{row['median']['bytes_per_connection'] / 2**10:.1f}",
                _format("{:,.0f}", row["median"].get("bytes_per_order")),
            )
            for row in rows
        ],
    )


def _pool_table(found: dict[str, Any]) -> str:
    return _table(
        ("connections per worker", "orders/s"),
        [
            (f"**{size}**" if str(size) == str(found["chosen"]) else str(size), f"{rate:,.0f}")
            for size, rate in found["requests_per_second"].items()
        ],
    )


_SPECIAL: Final[dict[str, Callable[[Any], str]]] = {
    "pool-size": _pool_table,
    "latency": _latency_table,
    "engine": _engine_table,
    "memory": _memory_table,
}


def _goals(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    def find(group: str, server: str = "holdfast", **fields: object) -> Row | None:
        wanted = {"server": server, "lines": 2, "connections": 64, "workers": 1, "durability": "always", **fields}
        for key in (group, "orders", "orders-100"):  # `make bench` measures most cases in one group
            for row in results["groups"].get(key, {}).get("rows", ()):
                if all(row.get(name) == value for name, value in wanted.items()):
                    return dict(row)
        return None

    orders, page = find("orders", load="orders"), find("reads", load="page")
    yield (
        "orders: at least 90 % of the ceiling",
        _format("{:.0%}", ratio(orders, find("orders", "ceiling", load="orders"))),
    )
    if results["full"]:
        yield from _cost_goals(find)
    yield (
        "orders: at least 2 × as fast as redis-py's pool",
        _format("{:.1f} ×", ratio(orders, find("orders", "pool", load="orders"))),
    )
    yield (
        "orders: at least 15 × as fast as PostgreSQL",
        _format("{:.1f} ×", ratio(orders, find("orders", "postgres", load="orders"))),
    )
    yield (
        "GET /products, 100 rows: at least 60 % of a constant response",
        _format("{:.0%}", ratio(page, find("reads", "ceiling", load="page"))),
    )
    yield (
        "GET /products, 100 rows: random pages at least 3.5 × as fast as PostgreSQL",
        _format("{:.1f} ×", ratio(find("reads", load="pages"), find("reads", "postgres", load="pages"))),
    )
    yield "at 70 % of the highest rate: p99 at most 3 × p50", _tail(find("latency", share=0.7))
    small, large = find("sizes", orders=100), find("sizes", orders=1_000_000)
    costs = [ratio(large, small, name) for name in ("server_us", "backend_us")]
    yield (
        "an order costs the same with 10² and with 10⁶ stored products and orders",
        " · ".join(
            f"{name} {_format('{:.2f} ×', cost)}" for name, cost in zip(("server", "engine"), costs, strict=True)
        ),
    )
    for load in ("orders", "product"):
        rows = [(count, find("workers", load=load, workers=count)) for count in (2, 4)]
        single = find("workers", load=load)
        yield (
            f"throughput grows with the workers until a core is fully busy: {_LABELS['load'](load)}",
            " · ".join(
                f"{count} workers {_format('{:.2f} ×', ratio(row, single))}, "
                f"the engine's thread {row['median']['engine_busy']:.0%} busy"
                for count, row in rows
                if row and "failed" not in row
            )
            or "–",
        )
    engine = find("engine", durability="off")
    yield (
        "the engine alone: at least 33,000 orders/s",
        _format("{:,.0f}/s", engine["median"]["rate"] if engine else None),
    )


def _cost_goals(find: Callable[..., Row | None]) -> Iterator[tuple[str, str]]:
    """Yield the goals for CPU time per request. `find` takes a group and field values, and returns the row."""

    def compare(row: Row | None, other: Row | None, *names: str) -> str:
        return _format("{:.2f} ×", ratio(row, other, *names))

    costs = []
    for name, lines, products in (("1 line", 1, 100), ("2 lines", 2, 100), ("2 lines, 100,000 products", 2, 100_000)):
        group, fields = f"orders-{products}", {"lines": lines, "products": products}
        costs.append(f"{name} {compare(find(group, **fields), find(group, 'ceiling', **fields), 'server_us')}")
    yield "CPU time of a worker for an order: at most that of the ceiling, which stores nothing", " · ".join(costs)
    new, keyed = find("outcomes", load="orders"), find("outcomes", load="keyed")
    both = ("server_us", "backend_us")
    for load, name, other, other_name in (
        ("sold_out", "an order of sold-out products", new, "a new order"),
        ("replay", "a replay (an order that was placed already)", new, "a new order"),
        ("replay", "a replay", keyed, "a new order with an Idempotency-Key"),
    ):
        row = find("outcomes", load=load)
        yield (
            f"CPU time for {name}: at most that for {other_name}",
            f"worker {compare(row, other, 'server_us')} · worker and engine {compare(row, other, *both)}",
        )


def _table(header: tuple[str, ...], lines: Any) -> str:
    rows = [header, ("---",) * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _format(template: str, number: float | None) -> str:
    return template.format(number) if number else "–"


def _plots(results: dict[str, Any], folder: Path) -> Iterator[str]:
    """Draw the plots for which there are numbers, and give their names."""
    groups = {
        key: [row for row in found["rows"] if "failed" not in row]
        for key, found in results["groups"].items()
        if "rows" in found and key != "pool-size"
    }
    bars = [
        row
        for key in ("orders", "orders-100", "reads", "mixed", "flash")
        for row in groups.get(key, ())
        if row["workers"] == 1
    ]
    if bars:
        yield _draw(folder / "throughput.png", (9, 5), 1, lambda axes: _draw_bars(axes[0], bars))
    scales = {
        "workers": ("workers", "workers"),
        "connections": ("connections", "connections"),
        "sizes": ("orders", "stored products and orders"),
    }
    found = [(groups[key], *scale) for key, scale in scales.items() if key in groups]
    if found:
        yield _draw(
            folder / "scaling.png",
            (4.5 * len(found), 4),
            len(found),
            lambda axes: _draw_scales(axes, found),
        )
    if len(groups.get("latency", ())) > 1:
        yield _draw(folder / "latency.png", (8, 4.5), 1, lambda axes: _draw_latency(axes[0], groups["latency"]))


def _draw(path: Path, size: tuple[float, float], count: int, fill: Callable[[Any], object]) -> str:
    figure, axes = plt.subplots(1, count, figsize=size, squeeze=False, layout="constrained")
    fill(axes[0])
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path.stem


def _draw_bars(axis: Any, rows: list[Row]) -> None:
    labels = list(dict.fromkeys(_bar_label(row) for row in rows))
    for offset, server in enumerate(SERVERS):
        of_server = {_bar_label(row): row for row in rows if row["server"] == server}
        rates = [of_server[label]["median"]["rate"] if label in of_server else 0 for label in labels]
        places = [place + 0.2 * (offset - 1.5) for place in range(len(labels))]
        drawn = axis.barh(places, rates, 0.19, color=_COLOURS[server], label=SERVERS[server])
        axis.bar_label(drawn, [f"{rate:,.0f}" if rate else "" for rate in rates], padding=2, fontsize=6)
    axis.set_yticks(range(len(labels)), labels)
    axis.invert_yaxis()
    axis.set_xlabel("requests/s, one worker, 64 connections")
    axis.legend(fontsize=8)


def _bar_label(row: Row) -> str:
    label = _LABELS["load"](row["load"])
    return f"{label}, {_LABELS['lines'](row['lines'])}" if row["load"] == "orders" else label


def _draw_scales(axes: Any, found: list[tuple[list[Row], str, str]]) -> None:
    for axis, scale in zip(axes, found, strict=True):
        _draw_scale(axis, *scale)


def _draw_scale(axis: Any, rows: list[Row], name: str, label: str) -> None:
    for server in SERVERS:
        points = [
            (row[name], row["median"]["rate"]) for row in rows if row["server"] == server and row["load"] == "orders"
        ]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", color=_COLOURS[server], label=SERVERS[server])
    ticks = sorted({row[name] for row in rows})
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_xlabel(label)
    axis.set_ylabel("orders/s")
    axis.legend(fontsize=7)


def _draw_latency(axis: Any, rows: list[Row]) -> None:
    for server in SERVERS:
        of_server = [row for row in rows if row["server"] == server]
        for name, style in (("p50_ms", "-"), ("p99_ms", "--"), ("p999_ms", ":")):
            if of_server:
                rates = [row["max_rate"] * row["share"] for row in of_server]
                label = f"{SERVERS[server]}, {name.removesuffix('_ms')}"
                values = [row["median"][name] for row in of_server]
                axis.plot(rates, values, style, marker=".", color=_COLOURS[server], label=label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("orders/s, sent at a constant rate: 30, 50 and 70 % of the highest rate of each server")
    axis.set_ylabel("ms since the request was due")
    axis.legend(fontsize=7)
