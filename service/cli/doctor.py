"""`holdfast doctor`."""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import click

from service.cli.shop import engine_url
from service.cli.terminal import FAILED, OK, drop_output, fail, run_and_handle_errors
from service.environment import colours_wanted
from service.partition_url import partition_url
from service.settings import Settings, ignored_variables, read_settings

if TYPE_CHECKING:
    from service.ops.doctor_finding import Finding
    from service.storage.addresses import Address

UNREACHABLE: Final = 3
"""Exit code if Redis could not be examined."""

_COLOURS: Final = {"ok": "green", "note": "yellow", "bad": "red"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--write-test", is_flag=True, help="Also measure writes, with one key that is removed again.")
@click.pass_obj
def command(options: dict[str, str], as_json: bool, write_test: bool) -> int:
    """Examine the Redis that Holdfast is given, and say what to mend.

    It also examines a Redis that `holdfast serve` refuses to use. Nothing is written without --write-test. Exit code 0:
    all is well, apart from notes; 1: something must be mended; 3: Redis could not be examined.
    """
    settings = read_settings(options)
    for sentence in ignored_variables():
        fail(sentence)

    def work() -> int:
        from service.engine.data_dir import EngineError

        try:
            with engine_url(settings, creates_data=False) as url:
                findings, code = asyncio.run(_examine(settings, url, write_test=write_test))
        except EngineError as error:
            return fail(str(error), UNREACHABLE)
        try:
            _print(findings, as_json=as_json)
            sys.stdout.flush()
        except BrokenPipeError:  # `holdfast doctor | head -1`: the exit code is still that of the verdict
            drop_output()
        return code

    return run_and_handle_errors(work)


async def _examine(settings: Settings, url: str, *, write_test: bool) -> "tuple[list[Finding], int]":
    from service.domain.errors.storage import UnsupportedRedis
    from service.ops.doctor import unreachable
    from service.ops.doctor_finding import Finding
    from service.storage.cluster_topology import is_cluster_url

    try:
        if is_cluster_url(url):
            findings = await _examine_cluster(settings, url, write_test=write_test)
        elif settings.partitions > 1:
            findings = await _examine_partitions(settings, url, _first_shop(settings), write_test)
        else:
            findings = await _examine_shop(settings, url, _first_shop(settings), write_test)
    except UnsupportedRedis as error:
        return [Finding("bad", "connection", f"{error.reason[0].upper()}{error.reason[1:]}.")], UNREACHABLE
    except OSError as error:
        return [unreachable(str(error), settings)], UNREACHABLE
    return findings, FAILED if any(finding.mark == "bad" for finding in findings) else OK


def _first_shop(settings: Settings) -> str:
    return settings.root_shop or (*settings.all_shops, settings.shop)[0]


async def _examine_shop(
    settings: Settings,
    url: str,
    shop: str,
    write_test: bool,
    node: "Address | None" = None,
    was_begun: bool = False,
) -> "list[Finding]":
    from service.ops.doctor import examine
    from service.storage import keys
    from service.storage.diagnosis import diagnose
    from service.storage.requirements import lost_data

    found = await diagnose(
        url,
        timeout_seconds=settings.redis_timeout,
        shop=shop,
        write_test=write_test,
        waits_for_replicas=settings.wait_replicas > 0,
        node=node,
    )
    if was_begun:
        found = found._replace(lost=lost_data(keys.meta(shop)))
    prefix = _redis_cli(url) if node is None else f"redis-cli -h {node.host} -p {node.port}"
    return examine(found, replace(settings, shop=shop), prefix)


async def _examine_partitions(settings: Settings, url: str, shop: str, write_test: bool) -> "list[Finding]":
    """Examine the Redis of each partition. What is good in all of them is said once."""
    from service.ops.doctor import unreachable
    from service.ops.doctor_finding import Finding
    from service.storage import keys
    from service.storage.diagnosis import read_hash
    from service.storage.shop_mark import begun_field

    mark: Mapping[str, str] | None = None
    with suppress(OSError):
        first = partition_url(url, 0)
        mark = await read_hash(first, keys.meta(shop), timeout_seconds=settings.redis_timeout)
    kind = "an embedded engine" if settings.redis_url is None else "a Redis"
    findings = [Finding("ok", "partitions", f"{settings.partitions} partitions, each on {kind} of its own.")]
    has_data = False
    for number in range(settings.partitions):
        try:
            name = keys.partition(shop, number)
            was_begun = begun_field(number) in (mark or {})
            about = await _examine_shop(settings, partition_url(url, number), name, write_test, was_begun=was_begun)
        except OSError as error:
            about = [unreachable(str(error), settings)]
        has_data = has_data or _has_data(about)
        findings += [
            finding._replace(sentence=f"Partition {number}: {finding.sentence}")
            for finding in about
            if number == 0 or finding.mark != "ok"
        ]
    places = {number: (partition_url(url, number), None) for number in range(settings.partitions)}
    return findings + _lost_mark(mark, has_data, shop) + await _find_older(settings, shop, places)


def _has_data(about: "list[Finding]") -> bool:
    return any(finding.name == "layout" and finding.mark == "ok" for finding in about)


def _lost_mark(mark: Mapping[str, str] | None, has_data: bool, shop: str) -> "list[Finding]":
    """Return what is wrong if partitions have data, but the mark of the shop is empty. None: it could not be read."""
    from service.ops.doctor_finding import Finding
    from service.storage import keys
    from service.storage.requirements import lost_data

    if mark is None or mark or not has_data:
        return []
    return [Finding("bad", "layout", f"Partition 0: {lost_data(keys.meta(shop))}.")]


async def _examine_cluster(settings: Settings, url: str, *, write_test: bool) -> "list[Finding]":
    """Examine the cluster as a whole, and then the node of each shop, or of each partition.

    What is good on the nodes of all partitions is said once.
    """
    from service.ops.doctor import unreachable
    from service.ops.doctor_cluster import examine_cluster, parts_of
    from service.storage import keys
    from service.storage.cluster_diagnosis import diagnose_cluster
    from service.storage.diagnosis import read_hash
    from service.storage.shop_mark import begun_field

    cluster = await diagnose_cluster(url, timeout_seconds=settings.redis_timeout)
    findings = examine_cluster(cluster, settings)
    mark: Mapping[str, str] | None = None
    shop = _first_shop(settings)
    if settings.partitions > 1 and (home := cluster.home(shop)) is not None:
        with suppress(OSError):
            mark = await read_hash(url, keys.meta(shop), timeout_seconds=settings.redis_timeout, node=home)
    has_data = False
    for number, name in enumerate(parts_of(settings)):
        if (node := cluster.home(name)) is not None:
            try:
                was_begun = begun_field(number) in (mark or {})
                about = await _examine_shop(settings, url, name, write_test, node, was_begun)
            except OSError as error:
                about = [unreachable(str(error), settings)]
            has_data = has_data or _has_data(about)
            findings += [
                finding._replace(sentence=f"{name}: {finding.sentence}")
                for finding in about
                if settings.partitions == 1 or number == 0 or finding.mark != "ok"
            ]
    parts = enumerate(parts_of(settings))
    places = {number: (url, node) for number, name in parts if (node := cluster.home(name)) is not None}
    return findings + _lost_mark(mark, has_data, shop) + await _find_older(settings, shop, places)


async def _find_older(
    settings: Settings, shop: str, places: "Mapping[int, tuple[str, Address | None]]"
) -> "list[Finding]":
    """Return the partitions whose data are older than what another one took in from them. `places`: URL and node."""
    from service.ops.doctor_finding import Finding
    from service.storage import keys
    from service.storage.diagnosis import read_hash
    from service.storage.requirements import LAYOUT_FIELD

    async def read(number: int, key: Callable[[str], str]) -> dict[str, str]:
        url, node = places[number]
        try:
            name = key(keys.partition(shop, number))
            return await read_hash(url, name, timeout_seconds=settings.redis_timeout, node=node)
        except OSError:
            return {}  # another finding says so

    if settings.partitions == 1:
        return []
    taken = {number: await read(number, keys.taken) for number in places}
    # Read behind all others: what was taken in was given before.
    sent = {number: await read(number, keys.sent) for number in places if LAYOUT_FIELD in await read(number, keys.meta)}
    return [
        Finding(
            "bad",
            "transfers",
            f"Partition {source}: its data are older than those of the others. Partition {to} has taken in "
            f"transfer {last} from it, but the last that partition {source} gave is "
            f"{sent[source].get(str(to), 'none')}.",
            ("holdfast audit   # and see docs/scale.md#what-the-audit-finds",),
        )
        for to, marks in taken.items()
        for source in sent
        if (last := marks.get(str(source), "")).isdecimal() and int(last) > int(sent[source].get(str(to), 0))
    ]


def _redis_cli(url: str) -> str:
    """Return the beginning of a redis-cli command for this Redis, without user and password."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"redis-cli -s {quote(unquote(parts.path))}"
    if parts.scheme.endswith("+sentinel"):
        return f"redis-cli{' --tls' if parts.scheme == 'rediss+sentinel' else ''} -h PRIMARY"
    with suppress(ValueError):
        tls = " --tls" if parts.scheme == "rediss" else ""
        where = "" if parts.hostname in (None, "localhost", "127.0.0.1") else f" -h {parts.hostname}"
        return f"redis-cli{tls}{where}" + (f" -p {parts.port}" if parts.port not in (None, 6379) else "")
    return "redis-cli"


def _print(findings: "list[Finding]", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings]))
        return
    coloured = sys.stdout.isatty() and colours_wanted()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = f"{finding.mark:4}"
        mark = click.style(mark, _COLOURS[finding.mark]) if coloured else mark
        print(f"{mark}  {finding.name:{width}}  {finding.sentence}")
        for text in (*finding.lines, *finding.commands):
            print(f"{'':{width + 8}}{text}")
    counts = {mark: sum(finding.mark == mark for finding in findings) for mark in _COLOURS}
    print(f"{counts['ok']} ok, {counts['note']} to note, {counts['bad']} to mend.")
