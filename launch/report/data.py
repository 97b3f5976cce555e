"""What the report shows, read from a run folder's files alone.

No actor is asked, so it works on a live, an ended or a copied run. Every mean is an `Estimate`, with the
interval that its number of independent parts supports.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow as pa
import yaml

from dynalign.configs.errors import Mistake, RecordError, UserError
from dynalign.endpoint.budget import AccountTotal, totals_in
from dynalign.evaluation.statistics.estimates import Estimate, mean_interval, ratio_interval
from dynalign.rollout.arrow_schema import decode, to_group
from dynalign.run_folder import layout
from dynalign.run_folder.heldout import HeldoutItem, oldest_version
from dynalign.run_folder.metrics import Row, read_heldout, read_metrics

FIRST_SAMPLED_STEPS = 3
"""How many of the first steps have their candidates on the page."""
LAST_SAMPLED_STEPS = 10
"""How many of the last steps have theirs."""
SAMPLED_GROUPS_PER_STEP = 16
"""Groups of such a step that the page shows at most."""
LONGEST_SAMPLED_TEXT = 4_000
"""Characters of a prompt, completion or verdict that the page keeps."""
SAMPLED_TEXT_PER_STEP = 200_000
"""Characters of one step's samples, beyond which its further groups are left out: the page stays small."""

Curve = list[tuple[int, Estimate]]
"""(step, estimate) of a quantity, by step."""


@dataclass(frozen=True, slots=True)
class StepExperience:
    """The figures of one step's records."""

    scores: tuple[float, ...]
    """Scores of all candidates with a readable verdict, 0 to 5 points."""
    group_means: tuple[float, ...]
    """The mean of these scores in each group."""
    gaps: tuple[tuple[float, int], ...]
    """The internalization gap of each probed group: sum in nats, and tokens."""


@dataclass(frozen=True, slots=True)
class Run:
    """The contents of a run folder."""

    folder: Path
    """Where it was read from."""
    name: str
    """The run's name."""
    config: Mapping[str, Any]
    """The contents of config.yaml; empty if it is missing or damaged."""
    config_text: str
    """The text of config.yaml."""
    rows: list[Row]
    """The rows of metrics.jsonl, by step."""
    heldout: list[HeldoutItem]
    """The answers to held-out prompts."""
    experience: dict[int, StepExperience]
    """The figures of each step with records."""
    samples: list[dict[str, Any]]
    """The steps whose candidates are on the page, ready for JSON."""
    problems: list[str]
    """What could not be read, in words."""
    endpoints: tuple[AccountTotal, ...] = ()
    """What each endpoint has cost."""

    def setting(self, path: str) -> Any:
        """The value at a dotted path of config.yaml; None where it is missing."""
        value: Any = self.config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def column(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of every row in which the metric applies and is finite."""
        values = [(row["step"], row[name]) for row in self.rows if row[name] is not None]
        return [(step, value) for step, value in values if math.isfinite(value)]

    @property
    def last_row(self) -> Row | None:
        """The newest row of a trained step."""
        return next((row for row in reversed(self.rows) if row["step"] > 0), None)


def load_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads run folders.

    Raises UserError without any, or for folders that are not run folders, all of them named.
    """
    is_run = {
        folder: (folder / layout.CONFIG).exists() or (folder / layout.METRICS).exists() for folder in folders
    }
    if not folders or not all(is_run.values()):
        rule = f"a run folder has {layout.CONFIG} or {layout.METRICS}"
        remedy = "give the path of a run folder, such as runs/quickstart"
        wrong = [str(folder) for folder, found in is_run.items() if not found] or [""]
        raise UserError([Mistake("report", folder, rule, remedy) for folder in wrong])
    return [load_run(folder) for folder in folders]


def load_run(folder: Path) -> Run:
    """Reads a run folder. Parts that are missing are empty; damaged ones are named in `problems`."""
    problems: list[str] = []
    rows: list[Row] = []
    heldout: list[HeldoutItem] = []
    try:
        rows = read_metrics(folder)
        heldout = read_heldout(folder)
    except RecordError as error:
        problems.append(str(error))
    text, config = _read_config(folder / layout.CONFIG, problems)
    trained_steps = {row["step"] for row in rows}
    experience, samples = _read_experience(folder / layout.EXPERIENCE, trained_steps, problems)
    name = config.get("name", folder.resolve().name)
    asked = totals_in(folder / layout.ANSWERS)
    return Run(folder, str(name), config, text, rows, heldout, experience, samples, problems, asked)


def _read_config(path: Path, problems: list[str]) -> tuple[str, Mapping[str, Any]]:
    if not path.exists():
        return "", {}
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problems.append(f"{path}: not YAML ({error})")
        return text, {}
    return text, config if isinstance(config, Mapping) else {}


def _read_experience(
    folder: Path, trained_steps: set[int], problems: list[str]
) -> tuple[dict[int, StepExperience], list[dict[str, Any]]]:
    """The records of the steps that the metrics have, or of all if they have none.

    Other files belong to steps that were rolled back.
    """
    found = layout.experience_files(folder)
    steps = sorted(step for step in found if step in trained_steps or not trained_steps)
    sampled = {*steps[:FIRST_SAMPLED_STEPS], *steps[-LAST_SAMPLED_STEPS:]}
    experience: dict[int, StepExperience] = {}
    samples: list[dict[str, Any]] = []
    for step in steps:
        try:
            groups = [group for group in decode(found[step].read_bytes(), str(found[step])) if group.num_rows]
        except RecordError as error:
            problems.append(str(error))
            continue
        experience[step] = _reduce(groups)
        if step in sampled:
            samples.append({"step": step, "groups": _samples(groups), "groups_total": len(groups)})
    return experience, samples


def _samples(groups: Sequence[pa.RecordBatch]) -> list[dict[str, Any]]:
    """The first groups of a step, as many as fit on the page, but at least one."""
    found: list[dict[str, Any]] = []
    left = SAMPLED_TEXT_PER_STEP
    for group in groups[:SAMPLED_GROUPS_PER_STEP]:
        sample = _sample(group)
        found.append(sample)
        texts = [len(part["text"]) + len(part["verdict"] or "") for part in sample["candidates"]]
        left -= len(sample["prompt"]) + sum(texts)
        if left < 0:
            break
    return found


def _reduce(groups: Iterable[pa.RecordBatch]) -> StepExperience:
    """The figures of a step's groups; they keep the page small, where the records may be gigabytes."""
    scores_PG = [
        [score for score in group.column("score").to_pylist() if score is not None] for group in groups
    ]
    gaps: list[tuple[float, int]] = []
    for group in groups:
        probed = [
            (nats, tokens)
            for nats, tokens in zip(
                group.column("gap_sum_nats").to_pylist(), group.column("gap_tokens").to_pylist(), strict=True
            )
            if nats is not None and math.isfinite(nats) and tokens
        ]
        if probed:
            gaps.append((math.fsum(nats for nats, _ in probed), sum(tokens for _, tokens in probed)))
    means = tuple(fmean(scores) for scores in scores_PG if scores)
    return StepExperience(tuple(score for scores in scores_PG for score in scores), means, tuple(gaps))


def _gap(nats: float | None, tokens: int | None) -> float | None:
    """Nats per token; None where it was not probed, or is no finite number."""
    return nats / tokens if nats is not None and tokens and math.isfinite(nats) else None


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= LONGEST_SAMPLED_TEXT:
        return text
    return f"{text[:LONGEST_SAMPLED_TEXT]}… ({len(text) - LONGEST_SAMPLED_TEXT:,} more characters)"


def _sample(group: pa.RecordBatch) -> dict[str, Any]:
    """One group as the sample browser reads it: best candidate first, unparsed ones last."""
    rows = group.to_pylist()
    scores = [row["score"] for row in rows if row["score"] is not None]
    verdicts = [candidate.verdict for candidate in to_group(group).candidates_G]
    candidates = [
        {
            "candidate": row["candidate"],
            "score": row["score"],
            "again": row["score_again"],
            "status": row["status"],
            "advantage": row["advantage"],
            "tokens": len(row["token_ids_T"]),
            "finish": row["finish_reason"],
            "versions": sorted({span["version"] for span in row["spans"]}),
            "digits": row["digit_probs_6"],
            "mass": row["digit_mass"],
            "verdict": _cut(verdict.text),
            "gap": _gap(row["gap_sum_nats"], row["gap_tokens"]),
            "text": _cut(row["text"]),
        }
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
    candidates.sort(
        key=lambda candidate: -math.inf if candidate["score"] is None else candidate["score"], reverse=True
    )
    names = ("group_id", "prompt_id", "epoch", "attempt", "lineage", "worker", "judge", "judge_version")
    shared = {name: rows[0][name] for name in names}
    return shared | {
        "prompt": _cut(rows[0]["prompt"]),
        "mean": fmean(scores) if scores else None,
        "std": stdev(scores) if len(scores) > 1 else None,
        "noise": rows[0]["noise_std"],
        "generate_s": rows[0]["generated_s"] - rows[0]["leased_s"],
        "score_s": rows[0]["scored_s"] - rows[0]["generated_s"],
        "candidates": candidates,
    }


def training_curve(run: Run) -> Curve:
    """Training reward: the mean over a step's group means, which are independent draws.

    Where records are missing, the mean of metrics.jsonl without an interval.
    """
    curve: Curve = []
    for step, mean in run.column("reward_mean"):
        estimate = mean_interval(run.experience[step].group_means) if step in run.experience else None
        curve.append((step, estimate or Estimate(mean)))
    return curve


def heldout_curve(run: Run, prompted: bool) -> Curve:
    """Held-out reward: the mean over prompts; where heldout.jsonl is missing, that of metrics.jsonl."""
    by_step: dict[int, list[float]] = {}
    for item in run.heldout:
        if item.prompted == prompted and item.score is not None:
            by_step.setdefault(item.step, []).append(item.score)
    found = {step: estimate for step, scores in by_step.items() if (estimate := mean_interval(scores))}
    for step, mean in run.column("heldout_prompted_reward_mean" if prompted else "heldout_reward_mean"):
        found.setdefault(step, Estimate(mean))
    return sorted(found.items(), key=lambda pair: pair[0])


def heldout_age(run: Run) -> int:
    """How much older than its figure's step the oldest held-out answer is, in steps: 0 where training waited
    for all of them."""
    return max((item.step - (oldest_version([item]) or 0) for item in run.heldout), default=0)


def heldout_change(run: Run, prompted: bool) -> Estimate | None:
    """Last minus first held-out reward; None with one evaluation.

    Pairing by prompt removes the variance between prompts.
    """
    by_step: dict[int, dict[str, float]] = {}
    for item in run.heldout:
        if item.prompted == prompted and item.score is not None:
            by_step.setdefault(item.step, {})[item.prompt_id] = item.score
    if len(by_step) < 2:
        return None
    first = by_step[min(by_step)]
    last = by_step[max(by_step)]
    return mean_interval([last[prompt] - first[prompt] for prompt in first.keys() & last.keys()])


def gap_curve(run: Run) -> Curve:
    """Internalization gap, nats per token, groups as clusters; without records, that of metrics.jsonl."""
    found = {
        step: estimate for step, part in run.experience.items() if (estimate := ratio_interval(part.gaps))
    }
    for step, mean in run.column("internalization_gap"):
        found.setdefault(step, Estimate(mean))
    return sorted(found.items(), key=lambda pair: pair[0])


def capability_curve(run: Run) -> Curve:
    """Change of the capability probe since before training, with ± 1.96 of its standard errors."""
    errors = dict(run.column("capability_change_se"))
    return [
        (step, Estimate(change, change - 1.96 * errors[step], change + 1.96 * errors[step]))
        for step, change in run.column("capability_change")
        if step in errors
    ]
