"""`holdfast audit`."""

import json
import sys
from typing import TYPE_CHECKING, Final

import click

from service.cli.shop import count_keys, explain_missing_shop, run_on_shop, shop_option
from service.cli.terminal import FAILED, OK, counted, drop_output, fail, printable, progress_bar
from service.settings import read_settings

if TYPE_CHECKING:
    from service.ops.audit_report import Report
    from service.storage.partitioned import AnyStore

INCONCLUSIVE: Final = 3
"""Exit code of an audit that could not finish."""


@click.command("audit")
@shop_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_obj
def command(options: dict[str, str], as_json: bool) -> int:
    """Check that stock numbers and orders agree.

    The service may run meanwhile. Exit code 0: they agree; 1: there are findings, which are printed; 3: the audit
    could not finish.
    """
    settings = read_settings(options)

    async def work(store: "AnyStore") -> int:
        from service.ops.audit_partitions import audit_whole_shop
        from service.ops.audit_report import AuditInconclusive

        if reason := await explain_missing_shop(store, settings.shop):
            return failed(reason)
        try:
            with progress_bar(await count_keys(store), " keys") as bar:
                report = await audit_whole_shop(store, settings.shop, bar.update)
        except AuditInconclusive as error:
            return failed(str(error))
        try:
            if as_json:
                print(json.dumps(report.as_dict()))
            else:
                _print_report(report)
            sys.stdout.flush()
        except BrokenPipeError:  # `holdfast audit | head -1`: the exit code is still that of the verdict
            drop_output()
        except OSError as error:  # the disk is full, for example
            drop_output()
            return failed(str(error))
        return OK if report.balanced else FAILED

    def failed(reason: str) -> int:
        if as_json:
            try:
                print(json.dumps({"balanced": None, "reason": reason}), flush=True)
            except OSError:  # the reason may be that the output cannot be written
                drop_output()
        return fail(f"the audit could not finish: {reason}", INCONCLUSIVE)

    return run_on_shop(settings, work, failed=failed)


def _print_report(report: "Report") -> None:
    products, orders = counted(report.products, "product"), counted(report.orders, "order")
    archived = f" {counted(report.archived, 'archived order')}." if report.archived else ""
    print(f"{products}, {orders}, {report.pending:,} of them pending.{archived}")
    for finding in report.findings:
        print(printable(f"{finding.key} {finding.what}"))
    if report.balanced:
        print("Stock numbers and orders agree.")
    else:
        print(f"{counted(len(report.findings), 'finding')}.")
