"""What the entry point of a submitted Ray job knows about its job."""

import json
import os

import pytest

from dynalign.launch.ray_cluster import ray_job


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    config = {"metadata": {"job_submission_id": "raysubmit_1", "job_name": "raysubmit_1"}, "runtime_env": {}}
    monkeypatch.setenv(ray_job.JOB_VARIABLE, json.dumps(config))
    monkeypatch.delenv(ray_job.STOP_WAIT_VARIABLE, raising=False)
    return monkeypatch


def test_names_and_the_default_are_ray_s_own() -> None:
    constants = pytest.importorskip("ray._private.runtime_env.constants")
    assert constants.RAY_JOB_CONFIG_JSON_ENV_VAR == ray_job.JOB_VARIABLE
    common = pytest.importorskip("ray.dashboard.modules.job.common")
    assert common.JOB_ID_METADATA_KEY == "job_submission_id"
    supervisor = pytest.importorskip("ray.dashboard.modules.job.job_supervisor")
    assert supervisor.JobSupervisor.DEFAULT_RAY_JOB_STOP_WAIT_TIME_S == ray_job.STOP_WAIT_S


def test_outside_a_job_there_is_no_id_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ray_job.JOB_VARIABLE, raising=False)
    assert not ray_job.inside()
    assert ray_job.submission_id() == ""
    assert ray_job.stop_warning(120) is None


def test_a_job_knows_its_id(job: pytest.MonkeyPatch) -> None:
    assert ray_job.inside()
    assert ray_job.submission_id() == "raysubmit_1"


def test_a_job_that_ray_would_kill_before_its_checkpoint_says_how_to_submit_it(
    job: pytest.MonkeyPatch,
) -> None:
    warning = ray_job.stop_warning(120)
    assert warning is not None
    assert "3 s after" in warning
    assert """--runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "150"}}'""" in warning
    job.setenv(ray_job.STOP_WAIT_VARIABLE, "120")
    assert ray_job.stop_warning(120) is None


def test_a_job_s_log_takes_our_lines_and_the_cluster_s_and_leaves_the_libraries_to_the_actors_own(
    job: pytest.MonkeyPatch,
) -> None:
    constants = pytest.importorskip("ray._private.ray_constants")
    logging = pytest.importorskip("ray._private.ray_logging")
    filters = ("RAY_DEDUP_LOGS_ALLOW_REGEX", "RAY_DEDUP_LOGS_SKIP_REGEX")
    for variable in filters:
        assert hasattr(constants, variable)
        job.setenv(variable, "")  # so that it is as before when the test has ended
        job.delenv(variable)
    ray_job.show_own_lines_only()
    ours = [
        f"2026-01-31 12:00:00,000 INFO run=mine actor=rollout-{index} "
        "version=1.2 actors.logs: on host, process 7"
        for index in (0, 1)
    ]
    ours += [
        "Adding 2 node(s) of type rollout.",
        "Resized to 9 CPUs, 2 GPUs.",
        "No available node types can fulfill cluster constraint: {}",
    ]
    ours.append(
        "2 Workers (tasks / actors) killed due to memory pressure (OOM), "
        "0 Workers crashed due to other reasons at node"
    )
    printed = [
        "(EngineCore pid=1) WARNING 01-31 12:00:00 [cpu.py:224] no Triton",
        "",
        *ours,
        "Loading safetensors shards: 100%",
    ]
    log = logging.LogDeduplicator(5, *(os.environ[variable] for variable in filters))
    assert [
        line
        for batch in log.deduplicate({"ip": "1", "pid": "1", "lines": printed})
        for line in batch["lines"]
    ] == ours


def test_a_filter_that_is_set_stays_and_outside_a_job_none_is(job: pytest.MonkeyPatch) -> None:
    job.setenv("RAY_DEDUP_LOGS_SKIP_REGEX", "noise")
    job.setenv("RAY_DEDUP_LOGS_ALLOW_REGEX", "")
    ray_job.show_own_lines_only()
    assert os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] == "noise"
    job.delenv(ray_job.JOB_VARIABLE)
    job.delenv("RAY_DEDUP_LOGS_SKIP_REGEX")
    ray_job.show_own_lines_only()
    assert "RAY_DEDUP_LOGS_SKIP_REGEX" not in os.environ
