"""Llama, Qwen3, Qwen3-MoE and gpt-oss through generate, score, learn and push, with the real parts.

An engine that loaded two versions is compared with one that loads the exported folder from disk: every tensor
that can be read back is the same to the bit, and so is every log-probability; both agree with transformers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dynalign.configs.schema import RunSettings
from dynalign.rollout.arrow_schema import encode, to_batch
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.engine.base import Engine, EngineRequest, EngineResult
from dynalign.rollout.group_maker import GroupMaker, GroupTask
from dynalign.rollout.judges.base import context_tokens
from dynalign.rollout.judges.make import make_judge
from dynalign.rollout.judges.value_texts import load_value_texts
from dynalign.rollout.prompts import Prompt
from dynalign.rollout.records import Group
from tests.worlds.chat_models import ARCHITECTURES, harmony_tokenizer, tiny_chat_model
from tests.worlds.live_engine import TOLERANCE_NATS, LiveEngine, live_engine, log_softmax
from tests.worlds.one_rank import Learner

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

THOUGHT = "<|channel|>analysis<|message|>Secret.<|end|><|start|>assistant<|channel|>final<|message|>"


def run_of(folder: Path) -> RunSettings:
    return RunSettings.model_validate(
        {
            "name": "architectures",
            "model": str(folder),
            "prompts": {"max_tokens": 64},
            "rollout": {
                "group_size": 4,
                "max_completion_tokens": 24,
                "gap_probes": 0,
                "kv_cache_gib": 0.1,
                "max_sequences": 16,
            },
            "judge": {"min_digit_mass": 0.0, "noise_fraction": 0.0},
            "learner": {
                "learning_rate": 1e-2,
                "warmup_steps": 0,
                "precision": "bfloat16",
                "token_budget": 2048,
            },
        }
    )


class Aloud:
    """The engine, with a thought before every completion, since a random model never ends one."""

    def __init__(self, engine: Engine, thought: tuple[int, ...]) -> None:
        self.engine, self.thought = engine, thought
        self.asked: list[EngineRequest] = []

    async def generate(self, request: EngineRequest) -> EngineResult:
        self.asked.append(request)
        if request.choice_ids is not None:
            return await self.engine.generate(request)
        said = await self.engine.generate(replace(request, token_ids=request.token_ids + self.thought))
        spans = tuple(replace(span, start=0, end=span.end + len(self.thought)) for span in said.spans)
        logprobs_T = (0.0,) * len(self.thought) + said.logprobs_T
        return EngineResult(self.thought + said.token_ids, logprobs_T, said.finish_reason, spans)


@dataclass(frozen=True)
class TwoSteps:
    """What two steps of a run left behind."""

    initial: Path
    """The model folder of the initial policy."""
    exported: Path
    """The exported folder of the last version."""
    contexts: Contexts
    asked: Sequence[EngineRequest]
    """The requests of both steps."""
    groups: Sequence[Group]
    """The groups of both steps."""
    published: Sequence[str]
    """Names of the last version's tensors."""
    before: EngineResult
    """The answer to `probe` by the initial policy."""
    pushed: EngineResult
    """The same by the engine that loaded both versions."""
    fresh: EngineResult
    """The same by an engine that loaded the exported folder."""
    pushed_held: dict[str, str]
    """Checksums of the tensors in the engine that loaded both versions."""
    fresh_held: dict[str, str]
    """The same of the engine that loaded the exported folder."""
    lacking: str
    """The error of an engine at a version without its last norm."""


def made(live: LiveEngine, by: GroupMaker, step: int) -> list[Group]:
    prompts = [Prompt(f"p{index}", f"Whose is well {index}?", "governance", "train") for index in range(2)]
    tasks = [GroupTask(1, 2 * step + index, 1, 0, prompt, 0.0) for index, prompt in enumerate(prompts)]

    async def both() -> list[Group]:
        return list(await asyncio.gather(*map(by.make, tasks)))

    return live.run(both())


def probe(contexts: Contexts) -> EngineRequest:
    """Log-probabilities of a fixed text, across both layers' sliding windows."""
    question = "A question that is longer than the window of a layer, by far, or so it seems to me now."
    return EngineRequest(contexts.learning_context(question), prefill_from=1)


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def steps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TwoSteps:
    folder = tmp_path_factory.mktemp(request.param)
    speaks = {"tokenizer": harmony_tokenizer()} if request.param == "gpt-oss" else {}
    tiny_chat_model(folder, **ARCHITECTURES[request.param], **speaks)
    run, texts = run_of(folder), load_value_texts(None, "unified", "expected")
    contexts = load_contexts(folder, texts.generation_system, "2026-01-01")
    limit = context_tokens(contexts, texts, run) + 256
    thought = tuple(contexts.tokenizer.encode(THOUGHT, add_special_tokens=False)) if speaks else ()
    learner, groups, published = Learner(run, folder, 0, 1), [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # for `held`
        with live_engine(folder, context_tokens=limit) as live:
            (before,) = live.ask(probe(contexts))
            aloud = Aloud(live.engine, thought)
            judge = make_judge(aloud, contexts, texts, run.judge, limit)
            by = GroupMaker(run, "w", aloud, judge, contexts, texts, lambda: live.step)
            for step in (1, 2):
                scored = made(live, by, step)
                payloads = [encode([to_batch(group)]) for group in scored]
                learner.prepare(step, payloads, [f"group-{group.group_id}" for group in scored])
                learner.run(step)
                manifest, buckets = learner.weights(1) or pytest.fail("rank 0 publishes")
                live.step, file = step, folder / f"version-{step}"
                file.write_bytes(b"".join(bytes(bucket) for bucket in buckets))
                live.run(live.engine.load_weights(f"1.{step}", manifest.pack(), file))
                groups += scored
                published = [entry.name for entry in manifest.tensors]
            (pushed,) = live.ask(probe(contexts))
            pushed_held = live.held()
        learner.export(folder / "hf")
        with live_engine(folder / "hf", context_tokens=limit) as live:
            (fresh,) = live.ask(probe(contexts))
            fresh_held = live.held()
            tensors = load_file(folder / "hf" / "model.safetensors")
            with pytest.raises(Exception, match="engine's tensors") as refused:
                live.load((name, tensor) for name, tensor in tensors.items() if name != "model.norm.weight")
            lacking = str(refused.value)
    return TwoSteps(
        folder,
        folder / "hf",
        contexts,
        aloud.asked,
        groups,
        published,
        before,
        pushed,
        fresh,
        pushed_held,
        fresh_held,
        lacking,
    )


def test_every_tensor_of_the_engine_is_the_one_that_an_engine_loads_from_disk(steps: TwoSteps) -> None:
    assert steps.pushed_held == steps.fresh_held
    assert len(steps.pushed_held) > 10


def test_every_log_probability_is_too(steps: TwoSteps) -> None:
    assert steps.pushed.prefill_logprobs_T == steps.fresh.prefill_logprobs_T


def test_a_version_that_lacks_a_tensor_is_refused_by_its_name(steps: TwoSteps) -> None:
    assert "left 1 of the engine's tensors as they were, the first is model.norm.weight" in steps.lacking


def test_both_are_what_transformers_computes_from_the_exported_folder_and_far_from_the_initial_policy(
    steps: TwoSteps,
) -> None:
    ids = probe(steps.contexts).token_ids
    apart = {}
    for name, folder in (("initial", steps.initial), ("exported", steps.exported)):
        rows = log_softmax(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16), ids)
        expected_T = np.array([row[token] for row, token in zip(rows, ids[1:], strict=False)])
        apart[name] = float(np.abs(expected_T - np.array(steps.pushed.prefill_logprobs_T)).mean())
    assert apart["exported"] < TOLERANCE_NATS
    assert apart["initial"] > 10 * apart["exported"]


def test_a_version_is_the_checkpoint_of_its_architecture_and_learning_moved_all_of_it(
    steps: TwoSteps,
) -> None:
    with (
        safe_open(steps.initial / "model.safetensors", framework="pt") as old,
        safe_open(steps.exported / "model.safetensors", framework="pt") as new,
    ):
        assert set(old.keys()) == set(new.keys()) == set(steps.published)
        moved = {name for name in old.keys() if not torch.equal(old.get_tensor(name), new.get_tensor(name))}  # noqa: SIM118
    assert moved == set(steps.published)


def test_a_group_was_generated_and_scored_by_the_version_that_was_loaded(steps: TwoSteps) -> None:
    assert [group.judge_version for group in steps.groups] == [0, 0, 1, 1]
    assert {
        span.version for group in steps.groups for candidate in group.candidates_G for span in candidate.spans
    } == {0, 1}
    assert all(
        candidate.verdict.status == "parsed"
        for group in steps.groups
        for candidate in group.candidates_G
        if candidate.text.strip()
    )


def test_the_judge_is_asked_behind_the_opening_of_an_answer_and_shown_no_thought(steps: TwoSteps) -> None:
    shown = [
        steps.contexts.tokenizer.decode(asked.token_ids, skip_special_tokens=False)
        for asked in steps.asked
        if asked.choice_ids
    ]
    assert len(shown) == sum(
        bool(candidate.text.strip()) for group in steps.groups for candidate in group.candidates_G
    )
    ending = steps.contexts.form.opening + load_value_texts(None, "unified", "expected").judge_prefill
    assert all(text.endswith(ending) and "Secret." not in text for text in shown)
