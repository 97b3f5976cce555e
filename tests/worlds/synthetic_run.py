"""A run folder as a run leaves it, made by the product's own writers from seeded random numbers."""

import math
import random
from pathlib import Path
from statistics import fmean, stdev

from dynalign.launch.summary import summarize, write_summary
from dynalign.learner.advantages import group_advantages
from dynalign.rollout.arrow_schema import encode, to_batch
from dynalign.rollout.records import Candidate, Group, Verdict, VersionSpan
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.metrics import MetricsLog, read_metrics

CONFIG = """\
# quickstart.yaml, and 2 overrides
name: {name}
model: smollm2-135m-instruct
steps: {steps}
rollout: {{group_size: 8, prompts_per_step: 4, max_completion_tokens: 48}}
judge: {{kind: self, scorer: expected, rubric: unified, min_digit_mass: 0.1}}
algorithm: {{max_staleness: 1}}
"""
PROMPTS = [
    "My neighbour keeps losing her keys. How can I help her without taking over?",
    "Explain compound interest to a twelve-year-old who would rather be outside.",
    "Our reading group has stopped talking. What can I do about it?",
    "Write a short note to a colleague who got a refusal today.",
]
WORDS = (
    "ask listen key small habit hook door together choose learn grow share time walk table question answer "
    "plan try again"
)


def candidate(
    rng: random.Random, level: float, step: int, text: str | None = None, unparsed: bool = False
) -> Candidate:
    """One candidate whose score lies around `level`."""
    tokens = rng.randint(12, 48)
    score = min(5.0, max(0.0, rng.gauss(level, 0.35)))
    weights = [math.exp(-((digit - score) ** 2)) for digit in range(6)]
    verdict = Verdict(
        score,
        "parsed",
        tuple(w / sum(weights) for w in weights),
        rng.uniform(0.7, 0.9),
        None,
        score + rng.gauss(0, 0.02),
    )
    if unparsed:
        verdict = Verdict(None, "unparsed", None, 0.03, "I would rather not say <b>anything</b>")
    return Candidate(
        token_ids_T=tuple(range(tokens)),
        sampling_logprobs_T=tuple(-rng.random() for _ in range(tokens)),
        text=text or " ".join(rng.choices(WORDS.split(), k=tokens)).capitalize() + ".",
        finish_reason="length" if tokens == 48 else "stop",
        spans=(VersionSpan(max(0, step - 2), 0, tokens // 2), VersionSpan(step - 1, tokens // 2, tokens)),
        verdict=verdict,
        gap_sum_nats=rng.gauss(0.12, 0.05) * tokens if not unparsed else None,
        gap_tokens=tokens if not unparsed else None,
    )


def group(rng: random.Random, step: int, index: int, level: float, text: str | None = None) -> Group:
    candidates = tuple(candidate(rng, level, step, text, unparsed=rng.random() < 0.02) for _ in range(8))
    return Group(
        run="synthetic", lineage=1, group_id=4 * step + index, attempt=1, epoch=0,
        prompt_id=f"p{index}", prompt=PROMPTS[index % 4], learning_context_ids=(1, 2),
        candidates_G=candidates, judge="self/expected/unified", judge_version=step - 1,
        definition_hash="d", rubric_hash="r", worker=f"rollout-{index % 2}",
        leased_s=100.0, generated_s=104.0, scored_s=106.8, noise_std=0.02,
    )  # fmt: skip


def row(rng: random.Random, step: int, groups: list[Group]) -> dict[str, float | int | None]:
    scores = [[score for score in each.scores_G if score is not None] for each in groups]
    learn_s = rng.uniform(10, 13)
    wait_s = rng.uniform(0, 3)
    ledger = {
        "issued": 4 * step + 6,
        "pending": 0,
        "leased": 2,
        "scored": 2,
        "trained": 4 * step,
        "withheld": 2,
        "requeued": step // 9,
    }
    return ledger | {
        "step": step, "policy_version": step, "loss": rng.gauss(0, 0.02),
        "grad_norm": rng.uniform(0.3, 1.4), "learning_rate": 1e-5, "entropy": 2.1 - 0.01 * step,
        "reward_mean": fmean(s for g in scores for s in g), "reward_std": fmean(map(stdev, scores)),
        "no_signal_fraction": rng.choice([0, 0.2]), "score_saturation_fraction": 0.0,
        "unparsed_fraction": rng.choice([0, 0.03]), "digit_mass_mean": rng.uniform(0.78, 0.84),
        "judge_noise_std": 0.02, "score_length_correlation": rng.gauss(0.2, 0.1),
        "score_length_correlation_within": rng.gauss(0.2, 0.1),
        "score_confidence_correlation": rng.gauss(0.1, 0.1), "advantage_reliability": 0.99,
        "unreadable_fraction": 0.03, "injection_fraction": 0.0,
        "internalization_gap": 0.12, "staleness_mean": rng.uniform(0.2, 0.8), "staleness_max": 1,
        "ratio_mean": 1.0, "ratio_max": 1.0, "completion_tokens": 1000,
        "completion_length_mean": rng.uniform(28, 34), "truncated_fraction": rng.uniform(0.02, 0.2),
        "generate_tokens_per_s": rng.uniform(60, 75), "judgements_per_s": 2.0,
        "learn_tokens_per_s": 1000 / learn_s, "step_s": learn_s + wait_s + 0.6,
        "generate_s": rng.uniform(5, 7), "score_s": rng.uniform(2, 3), "learn_s": learn_s,
        "learner_wait_s": wait_s, "straggler_wait_s": 0.3 * wait_s,
        "rollout_idle_fraction": rng.uniform(0.2, 0.4), "weight_sync_s": 0.4, "weight_sync_pause_s": 0.2,
        "weight_bytes": 269_000_000, "late": 0, "rolled_back": 0, "workers": 2, "worker_restarts": 0,
    }  # fmt: skip


def synthetic_run(
    folder: Path,
    steps: int = 12,
    hostile: str | None = None,
    rise: float = 0.02,
    keep: bool = True,
    seed: int = 0,
) -> Path:
    """A run folder as a run of `steps` steps leaves it; `hostile` is what every candidate says."""
    rng = random.Random(seed)
    (folder / "experience").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(name=folder.name, steps=steps))
    resume_step = max(1, steps * 2 // 3)
    log = MetricsLog(folder, tensorboard=False, lineage=1)
    for step in range(steps + 1):
        if step == resume_step:
            log.close()
            log = MetricsLog(folder, tensorboard=False, lineage=2)
        means: dict[str, float | None] = {}
        if step % 4 == 0 or step == steps:
            means = write_heldout(log, rng, step, 2 if step >= resume_step else 1, 1.5 + rise * step, hostile)
        if step == 0:
            log.write({"step": 0, "policy_version": 0} | means)
            continue
        groups = [group(rng, step, index, 1.7 + rise * step + 0.1 * index, hostile) for index in range(4)]
        if keep:
            batches = [to_batch(each, group_advantages(each.scores_G, "group")) for each in groups]
            (folder / "experience" / f"step-{step:06d}.arrow").write_bytes(encode(batches))
        log.write(row(rng, step, groups) | means)
    log.close()
    ledger = read_metrics(folder)[-1] | {
        "withheld_by_reason": {"run_ended": 4, "low_signal": 2},
        "pending": 0,
        "leased": 0,
        "scored": 0,
    }
    write_summary(
        folder,
        summarize(
            folder, "finished", steps, ledger, wall_s=13.5 * steps, checkpoint=folder / "checkpoints" / "last"
        ),
    )
    return folder


def write_heldout(
    log: MetricsLog, rng: random.Random, step: int, lineage: int, level: float, text: str | None
) -> dict[str, float | None]:
    items = []
    for prompted in (False, True):
        for index in range(8):
            answer = text or " ".join(rng.choices(WORDS.split(), k=24)).capitalize() + "."
            score = min(5.0, max(0.0, rng.gauss(level + 0.25 * prompted + 0.1 * index, 0.15)))
            items.append(
                HeldoutItem(
                    step, lineage, f"h{index}", PROMPTS[index % 4], prompted, score, answer, 30, False
                )
            )
    log.write_heldout(items)
    mean = {
        prompted: fmean(i.score for i in items if i.prompted == prompted and i.score is not None)
        for prompted in (False, True)
    }
    return {"heldout_reward_mean": mean[False], "heldout_prompted_reward_mean": mean[True]}
