"""`holdfast load`."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli.terminal import (
    FAILED,
    OK,
    WRONG_USAGE,
    counted,
    drop_output,
    fail,
    progress_bar,
    run_and_handle_errors,
)
from service.settings import client_key, ignored_variables, read_settings

if TYPE_CHECKING:
    from service.ops.load.client import HttpClient
    from service.ops.load.open_loop import OpenLoop
    from service.ops.load.plan import LoadPlan
    from service.ops.load.shop import RehearsalShop
    from service.ops.load.verdict import Verdict

INCONCLUSIVE: Final = 3
"""Exit code of a rehearsal that could not be done, or whose result could not be read back."""

_PICTURES: Final = (".png", ".svg", ".pdf")
"""Formats that matplotlib writes without other programs."""

_WARM_CONNECTIONS: Final = 50
"""Connections that are opened before the load: as many as answers in 5 ms at 10,000 orders per second need."""


class _Number(click.FloatRange):
    """A number in a range. click's own type accepts nan, which is in no range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


@click.command("load")
@click.option("--url", metavar="URL", help="The service. Default: the one at HOLDFAST_HOST and HOLDFAST_PORT.")
@click.option("--shop", metavar="NAME", help="The shop, if the service has several: its calls are below /shops/NAME.")
@click.option("--rate", type=_Number(0.1, 100_000), default=100, show_default=True, help="Orders per second.")
@click.option("--duration", type=_Number(0.1, 86_400), default=10, show_default=True, help="Seconds.")
@click.option("--products", type=click.IntRange(1, 1000), default=10, show_default=True, help="Products to add.")
@click.option(
    "--stock", type=click.IntRange(1, 1_000_000_000), default=1000, show_default=True, help="Units of each product."
)
@click.option("--buyers", type=click.IntRange(1, 10**9), default=5000, show_default=True, help="Different customers.")
@click.option("--limit", type=click.IntRange(1, 10**9), help="Units of a product that one customer may have.")
@click.option(
    "--hold",
    type=_Number(0, 1),
    default=0.2,
    show_default=True,
    help="Share of orders that are pending first.",
)
@click.option(
    "--hold-seconds", type=click.IntRange(1, 600), default=5, show_default=True, help="How long they hold their units."
)
@click.option("--retries", is_flag=True, help="Send orders again: sometimes at once, and always after an error.")
@click.option("--poisson", is_flag=True, help="Orders come at random moments instead of equal distances.")
@click.option("--seed", type=click.IntRange(0, 2**32), default=1, show_default=True, help="For the same orders again.")
@click.option(
    "--connections", type=click.IntRange(1, 10_000), default=500, show_default=True, help="Connections at most."
)
@click.option(
    "--timeout", type=_Number(0.05, 600), default=10, show_default=True, help="Seconds to wait for an answer."
)
@click.option("--keep", is_flag=True, help="Do not withdraw the products at the end.")
@click.option("--allow-remote", is_flag=True, help="Allow a service on another machine.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw a picture into this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_obj
def command(
    options: dict[str, str],
    url: str | None,
    shop: str | None,
    rate: float,
    duration: float,
    products: int,
    stock: int,
    buyers: int,
    limit: int | None,
    hold: float,
    hold_seconds: int,
    retries: bool,
    poisson: bool,
    seed: int,
    connections: int,
    timeout: float,
    keep: bool,
    allow_remote: bool,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Rehearse a sale: send many orders to a running service, and check what became of them.

    The rehearsal adds products of its own and withdraws them at the end. Its orders stay in the shop, and in its
    events: use a shop that is not in use. Ctrl-C ends the load early; press it again to end at once.

    Exit code 0: all orders and stock numbers are right; 1: some are wrong; 3: the rehearsal could not be done.
    """
    settings = read_settings(options)
    for sentence in ignored_variables():
        fail(sentence)

    def failed(reason: str) -> int:
        if as_json:
            try:
                print(json.dumps({"verdict": None, "reason": reason}), flush=True)
            except OSError:
                drop_output()
        return fail(reason, INCONCLUSIVE)

    if plot is not None and (reason := _why_no_plot(plot)):
        return failed(reason)
    from secrets import token_hex
    from urllib.parse import quote

    from service.ops.load.client import HttpClient
    from service.ops.load.open_loop import new_event_loop
    from service.ops.load.plan import LoadPlan
    from service.ops.load.shop import CannotReadBack
    from service.ops.load.target import TargetRefused, default_url, find_target

    try:
        service = url or default_url(settings.host, settings.port)
        path = "" if shop is None else f"/shops/{quote(shop, safe='')}"
        target = find_target(service.rstrip("/") + path, allow_remote=allow_remote)
    except TargetRefused as error:
        return fail(str(error), WRONG_USAGE)
    plan = LoadPlan(
        run_id=token_hex(4),
        rate=rate,
        duration=duration,
        products=products,
        stock=stock,
        buyers=buyers,
        hold_share=hold,
        hold_seconds=hold_seconds,
        limit=limit,
        retries=retries,
        poisson=poisson,
        seed=seed,
    )

    def work() -> int:
        client = HttpClient(target, connections=connections, timeout=timeout, key=client_key())
        rehearsal = Rehearsal(plan, client, connections, keep=keep, as_json=as_json, plot=plot)
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                return runner.run(rehearsal.run())
        except CannotReadBack as error:
            return failed(str(error))
        finally:
            rehearsal.report_products()

    return run_and_handle_errors(work, failed)


def _why_no_plot(path: Path) -> str | None:
    """Return a sentence if no picture can be written to this path. It is better to know that before the load."""
    if path.suffix.lower() not in _PICTURES:
        return f"--plot: {str(path)!r} must end with {', '.join(_PICTURES[:-1])} or {_PICTURES[-1]}"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return f"--plot: cannot write {str(path)!r}"
    try:
        import service.ops.load.plot  # noqa: F401  # imports matplotlib, which takes half a second
    except ImportError:
        return "--plot needs matplotlib: pip install 'holdfast[plot]'"
    return None


class Rehearsal:
    """One run of the command: its phases, and what it prints."""

    def __init__(
        self, plan: "LoadPlan", client: "HttpClient", connections: int, *, keep: bool, as_json: bool, plot: Path | None
    ) -> None:
        self._plan = plan
        self._client = client
        self._warm_connections = min(connections, _WARM_CONNECTIONS)
        self._keep = keep
        self._as_json = as_json
        self._plot = plot
        self._on_sale: list[int] = []
        """Ids of the products that were added and are not withdrawn."""

    async def run(self) -> int:
        """Do the rehearsal, and return the exit code. Raise CannotReadBack."""
        from service.ops.load.open_loop import OpenLoop
        from service.ops.load.shop import CannotReadBack, RehearsalShop

        async with self._client:
            shop = RehearsalShop(self._client, self._plan)
            self._on_sale = shop.product_ids
            await shop.check_ready()
            products = counted(self._plan.products, "product")
            self._say(
                f"Rehearsal {self._plan.run_id} on {self._client.base_url}: it adds {products} of its own, "
                "and buys no other. Its orders stay in the shop."
            )
            try:
                for position in range(self._plan.products):
                    await shop.add_product(position)
                await shop.open_connections(self._warm_connections)
            except CannotReadBack:
                await self._withdraw(shop)
                raise
            load = OpenLoop(self._plan, shop)
            await self._send_all(load)
            verdict = await self._read_back(load)
            self._print_report(load, verdict)
            code = self._draw(load)
            if not verdict.counts and not self._keep:  # otherwise the products are evidence
                await self._withdraw(shop)
            return {"good": code, "bad": FAILED, "none": INCONCLUSIVE}[verdict.word]

    def report_products(self) -> None:
        """Print which products of the rehearsal are still on sale."""
        if self._on_sale:
            some = ", ".join(map(str, self._on_sale[:20])) + (", ..." if len(self._on_sale) > 20 else "")
            self._say(
                f"Still on sale: {counted(len(self._on_sale), 'product')} of the rehearsal, {some}. "
                "DELETE /products/{id} withdraws them."
            )

    async def _send_all(self, load: "OpenLoop") -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.remove_signal_handler(signal.SIGINT)  # the next Ctrl-C ends the command at once
            self._say("The load ends early. Press Ctrl-C again to end without a verdict.")
            load.stop()

        loop.add_signal_handler(signal.SIGINT, stop)
        try:
            await self._send_with_progress(load)
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def _send_with_progress(self, load: "OpenLoop") -> None:
        with progress_bar(self._plan.expected_purchases, " orders") as bar:

            async def show(now: float) -> None:
                accepted, refused, p50, p99 = load.measured.live(now)
                bar.set_postfix_str(
                    f"accepted {accepted:,.0f}/s, refused {refused:,.0f}/s, "
                    f"p50 {p50 * 1000:,.1f} ms, p99 {p99 * 1000:,.1f} ms",
                    refresh=False,
                )
                bar.update(load.measured.sent - bar.n)
                if self._plot is not None:
                    load.measured.moment(now).stock = await load.shop.stock_left()

            await load.run(show)

    async def _read_back(self, load: "OpenLoop") -> "Verdict":
        from service.ops.load.readback import read_back, wait_for_holds
        from service.ops.load.shop import CannotReadBack

        try:
            await wait_for_holds(load.shop, self._plan.hold_seconds)
            with progress_bar(len(load.ledger), " orders", desc="read back") as bar:
                return await read_back(self._plan, load.shop, load.ledger, bar.update)
        except CannotReadBack as error:
            from service.ops.load.report import table_lines

            if not self._as_json:
                self._print(table_lines(self._plan, load.measured))
            self._draw(load)
            raise CannotReadBack(f"no verdict: {error}") from None

    def _print_report(self, load: "OpenLoop", verdict: "Verdict") -> None:
        from service.ops.load.report import as_dict, table_lines, verdict_lines

        if self._as_json:
            self._print([json.dumps(as_dict(self._plan, load.measured, verdict))])
        else:
            self._print(table_lines(self._plan, load.measured))
            self._print(verdict_lines(self._plan, load.measured, verdict))

    def _draw(self, load: "OpenLoop") -> int:
        if self._plot is None:
            return OK
        from service.ops.load.plot import draw

        try:
            draw(self._plan, load.measured, self._plot)
        except OSError as error:
            return fail(f"--plot: cannot write {str(self._plot)!r}: {error.strerror or error}", INCONCLUSIVE)
        return OK

    async def _withdraw(self, shop: "RehearsalShop") -> None:
        from service.ops.load.readback import withdraw_products
        from service.ops.load.shop import CannotReadBack

        try:
            await withdraw_products(shop)
            self._on_sale = []
        except CannotReadBack as error:
            fail(str(error))

    def _say(self, sentence: str) -> None:
        """Print a sentence for people. With --json, stdout is for the report only."""
        if self._as_json:
            with suppress(OSError):
                print(sentence, file=sys.stderr)
        else:
            self._print([sentence])

    def _print(self, lines: Iterable[str]) -> None:
        try:
            for line in lines:
                print(line)
            sys.stdout.flush()
        except BrokenPipeError:  # `holdfast load | head -1`: the exit code is still that of the verdict
            drop_output()
