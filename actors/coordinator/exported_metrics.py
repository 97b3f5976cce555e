"""What Prometheus gets to see of a run: every name with its type, labels, unit, help and value.

One table, from which the endpoint (`exporter.py`) and docs/metrics.md are made. A value that is not known
(yet) has no sample, never a false 0. Names follow Prometheus' conventions: the prefix `dynalign_`, base
units, `_total` for what only grows.
"""

from dynalign.actors.coordinator.exported_samples import (
    ELSEWHERE,
    Exported,
    ages,
    counter,
    decisions,
    disk_bytes,
    engines,
    gauge,
    learner_wait_fraction,
    of_endpoints,
    of_judges,
    of_mirror,
    of_row,
    of_supervision,
    of_workers,
    restarts,
    states,
    term,
    withheld,
    workers,
    workers_bound,
)
from dynalign.run_folder.metric_names import METRICS

_RUN: tuple[Exported, ...] = (
    Exported("build_info", "gauge", "1",
        "Always 1; the versions are the labels.", lambda known: [(known.versions, 1.0)],
        ("version", "ray", "vllm")),
    Exported("run_state", "gauge", "1",
        "1 for the state that the run is in, 0 for the others.", states, ("state",)),
    gauge("run_started_timestamp_seconds", "Unix seconds",
        "When the coordinator that answers here began.", lambda known: known.started_s),
    gauge("look_timestamp_seconds", "Unix seconds",
        "When the supervision last looked here; once a second.", lambda known: known.looked_s),
    gauge("lineage", "1",
        "Counts starts and roll-backs of the run: 1 for the first start.", lambda known: known.lineage),
    gauge("step", "steps", "Steps committed.", lambda known: known.step),
    gauge("steps_wanted", "steps", "Steps that finish the run (`steps`).", lambda known: known.run.steps),
    counter("steps_skipped", "steps",
        "Steps whose loss or gradient was not finite, and that changed no weight.",
        lambda known: known.steps_skipped),
    gauge("policy_version", "steps",
        "Newest published weight version: the step that made it.", term("committed_step")),
    gauge("last_step_timestamp_seconds", "Unix seconds",
        "When the last step was committed.", lambda known: known.last_step_s),
    gauge("time_to_first_step_seconds", "seconds",
        "From the coordinator's start to its first commit.", lambda known: known.first_step_s),
    gauge("prompts_per_step", "groups",
        "Groups that one step trains (`rollout.prompts_per_step`).",
        lambda known: known.run.rollout.prompts_per_step),
    gauge("gpus_reserved", "GPUs", "GPUs that the run's actors hold.", lambda known: known.gpus),
    gauge("gpu_seconds_per_trained_group", "seconds",
        "GPUs held, times the last step's wall time, by the groups it trained.",
        lambda known: known.gpu_s_per_group),
    gauge("checkpoint_step", "steps",
        "Step of the newest whole checkpoint made since the coordinator's start.",
        lambda known: known.checkpoint_step),
    gauge("checkpoint_timestamp_seconds", "Unix seconds",
        "When that checkpoint became whole.", lambda known: known.checkpoint_s),
    counter("checkpoint_failures", "checkpoints",
        "Checkpoints that could not be written.", lambda known: known.checkpoint_failures),
    gauge("mirror_step", "steps",
        "Step of the newest checkpoint that `checkpoint.mirror` holds.",
        of_mirror(lambda mirror: mirror.step)),
    counter("mirror_failures", "attempts",
        "Copies to `checkpoint.mirror` that failed; each is tried again.",
        of_mirror(lambda mirror: mirror.failures)),
    gauge("run_folder_free_bytes", "bytes", "Free space of the run folder's file system.", disk_bytes(0)),
    gauge("run_folder_size_bytes", "bytes", "Size of the run folder's file system.", disk_bytes(1)),
)  # fmt: skip

_LEDGER: tuple[Exported, ...] = (
    counter("groups_issued", "groups",
        "Groups issued since the run began. This and the other terms go back with the run to a checkpoint, "
        "which Prometheus reads as a counter's reset. "
        "issued = pending + leased + scored + trained + withheld, at every moment.",
        term("issued")),
    gauge("groups_pending", "groups", "Groups waiting for a worker.", term("pending")),
    gauge("groups_leased", "groups", "Groups being generated or scored by a worker.", term("leased")),
    gauge("groups_scored", "groups", "Groups scored and waiting for the learner.", term("scored")),
    counter("groups_trained", "groups", "Groups trained, each exactly once.", term("trained")),
    Exported("groups_withheld", "counter", "groups",
        "Groups set aside and never trained, by reason.", withheld, ("reason",)),
    counter("groups_requeued", "groups",
        "Leases given back because a worker failed or ran past its deadline.", term("requeued")),
    counter("groups_late", "groups",
        "Reports refused because their lease was no longer current.", term("late")),
    counter("groups_rolled_back", "groups",
        "Groups whose progress was undone by a return to a checkpoint.", term("rolled_back")),
    gauge("ledger_capacity", "groups",
        "Groups that may be leased now without a token growing too old.", term("capacity")),
    gauge("oldest_lease_age_seconds", "seconds", "Age of the oldest lease.", term("oldest_lease_age_s")),
    Exported("group_staleness", "histogram", "versions",
        "Age of each trained group's oldest token at its commit, in policy versions.", ages),
    gauge("staleness_bound", "versions",
        "Oldest age that is trained (`algorithm.max_staleness`).",
        lambda known: known.run.algorithm.max_staleness),
    gauge("learner_wait_fraction", "fraction",
        "Share of the last step in which the learner waited for its batch.", learner_wait_fraction),
)  # fmt: skip

_ROWS: tuple[Exported, ...] = tuple(
    of_row(metric) for metric in METRICS if metric.section != "ledger" and metric.name not in ELSEWHERE
)

_SUPERVISED: tuple[Exported, ...] = (
    Exported("workers", "gauge", "workers", "Rollout workers by state.", workers, ("state",)),
    gauge("workers_wanted", "workers",
        "Rollout workers that the run wants now.", of_supervision(lambda known: known.workers_wanted)),
    gauge("workers_min", "workers", "Fewest workers (`rollout.workers.min`).", workers_bound(0)),
    gauge("workers_max", "workers", "Most workers (`rollout.workers.max`).", workers_bound(1)),
    Exported("autosize_decisions", "counter", "decisions",
        "Changes of the wanted number of workers, by direction and reason.", decisions,
        ("direction", "reason")),
    Exported("restarts", "counter", "restarts",
        "Actors replaced, by kind and by the cause of their end.", restarts, ("kind", "cause")),
    counter("weight_sync_failures", "failures",
        "Workers that ended because a weight version could not be loaded.",
        of_supervision(lambda known: known.sync_failures)),
    Exported("worker_version", "gauge", "steps",
        "Weight version that the worker holds.", of_workers(lambda worker: worker.version), ("worker",)),
    Exported("worker_groups_in_flight", "gauge", "groups",
        "Groups that the worker generates or scores.", of_workers(lambda worker: worker.groups_in_flight),
        ("worker",)),
    Exported("worker_generated_tokens", "counter", "tokens",
        "Completion tokens sampled by the worker.", of_workers(lambda worker: worker.completion_tokens_total),
        ("worker",)),
    Exported("worker_judgements", "counter", "candidates",
        "Candidates scored by the worker.", of_workers(lambda worker: worker.judgements_total), ("worker",)),
    Exported("worker_judge_failures", "counter", "candidates",
        "Of these, those for which `judge.function` raised or returned no score.",
        of_workers(lambda worker: worker.judge_failures_total), ("worker",)),
    Exported("worker_judge_questions", "counter", "questions",
        "Questions asked for scores, by whom was asked: self, frozen, a model, or a function.",
        of_judges(lambda cost: cost.questions), ("worker", "judge")),
    Exported("worker_judge_failed_calls", "counter", "questions",
        "Of these, those whose call failed.", of_judges(lambda cost: cost.failed), ("worker", "judge")),
    Exported("worker_judge_prompt_tokens", "counter", "tokens",
        "Tokens that the judge has read.", of_judges(lambda cost: cost.prompt_tokens), ("worker", "judge")),
    Exported("worker_judge_completion_tokens", "counter", "tokens",
        "Tokens that the judge has written.", of_judges(lambda cost: cost.completion_tokens),
        ("worker", "judge")),
    Exported("worker_judge_seconds", "counter", "seconds",
        "Time of its questions, summed over questions that overlap.", of_judges(lambda cost: cost.seconds),
        ("worker", "judge")),
    Exported("worker_judge_money", "counter", "1",
        "What its tokens cost, in the currency of the endpoint's prices.",
        of_judges(lambda cost: cost.money), ("worker", "judge")),
    Exported("worker_generate_seconds", "counter", "seconds",
        "Time with candidates in generation.", of_workers(lambda worker: worker.generate_s), ("worker",)),
    Exported("worker_score_seconds", "counter", "seconds",
        "Time with candidates being scored; may overlap generation.",
        of_workers(lambda worker: worker.score_s), ("worker",)),
    Exported("worker_idle_seconds", "counter", "seconds",
        "Time without any work.", of_workers(lambda worker: worker.idle_s), ("worker",)),
    Exported("worker_weight_syncs", "counter", "versions",
        "Weight versions loaded.", of_workers(lambda worker: worker.weight_syncs), ("worker",)),
    Exported("worker_weight_fallbacks", "counter", "versions",
        "Of these, those that the plan's transport did not bring and the object store did.",
        of_workers(lambda worker: worker.weight_fallbacks), ("worker",)),
    Exported("worker_weight_sync_seconds", "counter", "seconds",
        "Fetching and loading weight versions.", of_workers(lambda worker: worker.weight_sync_s),
        ("worker",)),
    Exported("worker_weight_pause_seconds", "counter", "seconds",
        "Generation paused for loading weight versions.",
        of_workers(lambda worker: worker.weight_sync_pause_s), ("worker",)),
)  # fmt: skip

_ASKED: tuple[Exported, ...] = (
    Exported("pool_engines", "gauge", "engines",
        "Engines of `judge.pool` by state.", engines, ("state",)),
    Exported("endpoint_questions_in_flight", "gauge", "questions",
        "Questions that wait for the endpoint, of all workers.",
        of_endpoints(lambda account: account.questions_in_flight), ("endpoint",)),
    Exported("endpoint_failures", "counter", "questions",
        "Questions that the endpoint did not answer, since the gateway's start.",
        of_endpoints(lambda account: account.failures_total), ("endpoint",)),
    Exported("endpoint_tokens", "counter", "tokens",
        "Tokens spent at the endpoint since the run began, those reserved for requests in flight included.",
        of_endpoints(lambda account: account.tokens_total), ("endpoint",)),
    Exported("endpoint_cost", "counter", "1",
        "Money spent at the endpoint since the run began, in the currency of its prices, reservations "
        "included.",
        of_endpoints(lambda account: account.cost_total), ("endpoint",)),
)  # fmt: skip

EXPORTED: tuple[Exported, ...] = _RUN + _LEDGER + _ROWS + _SUPERVISED + _ASKED


def table() -> str:
    """The table of docs/metrics.md."""
    lines = ["| name | type | labels | unit | what it says |", "|---|---|---|---|---|"]
    for each in EXPORTED:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        help_ = each.help.replace("|", "\\|")
        lines.append(f"| `{each.full_name}` | {each.kind} | {labels} | {each.unit} | {help_} |")
    return "\n".join(lines) + "\n"
