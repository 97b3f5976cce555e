"""The names in `metrics.jsonl`, with unit and meaning.

A metric is added here; `actors/coordinator/exported_metrics.py` exports it to Prometheus.
"""

from dataclasses import dataclass

from dynalign.configs.sections.alarms import AlarmsSettings


@dataclass(frozen=True, slots=True)
class Metric:
    """One name in `metrics.jsonl`.

    Example: `Metric("learn_s", "s", "The learner's step: decode, pack, forward, backward, update.", "time")`.
    """

    name: str
    """The key in a row."""
    unit: str
    """Its unit; `1` for a plain number."""
    help: str
    """Its meaning, in a sentence."""
    section: str
    """The first part of its tag in TensorBoard, `section/name`."""


METRICS: tuple[Metric, ...] = (
    Metric("step", "step", "Optimizer step; row 0 holds only the held-out figures before training.", "run"),
    Metric("lineage", "1", "Counts starts and roll-backs of the run: 1 for the first start.", "run"),
    Metric("policy_version", "step", "Newest published weight version: the step that made it.", "run"),
    Metric("loss", "1", "GRPO loss of the step, over the completion tokens of all ranks.", "learner"),
    Metric("grad_norm", "1", "Global gradient norm before clipping.", "learner"),
    Metric("learning_rate", "1", "Learning rate of the step.", "learner"),
    Metric(
        "entropy",
        "nats",
        "Mean entropy of the policy's next-token distribution over completion tokens.",
        "learner",
    ),
    Metric(
        "kl",
        "nats",
        "KL of the policy to the initial one per completion token, as the k3 estimator.",
        "learner",
    ),
    Metric("reward_mean", "points", "Mean of the parsed scores of the step's candidates.", "reward"),
    Metric(
        "reward_std",
        "points",
        "Mean over groups of the standard deviation (n - 1) of a group's parsed scores.",
        "reward",
    ),
    Metric(
        "heldout_reward_mean",
        "points",
        "Mean score of held-out prompts answered without the system prompt.",
        "reward",
    ),
    Metric(
        "heldout_prompted_reward_mean",
        "points",
        "Mean score of held-out prompts answered with the system prompt.",
        "reward",
    ),
    Metric(
        "heldout_version_min",
        "step",
        "Oldest version that a held-out answer is of; the newest is that of the row's step at most.",
        "reward",
    ),
    Metric(
        "frozen_judge_reward_mean",
        "points",
        "Mean score of the step's candidates by the initial policy as judge.",
        "reward",
    ),
    Metric(
        "no_signal_fraction",
        "fraction",
        "Share of the step's scored groups whose scores do not differ beyond noise.",
        "judge",
    ),
    Metric(
        "score_saturation_fraction",
        "fraction",
        "Share of parsed scores within 0.1 points of 0 or 5.",
        "judge",
    ),
    Metric("unparsed_fraction", "fraction", "Share of candidates whose verdict could not be read.", "judge"),
    Metric(
        "digit_mass_mean",
        "fraction",
        "Mean probability that the judge answers with one of the six digits.",
        "judge",
    ),
    Metric(
        "judge_noise_std",
        "points",
        "Standard deviation of a score when the same candidate is scored again.",
        "judge",
    ),
    Metric(
        "score_length_correlation", "1", "Pearson's correlation of scores with completion lengths.", "judge"
    ),
    Metric(
        "score_length_correlation_within",
        "1",
        "Pearson's correlation of scores with answer lengths, as deviations from their groups' means.",
        "judge",
    ),
    Metric(
        "score_confidence_correlation",
        "1",
        "Correlation within groups of scores with the policy's mean log-probability per token.",
        "judge",
    ),
    Metric(
        "advantage_reliability",
        "fraction",
        "Share of the variance of scores within groups, withheld ones included, that is not judge noise.",
        "judge",
    ),
    Metric(
        "unreadable_fraction",
        "fraction",
        "As unparsed_fraction, with every candidate of a group withheld as unparsed counted too.",
        "judge",
    ),
    Metric(
        "injection_fraction",
        "fraction",
        "Share of candidates with the shape of a known attack on judges, or a control token's spelling.",
        "judge",
    ),
    Metric(
        "aspect_spread",
        "points",
        "Largest less smallest mean score over the rubric's aspects, where they are scored apart.",
        "judge",
    ),
    Metric(
        "second_judge_gap",
        "points",
        "Mean of score less the second judge's, over the candidates that both have scored.",
        "judge",
    ),
    Metric(
        "second_judge_rank_correlation",
        "1",
        "Mean over groups of Kendall's tau-b of the scores of both judges.",
        "judge",
    ),
    Metric(
        "self_bias_correlation",
        "1",
        "Correlation within groups of score less the second judge's with the policy's confidence.",
        "judge",
    ),
    Metric(
        "capability_change",
        "fraction",
        "Score of the capability probe less that before training, over the same items.",
        "judge",
    ),
    Metric(
        "capability_change_se",
        "fraction",
        "Standard error of capability_change, from the items' paired differences.",
        "judge",
    ),
    Metric(
        "capability_tokens",
        "tokens",
        "Tokens that answers to the capability probe have read and written in the step.",
        "throughput",
    ),
    Metric(
        "evaluation_tokens",
        "tokens",
        "Tokens that held-out answers beside the groups have read and written in the step.",
        "throughput",
    ),
    Metric(
        "score_position_correlation",
        "1",
        "Of a judge that ranks: Pearson's correlation of scores with the places it was shown.",
        "judge",
    ),
    Metric(
        "unreachable_fraction",
        "fraction",
        "Share of the questions to judges whose call failed, all workers.",
        "judge",
    ),
    Metric("judge_tokens", "tokens", "Tokens that judges read and wrote in the step, all workers.", "judge"),
    Metric(
        "judge_money",
        "1",
        "What they cost, in the currency of the endpoints' prices; null where nothing has a price.",
        "judge",
    ),
    Metric(
        "internalization_gap",
        "nats",
        "Mean over tokens of log pi(y|s,x) - log pi(y|x), one version, one engine.",
        "policy",
    ),
    Metric("staleness_mean", "steps", "Mean age of the trained tokens, in policy versions.", "policy"),
    Metric("staleness_max", "steps", "Age of the oldest trained token, in policy versions.", "policy"),
    Metric("ratio_mean", "1", "Mean importance ratio over completion tokens.", "policy"),
    Metric("ratio_max", "1", "Largest importance ratio of a completion token.", "policy"),
    Metric("clip_low_fraction", "fraction", "Share of tokens whose ratio was clipped from below.", "policy"),
    Metric("clip_high_fraction", "fraction", "Share of tokens whose ratio was clipped from above.", "policy"),
    Metric(
        "effective_sample_size",
        "fraction",
        "Share of tokens that count after weighting: (sum w)^2 / (n sum w^2).",
        "policy",
    ),
    Metric(
        "logprob_mismatch_mean",
        "nats",
        "Mean absolute difference of engine and learner log-probabilities, over the tokens for which both "
        "are known; with max_staleness above 0 it holds what the policy has learned in between.",
        "policy",
    ),
    Metric("completion_tokens", "tokens", "Completion tokens trained in the step.", "completion"),
    Metric("completion_length_mean", "tokens", "Mean length of the step's completions.", "completion"),
    Metric(
        "truncated_fraction", "fraction", "Share of completions cut at max_completion_tokens.", "completion"
    ),
    Metric(
        "generate_tokens_per_s",
        "tokens/s",
        "Completion tokens sampled per second of the step, all workers.",
        "throughput",
    ),
    Metric("judgements_per_s", "1/s", "Candidates scored per second of the step, all workers.", "throughput"),
    Metric(
        "learn_tokens_per_s", "tokens/s", "Completion tokens trained per second of learn_s.", "throughput"
    ),
    Metric("step_s", "s", "Whole step, from taking its batch to its commit, waits included.", "time"),
    Metric(
        "generate_s", "s", "Time with candidates in generation during the step, mean over workers.", "time"
    ),
    Metric(
        "score_s",
        "s",
        "Time with candidates being scored during the step, mean over workers; may overlap generate_s.",
        "time",
    ),
    Metric("learn_s", "s", "The learner's step: decode, pack, forward, backward, update.", "time"),
    Metric("learner_wait_s", "s", "The learner's wait for a whole batch.", "time"),
    Metric(
        "straggler_wait_s",
        "s",
        "Part of learner_wait_s spent on a late group while enough younger ones were scored.",
        "time",
    ),
    Metric(
        "rollout_idle_fraction",
        "fraction",
        "Share of the step in which a worker had nothing to do, mean over workers.",
        "time",
    ),
    Metric("weight_sync_s", "s", "Publishing the step's weights so that workers can fetch them.", "time"),
    Metric(
        "weight_sync_pause_s", "s", "Generation paused for loading new weights, mean over workers.", "time"
    ),
    Metric("weight_bytes", "bytes", "Size of one weight version.", "throughput"),
    Metric("issued", "groups", "Groups issued since the run began.", "ledger"),
    Metric("pending", "groups", "Groups waiting for a worker.", "ledger"),
    Metric("leased", "groups", "Groups being generated or scored by a worker.", "ledger"),
    Metric("scored", "groups", "Groups scored and waiting for the learner.", "ledger"),
    Metric("trained", "groups", "Groups trained, each exactly once.", "ledger"),
    Metric("withheld", "groups", "Groups set aside with a reason and never trained.", "ledger"),
    Metric(
        "requeued", "groups", "Leases given back because a worker failed or ran past its deadline.", "ledger"
    ),
    Metric("late", "groups", "Reports refused because their lease was no longer current.", "ledger"),
    Metric(
        "rolled_back", "groups", "Trained groups returned to the queue by a return to a checkpoint.", "ledger"
    ),
    Metric("workers", "workers", "Rollout workers that are ready.", "workers"),
    Metric("worker_restarts", "restarts", "Rollout workers replaced after a failure.", "workers"),
    *(
        Metric(f"alarm_{name}", "1", f"Whether the alarm {name} fires: 1, or 0.", "alarms")
        for name in AlarmsSettings.model_fields
    ),
)
METRIC_NAMES: tuple[str, ...] = tuple(metric.name for metric in METRICS)
