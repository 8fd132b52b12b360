"""`holdfast load`: a rehearsal on a running service, its report, its exit codes, and when it does not begin."""

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cli.main import holdfast as holdfast_group
from service.cli.terminal import run
from tests.support.command_line import HoldfastCommand, assert_failed
from tests.support.faulty_shop import FaultyShop
from tests.support.processes import free_port, kill_processes_in
from tests.support.service_process import ServiceProcess
from tests.support.waiting import wait_until

SHORT = ("--rate", "100", "--duration", "0.3", "--hold", "0")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A running service with an embedded engine, for all tests of this module."""
    folder = tmp_path_factory.mktemp("service")
    service = ServiceProcess(folder, durability="none")
    service.wait_until_ready()
    yield service
    service.close()
    kill_processes_in(folder)


@pytest.fixture
def command(service: ServiceProcess, tmp_path: Path) -> HoldfastCommand:
    """`holdfast` whose settings name the port of the service."""
    return HoldfastCommand(tmp_path, HOLDFAST_PORT=str(service.port))


def rehearsal_products(service: ServiceProcess) -> list[dict[str, object]]:
    products = service.client.get("/products", params={"limit": 1000}).json()
    return [product for product in products if product["name"].startswith("Rehearsal")]


def test_a_rehearsal_sells_out_its_own_products_and_withdraws_them(
    service: ServiceProcess, command: HoldfastCommand
) -> None:
    real = service.add_product(stock=1000)
    options = ("--rate", "200", "--duration", "2", "--products", "3", "--stock", "50", "--limit", "5", "--buyers", "20")
    result = command("load", *options, "--retries", "--hold-seconds", "1", "--plot", "load.png", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["verdict"], report["findings"], report["failed"]) == ("good", {}, {})
    assert report["sent"] == 400
    assert set(report["refused"]) == {"insufficient-stock", "customer-limit"}
    assert report["accepted"] + sum(report["refused"].values()) == 400
    back = report["read_back"]
    assert (back["purchases"], back["acknowledged"], back["unknown"]) == (400, report["accepted"], 0)
    assert (back["held"], back["stock"] + back["sold"]) == (0, 150)
    assert report["sent_again"]["sent twice"] > 0
    assert report["replayed"] > 0
    assert set(report["pending"]) == {"completed", "cancelled", "left to expire"}
    assert sum(moment["accepted"] for moment in report["moments"]) == report["accepted"]
    assert report["moments"][1]["stock"] < 150
    assert (command.folder / "load.png").read_bytes().startswith(b"\x89PNG")
    assert rehearsal_products(service) == []
    assert service.stock(real) == 1000
    assert "it adds 3 products of its own, and buys no other" in result.stderr


def test_the_table_shows_numbers_latencies_and_verdict_and_products_can_be_kept(
    service: ServiceProcess, command: HoldfastCommand
) -> None:
    url = f"http://localhost:{service.port}"
    result = command("load", *SHORT, "--poisson", "--stock", "5", "--url", url, "--keep")
    assert (result.returncode, result.stderr) == (0, "")
    for words in ("sent ", "of 100/s, at random moments", "sold out ", "p99.9", "client's own delay", "Verdict: good."):
        assert words in result.stdout
    products = rehearsal_products(service)
    assert len(products) == 10
    assert f"Still on sale: 10 products of the rehearsal, {products[0]['id']}, " in result.stdout
    for product in products:
        service.client.delete(f"/products/{product['id']}")


def test_ctrl_c_ends_the_load_early_with_a_verdict(service: ServiceProcess, command: HoldfastCommand) -> None:
    with command.start("load", "--rate", "50", "--duration", "60", "--hold", "0") as process:
        wait_until(lambda: any(product["stock"] != 1000 for product in rehearsal_products(service)), "the first order")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (0, "")
    assert "The load ends early." in stdout
    assert stdout.endswith("Verdict: good.\n")
    assert rehearsal_products(service) == []


async def rehearse_on(shop: FaultyShop, command: HoldfastCommand, *options: str) -> tuple[int, str, str]:
    async with shop.serve() as url:
        result = await asyncio.to_thread(command, "load", "--url", url, *SHORT, *options)
    return result.returncode, result.stdout, result.stderr


async def test_a_bad_verdict_names_what_is_wrong_and_keeps_the_evidence(command: HoldfastCommand) -> None:
    shop = FaultyShop("loses orders")
    code, stdout, stderr = await rehearse_on(shop, command)
    assert (code, stderr) == (1, "")
    assert "lost orders   30 FINDINGS" in stdout
    assert stdout.count("lost or changed order: the order ") == 20
    assert "lost or changed order: 10 more" in stdout
    assert "Verdict: BAD." in stdout
    assert "Still on sale: 10 products" in stdout
    assert shop.withdrawn == set()


async def test_a_result_that_cannot_be_read_back_is_no_verdict(command: HoldfastCommand) -> None:
    code, stdout, stderr = await rehearse_on(FaultyShop("shows no orders"), command)
    assert code == 3
    assert "accepted      30\n" in stdout
    assert "Verdict" not in stdout
    assert stderr.startswith("holdfast: no verdict: GET /orders?reference=rehearsal-")
    assert stderr.endswith("was answered with status 404, not-found\n")
    code, stdout, _ = await rehearse_on(FaultyShop("redirects"), command, "--json")
    assert (code, json.loads(stdout)["verdict"]) == (3, None)


def test_without_a_service_nothing_begins(tmp_path: Path) -> None:
    command = HoldfastCommand(tmp_path, HOLDFAST_PORT=str(free_port()))
    assert_failed(command("load"), 3, "GET /readyz: cannot connect: ")
    result = command("load", "--json")
    assert result.returncode == 3
    assert json.loads(result.stdout)["verdict"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--url", "http://192.0.2.1:8000"), 2, "192.0.2.1 is not this machine"),
        (("--plot", "load.txt"), 3, "'load.txt' must end with .png, .svg or .pdf"),
        (("--plot", "missing/load.png"), 3, "cannot write 'missing/load.png'"),
    ],
)
def test_what_cannot_work_is_reported_before_the_load(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert_failed(HoldfastCommand(tmp_path)("load", *arguments), code, message)


def test_without_matplotlib_a_plot_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "service.ops.load.plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(holdfast_group, ["load", "--plot", "load.png"]) == 3
    assert capsys.readouterr().err == "holdfast: --plot needs matplotlib: pip install 'holdfast[plot]'\n"


def test_a_rehearsal_sends_the_key_of_the_environment_and_never_shows_it(tmp_path: Path) -> None:
    made = HoldfastCommand(tmp_path)(
        "key", "new", "load", "--scopes", "catalog:read,catalog:write,orders:read,orders:write"
    )
    service = ServiceProcess(tmp_path, durability="none", api_keys=made.stderr.strip())
    try:
        service.wait_until_ready()
        port, secret = str(service.port), made.stdout.strip()
        refused = HoldfastCommand(tmp_path, HOLDFAST_PORT=port)("load", *SHORT)
        assert refused.returncode == 3
        assert "set HOLDFAST_API_KEY to a key of the service" in refused.stderr
        done = HoldfastCommand(tmp_path, HOLDFAST_PORT=port, HOLDFAST_API_KEY=secret)("load", *SHORT)
        assert done.returncode == 0, done.stderr
        assert secret not in done.stdout + done.stderr + service.stderr
    finally:
        service.close()
        kill_processes_in(tmp_path)
