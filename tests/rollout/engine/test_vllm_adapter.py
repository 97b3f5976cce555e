"""Adapter versions in the real engine: released weights plus the newest adapter, every token stamped."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dynalign.configs.errors import EngineError, WeightsError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.learner import LearnerSettings, LoraSettings
from dynalign.learner.policy import Policy, load_policy
from dynalign.rollout.contexts import load_contexts
from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.weights.version import travelling_adapter
from dynalign.rollout.weights.version_file import write_adapter
from tests.worlds.chat_models import ARCHITECTURES, in_mxfp4, tiny_chat_model
from tests.worlds.live_engine import TOLERANCE_NATS, LiveEngine, live_engine, log_softmax, mismatch_nats

pytestmark = pytest.mark.e2e

LORA = LoraSettings(rank=12, alpha=18.0, targets=("q_proj", "v_proj", "o_proj"))
RUN = RunSettings.model_validate(
    {"name": "r", "model": "m", "learner": {"lora": LORA}, "weights": {"content": "adapter"}}
)
ADAPTER = travelling_adapter(RUN)


@pytest.fixture(scope="module", params=["llama", "qwen3-moe", "gpt-oss", "gpt-oss in mxfp4"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    architecture, _, released = request.param.partition(" in ")
    folder = tiny_chat_model(tmp_path_factory.mktemp("model"), **ARCHITECTURES[architecture])
    if released:
        if not (torch.cuda.is_available() or torch.cpu._is_amx_tile_supported()):
            pytest.skip("vLLM computes mxfp4 experts on GPUs, and on CPUs with AMX only")
        in_mxfp4(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # for `held`
        with live_engine(folder, ADAPTER) as engine:
            yield engine


def trained(folder: Path, seed: int) -> Policy:
    """A policy whose adapters are far from where they began."""
    policy = load_policy(folder, LearnerSettings(lora=LORA), torch.bfloat16, 0, "adapter")
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    return policy


def factors(policy: Policy) -> dict[str, torch.Tensor]:
    return {weight.name: weight.value() for weight in policy.adapter_weights()}


def by_peft(folder: Path, policy: Policy, aside: Path) -> PeftModel:
    """transformers and peft on the released weights and the adapter's folder."""
    assert ADAPTER is not None
    write_adapter(aside, ADAPTER, factors(policy))
    released = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return PeftModel.from_pretrained(released, aside)


def context(live: LiveEngine, prompt: str) -> tuple[int, ...]:
    return load_contexts(live.folder, "Be kind.", "2026-01-01").sampling_context(prompt)


def test_an_engine_begins_with_the_weights_as_released(live: LiveEngine) -> None:
    ids = context(live, "Before any version")
    (result,) = live.ask(EngineRequest(ids, max_tokens=20, seed=1))
    released = AutoModelForCausalLM.from_pretrained(live.folder, dtype=torch.bfloat16)
    assert mismatch_nats(released, ids, result) < TOLERANCE_NATS
    assert [span.version for span in result.spans] == [0]


def test_what_is_generated_and_judged_is_what_peft_computes_under_the_pushed_adapter(
    live: LiveEngine, tmp_path: Path
) -> None:
    contexts = load_contexts(live.folder, "Be kind.", "2026-01-01")
    ids, digits = contexts.sampling_context("A prefix that is cached " * 6), contexts.digit_ids()
    (before,) = live.ask(EngineRequest(ids, choice_ids=digits))
    for seed in (1, 2):  # the second replaces the first
        policy = trained(live.folder, seed)
        live.load(factors(policy).items())
        reference = by_peft(live.folder, policy, tmp_path)
        verdict, sampled, greedy = live.ask(
            EngineRequest(ids, choice_ids=digits),
            EngineRequest(ids, max_tokens=20, seed=seed),
            EngineRequest(ids + digits, prefill_from=len(ids)),
        )
        expected_6 = log_softmax(reference, ids)[-1][list(digits)]
        assert np.abs(expected_6 - np.array(before.choice_logprobs)).max() > 10 * TOLERANCE_NATS
        assert np.abs(expected_6 - np.array(verdict.choice_logprobs)).max() < 3 * TOLERANCE_NATS
        # Factors this large make bfloat16 coarser.
        assert mismatch_nats(reference, ids, sampled) < 2 * TOLERANCE_NATS
        rows = log_softmax(reference, ids + digits)[len(ids) - 1 : -1]
        taken = [row[token] for row, token in zip(rows, digits, strict=True)]
        assert np.abs(np.array(taken) - greedy.prefill_logprobs_T).mean() < 2 * TOLERANCE_NATS
        assert {span.version for result in (verdict, sampled) for span in result.spans} == {live.step}
        before = verdict


def test_sequences_in_flight_go_on_under_the_new_adapter(live: LiveEngine, tmp_path: Path) -> None:
    ids, old, new = context(live, "In flight"), trained(live.folder, 3), trained(live.folder, 4)
    live.load(factors(old).items())
    reference = by_peft(live.folder, old, tmp_path)
    version = live.version(factors(new).items())

    async def loaded_under_way() -> list[EngineResult]:
        flying = [
            asyncio.create_task(live.engine.generate(EngineRequest(ids, max_tokens=300, seed=seed)))
            for seed in range(6)
        ]
        await asyncio.sleep(0.5)
        await live.engine.load_weights(*version)
        return list(await asyncio.gather(*flying))

    switched = [result for result in live.run(loaded_under_way()) if len(result.spans) == 2]
    assert switched
    for result in switched:
        before, after = result.spans
        assert (before.version, after.version, after.end) == (live.step - 1, live.step, len(result.token_ids))
        expected = log_softmax(reference, ids + result.token_ids)[len(ids) - 1 : -1]
        triples = zip(expected, result.token_ids, result.logprobs_T, strict=True)
        apart_T = np.abs([row[token] - mine for row, token, mine in triples])
        assert apart_T[: before.end].mean() < TOLERANCE_NATS
        assert apart_T[after.start :].mean() > 10 * TOLERANCE_NATS


def test_the_weights_stay_as_released_under_every_adapter(live: LiveEngine) -> None:
    before = live.held()
    live.load(factors(trained(live.folder, 6)).items())
    assert live.held() == before
    assert len(before) > 10


def test_an_adapter_weighs_a_fraction_of_the_model(live: LiveEngine) -> None:
    policy = trained(live.folder, 5)
    whole = sum(weight.value().numel() for weight in policy.weights())
    assert sum(factor.numel() for factor in factors(policy).values()) < whole / 10


def test_the_initial_policy_answers_without_the_adapter_beside_requests_that_carry_it(
    live: LiveEngine,
) -> None:
    """Again and again, since it depends on which requests share a batch, and each time with a prompt that no
    cache knows."""
    contexts = load_contexts(live.folder, "Be kind.", "2026-01-01")
    digits = contexts.digit_ids()
    live.load(factors(trained(live.folder, 8)).items())
    released = AutoModelForCausalLM.from_pretrained(live.folder, dtype=torch.bfloat16)
    apart = []
    for turn in range(8):
        ids = contexts.sampling_context(f"{turn} is a shared prefix " * 6)
        policy, initial, again = live.ask(
            EngineRequest(ids, choice_ids=digits),
            EngineRequest(ids, choice_ids=digits, initial=True),
            EngineRequest(ids, choice_ids=digits, initial=True),
        )
        expected_6 = log_softmax(released, ids)[-1][list(digits)]
        for answered in (initial, again):
            assert np.abs(expected_6 - np.array(answered.choice_logprobs)).max() < 3 * TOLERANCE_NATS
        apart.append(np.abs(expected_6 - np.array(policy.choice_logprobs)).max())
    assert np.mean(apart) > 10 * TOLERANCE_NATS


def test_whole_weights_are_not_taken_for_an_adapter(live: LiveEngine) -> None:
    """The last test: it ends the engine."""
    adapter, live.adapter = live.adapter, None
    version = live.version([("model.norm.weight", torch.ones(64))])
    live.adapter = adapter
    with pytest.raises(WeightsError, match="whole weights"):
        live.run(live.engine.load_weights(*version))
    with pytest.raises(EngineError, match="failed half-way"):
        live.ask(EngineRequest(context(live, "Anyone?"), max_tokens=2))
