"""Where the endpoint answers: its address, its port, the file that names it, and its end."""

import json
import pickle
import socket
import threading
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families as parse

from dynalign.actors.coordinator.exporter import serve
from dynalign.configs.errors import UserError
from tests.worlds.exported_run import (
    exporter,
    ledger,
    supervised,
    tell_all,
)

Scraped = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(address: tuple[str, int]) -> str:
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def values(address: tuple[str, int]) -> Scraped:
    """(name, sorted labels without `run`) → value; every sample carries the run's name."""
    found: Scraped = {}
    for family in parse(scrape(address)):
        for sample in family.samples:
            assert sample.labels.pop("run") == "synthetic"
            found[sample.name.removeprefix("dynalign_"), tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_a_free_port_is_found_through_the_target_file_until_the_run_ends_by_itself(tmp_path: Path) -> None:
    endpoint = exporter(tmp_path)
    address = endpoint.start()
    assert address is not None
    file = tmp_path / "runs" / "synthetic.prometheus.json"
    assert json.loads(file.read_text()) == [{"targets": [f"127.0.0.1:{address[1]}"]}]
    endpoint.close()
    assert not file.exists()
    with pytest.raises(OSError):  # noqa: PT011
        scrape(address)


def test_a_run_that_is_watched_ends_when_its_end_has_been_scraped(tmp_path: Path) -> None:
    """Whoever last saw it running would take it for killed."""
    endpoint = exporter(tmp_path)
    address = endpoint.start()
    assert address is not None
    endpoint.look("running", ledger(1), supervised())
    assert values(address)["run_state", (("state", "running"),)] == 1
    ending = threading.Thread(target=endpoint.close, args=["interrupted"])
    ending.start()
    ending.join(1.0)
    assert ending.is_alive()
    last = values(address)
    ending.join(10)
    assert not ending.is_alive()
    assert (last["run_state", (("state", "running"),)], last["run_state", (("state", "interrupted"),)]) == (
        0,
        1,
    )
    assert list((tmp_path / "runs").glob("*.json")) == []


def test_a_free_port_stays_the_same_when_a_coordinator_is_replaced(tmp_path: Path) -> None:
    """Another port would be another instance to Prometheus, whose counters begin anew."""
    died = exporter(tmp_path)
    first = died.start()
    assert first is not None
    died.end()
    replaced = exporter(tmp_path)
    second = replaced.start()
    replaced.close()
    assert second == first


def test_a_former_port_that_another_has_taken_is_given_up(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "synthetic.prometheus.json"
    endpoint = exporter(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        file.write_text(json.dumps([{"targets": [f"127.0.0.1:{taken}"]}]))
        started = endpoint.start()
    endpoint.end()
    assert started is not None
    assert started[1] != taken


@pytest.mark.parametrize("left", ["", "{", "[]", '[{"targets": []}]', '[{"targets": ["127.0.0.1:no"]}]'])
def test_a_target_file_that_says_nothing_is_written_anew(tmp_path: Path, left: str) -> None:
    endpoint = exporter(tmp_path)
    file = tmp_path / "runs" / "synthetic.prometheus.json"
    file.write_text(left)
    address = endpoint.start()
    assert address is not None
    assert json.loads(file.read_text()) == [{"targets": [f"127.0.0.1:{address[1]}"]}]
    endpoint.end()


def test_an_endpoint_on_all_addresses_is_named_by_that_of_its_node(tmp_path: Path) -> None:
    endpoint = exporter(tmp_path, metrics={"host": "0.0.0.0"})
    started = endpoint.start()
    endpoint.end()
    assert started is not None
    assert started[0] == "127.0.0.1"


def test_no_port_is_no_endpoint(tmp_path: Path) -> None:
    endpoint = exporter(tmp_path, metrics={"port": None})
    assert endpoint.start() is None
    tell_all(endpoint)
    endpoint.end()
    assert list((tmp_path / "runs").glob("*.json")) == []


def test_a_port_that_stays_taken_is_one_line_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError) as refused:
            serve("127.0.0.1", port, CollectorRegistry(), deadline_s=0.5)
    line = str(pickle.loads(pickle.dumps(refused.value)))
    assert line.startswith(f"metrics.port = {port}: is taken on 127.0.0.1; ")
    assert "metrics.port=0" in line
    assert "\n" not in line


def test_the_port_of_a_coordinator_that_has_just_died_is_waited_for() -> None:
    other = socket.create_server(("127.0.0.1", 0))
    threading.Timer(0.6, other.close).start()
    server, _ = serve("127.0.0.1", other.getsockname()[1], CollectorRegistry(), deadline_s=10)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host.invalid"])
def test_an_address_that_is_not_this_machines_is_one_line_with_the_remedy(tmp_path: Path, host: str) -> None:
    with pytest.raises(UserError, match=r"^metrics\.host = .*; set "):
        exporter(tmp_path, metrics={"host": host}).start()
