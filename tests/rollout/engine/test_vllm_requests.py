"""What vLLM is asked for: its parameters of each kind of request."""

import pytest

pytest.importorskip("vllm")

from dynalign.rollout.engine.base import EngineRequest
from dynalign.rollout.engine.vllm_requests import sampling_params


def test_a_completion_ends_at_the_added_end_tokens_too() -> None:
    params = sampling_params(EngineRequest((1, 2), max_tokens=24, seed=3, stop_ids=(258,)))
    assert params.stop_token_ids == [258]
    assert sampling_params(EngineRequest((1, 2), max_tokens=24, seed=3)).stop_token_ids == []


def test_a_completion_is_sampled_at_the_request_s_temperature_which_is_1_unless_it_says_so() -> None:
    assert sampling_params(EngineRequest((1, 2), max_tokens=24)).temperature == 1.0
    assert sampling_params(EngineRequest((1, 2), max_tokens=24, temperature=0.7)).temperature == 0.7
    assert sampling_params(EngineRequest((1, 2), max_tokens=24, temperature=0.0)).temperature == 0.0
