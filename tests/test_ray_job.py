"""What the entry point of a submitted Ray job knows about its job."""

import json

import pytest

from launch import ray_job


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    told = {"metadata": {"job_submission_id": "raysubmit_1", "job_name": "raysubmit_1"}, "runtime_env": {}}
    monkeypatch.setenv(ray_job.JOB_VARIABLE, json.dumps(told))
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


def test_a_job_that_ray_would_kill_before_its_checkpoint_says_how_to_submit_it(job: pytest.MonkeyPatch) -> None:
    warning = ray_job.stop_warning(120)
    assert warning is not None
    assert "3 s after" in warning
    assert """--runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "150"}}'""" in warning
    job.setenv(ray_job.STOP_WAIT_VARIABLE, "120")
    assert ray_job.stop_warning(120) is None
