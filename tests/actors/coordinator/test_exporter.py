"""The Prometheus endpoint: one table, no false zeros, a port that is found, and a refusal in one line."""

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from dynalign.actors.coordinator.exported_metrics import EXPORTED
from dynalign.actors.coordinator.exporter import Exporter
from tests.worlds.exported_run import (
    exporter,
    ledger,
    settings,
    supervised,
    tell_all,
    tell_start,
    tell_step,
    whole_row,
    worker,
)
from tests.worlds.prometheus_tools import tool

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


def names(scraped: Scraped) -> set[str]:
    return {name for name, _ in scraped}


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[tuple[Exporter, tuple[str, int]]]:
    endpoint = exporter(tmp_path)
    address = endpoint.start()
    assert address is not None
    yield endpoint, address
    endpoint.end()


def test_names_follow_the_conventions_and_stand_once() -> None:
    assert len({each.name for each in EXPORTED}) == len(EXPORTED)
    for each in EXPORTED:
        assert re.fullmatch(r"dynalign_[a-z][a-z0-9_]*", each.full_name)
        assert not re.search(r"_(s|ms|mib|gib|percent)(_total)?$", each.full_name), (
            f"{each.full_name} is not in base units"
        )
        assert (each.unit in ("seconds", "Unix seconds")) == ("_seconds" in each.full_name), each.full_name
        assert ("bytes" in each.unit) == ("_bytes" in each.full_name), each.full_name
        assert each.full_name.endswith("_total") == (each.kind == "counter")
        assert each.help[0].isupper() or each.help.startswith("1 ") or each.help.startswith("issued")
        assert each.help.endswith(".")
        assert "run" not in each.labels


def test_a_run_that_has_told_everything_exports_every_name(
    exported: tuple[Exporter, tuple[str, int]],
) -> None:
    endpoint, address = exported
    tell_all(endpoint, steps=5)
    told = {
        re.sub("_(bucket|count|sum)$", "", name) if "staleness" in name else name
        for name in names(values(address))
    }
    assert told == {each.full_name.removeprefix("dynalign_") for each in EXPORTED}


def test_promtool_finds_nothing_to_say_about_names_types_and_help(
    exported: tuple[Exporter, tuple[str, int]],
) -> None:
    endpoint, address = exported
    tell_all(endpoint, steps=5)
    said = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=scrape(address),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_what_nobody_has_told_is_absent_and_never_zero(exported: tuple[Exporter, tuple[str, int]]) -> None:
    endpoint, address = exported
    fresh = names(values(address))
    assert not fresh & {
        "step",
        "groups_issued_total",
        "workers",
        "restarts_total",
        "reward_mean",
        "last_step_timestamp_seconds",
        "learn_seconds",
    }
    tell_start(endpoint)
    started = values(address)
    assert not names(started) & {
        "reward_mean",
        "loss",
        "step_seconds",
        "learner_wait_fraction",
        "time_to_first_step_seconds",
        "checkpoint_step",
    }
    assert started["heldout_reward_mean", ()] == 1.5
    assert started["step", ()] == 0


def test_the_laws_terms_add_up_in_one_scrape(exported: tuple[Exporter, tuple[str, int]]) -> None:
    endpoint, address = exported
    tell_all(endpoint)
    told = values(address)
    withheld = sum(value for (name, _), value in told.items() if name == "groups_withheld_total")
    in_flight = sum(told[f"groups_{state}", ()] for state in ("pending", "leased", "scored"))
    assert told["groups_issued_total", ()] == in_flight + told["groups_trained_total", ()] + withheld
    assert (
        told["groups_withheld_total", (("reason", "unparsed"),)] == 0
    )  # so that the first one is an increase


def test_a_groups_age_at_its_commit_is_a_histogram_up_to_the_bound(tmp_path: Path) -> None:
    endpoint = exporter(tmp_path, algorithm={"max_staleness": 3})
    address = endpoint.start()
    assert address is not None
    endpoint.trained([0, 0, 1, 3])
    endpoint.trained([2])
    told = values(address)
    endpoint.end()
    buckets = {
        bound: told["group_staleness_bucket", (("le", bound),)]
        for bound in ("0.0", "1.0", "2.0", "3.0", "+Inf")
    }
    assert buckets == {"0.0": 2, "1.0": 3, "2.0": 4, "3.0": 5, "+Inf": 5}
    assert (told["group_staleness_count", ()], told["group_staleness_sum", ()]) == (5, 6)


def test_a_held_out_figure_stays_until_the_next_evaluation_and_any_other_goes_with_its_row(
    exported: tuple[Exporter, tuple[str, int]],
) -> None:
    endpoint, address = exported
    tell_start(endpoint)
    tell_step(endpoint, 5)
    tell_step(endpoint, 6)
    assert values(address)["heldout_reward_mean", ()] == 1.7
    endpoint.row(whole_row(7, judge_noise_std=None, capability_change=None))
    assert "judge_noise_std" not in names(values(address))
    assert values(address)["capability_change", ()] == -0.01


def test_workers_restarts_and_sizing_are_counted_by_state_cause_and_reason(
    exported: tuple[Exporter, tuple[str, int]],
) -> None:
    endpoint, address = exported
    endpoint.look("running", ledger(1), supervised(wanted=1))
    crowd = [worker(), worker("rollout-1", "placing"), worker("rollout-2.2", "starting")]
    endpoint.look(
        "running",
        ledger(1),
        supervised(workers=crowd, wanted=3, why_wanted="the learner starves: waited 31%, workers idled 2%"),
    )
    endpoint.look(
        "running",
        ledger(1),
        supervised(workers=crowd, wanted=2, why_wanted="dynalign scale", restarts={"learner/hung": 2}),
    )
    told = values(address)
    assert told["autosize_decisions_total", (("direction", "up"), ("reason", "the learner starves"))] == 1
    assert told["autosize_decisions_total", (("direction", "down"), ("reason", "dynalign scale"))] == 1
    states = {
        state: told["workers", (("state", state),)]
        for state in ("waiting", "placing", "starting", "serving", "draining")
    }
    assert states == {"waiting": 0, "placing": 1, "starting": 1, "serving": 1, "draining": 0}
    assert told["restarts_total", (("cause", "hung"), ("kind", "learner"))] == 2
    assert told["restarts_total", (("cause", "died"), ("kind", "worker"))] == 0


def test_times_are_unix_seconds_and_counted_from_the_start(tmp_path: Path) -> None:
    now_s = iter([1000.0, 1060.0, 1090.0])
    (tmp_path / "synthetic").mkdir()
    endpoint = Exporter(settings(), tmp_path / "synthetic", 1, "127.0.0.1", clock=now_s.__next__)
    address = endpoint.start()
    assert address is not None
    endpoint.trained([])  # the figures before the first step
    endpoint.trained([0])
    endpoint.trained([0])
    told = values(address)
    endpoint.end()
    assert told["run_started_timestamp_seconds", ()] == 1000
    assert told["time_to_first_step_seconds", ()] == 60
    assert told["last_step_timestamp_seconds", ()] == 1090


def test_a_commit_is_stamped_before_the_checkpoint_and_the_evaluation_that_follow_it(tmp_path: Path) -> None:
    now_s = iter([1000.0, 1001.0, 1030.0, 1031.0, 1090.0])
    (tmp_path / "synthetic").mkdir()
    endpoint = Exporter(settings(), tmp_path / "synthetic", 1, "127.0.0.1", clock=now_s.__next__)
    address = endpoint.start()
    assert address is not None
    for committed in (4, 5, 5):  # resumed at step 4, which is no step of this coordinator
        endpoint.look("running", ledger(committed), supervised())
    endpoint.trained([0])
    told = values(address)
    assert (told["last_step_timestamp_seconds", ()], told["time_to_first_step_seconds", ()]) == (1030, 30)
    endpoint.trained([0])  # a step that nobody looked at before its row
    assert values(address)["last_step_timestamp_seconds", ()] == 1090
    endpoint.end()


def test_a_checkpoint_is_never_ahead_of_the_step_that_is_told_with_it(
    exported: tuple[Exporter, tuple[str, int]],
) -> None:
    endpoint, address = exported
    endpoint.look("running", ledger(2), supervised())
    endpoint.checkpointed(3)
    told = values(address)
    assert (told["step", ()], told["policy_version", ()]) == (3, 2)
    endpoint.row(whole_row(4))
    assert values(address)["step", ()] == 4


def test_a_pool_that_is_emptied_because_the_run_ends_is_no_decision_about_its_size(
    exported: tuple[Exporter, tuple[str, int]],
) -> None:
    endpoint, address = exported
    endpoint.look("running", ledger(1), supervised(wanted=2))
    endpoint.look("running", ledger(1), supervised(wanted=0))
    assert "autosize_decisions_total" not in names(values(address))


def test_gpu_seconds_per_group_are_the_gpus_held_times_the_steps_wall_time(tmp_path: Path) -> None:
    endpoint = exporter(tmp_path, placement={"device": "gpu"})
    address = endpoint.start()
    assert address is not None
    endpoint.look("running", ledger(0), supervised())
    endpoint.row(whole_row(1, step_s=10.0))
    endpoint.row(whole_row(2, step_s=10.0))
    assert "gpus_reserved" not in names(values(address))  # nobody has said how many
    assert "gpu_seconds_per_trained_group" not in names(values(address))
    endpoint.look("running", ledger(2), supervised(gpus=6.0))
    endpoint.row(whole_row(3, step_s=10.0))
    assert values(address)["gpu_seconds_per_trained_group", ()] == 15
    endpoint.end()
