"""The Grafana dashboard Rollout and engine."""

from tests.worlds.dashboards import RATE, RUN, bad_above, fraction, of, rate
from tests.worlds.grafana_model import Dashboard, Panel, Query, Row

ENGINE = '{model_name=~"$run/.+"}'
CACHED = Query(
    f"rate(ray_vllm_prefix_cache_hits_total{ENGINE}{RATE}) / "
    f"rate(ray_vllm_prefix_cache_queries_total{ENGINE}{RATE})",
    "{{model_name}}",
)

BY_ACTOR = (
    'sum by (ip, actor) (label_replace(ray_component_rss_bytes{Component=~"ray::.+"}, '
    '"actor", "$1", "Component", "ray::([^.]+).*"))'
)
"""Ray names a process after its current call, as `ray::LearnerRank.publish`: the sum is one line per
actor."""
RECEIVED = (
    f"sum by (run, instance) (rate(dynalign_worker_weight_syncs_total{RUN}{RATE}))"
    f" * on (run, instance) group_left () dynalign_weight_bytes{RUN}"
)


def per(above: str, below: str, legend: str) -> Query:
    """The mean over the interval: a sum's rate by its count's."""
    return Query(f"rate(dynalign_{above}{RUN}{RATE}) / rate(dynalign_{below}{RUN}{RATE})", legend)


ROLLOUT = Dashboard(
    "dynalign-rollout",
    "dynalign / Rollout and engine",
    "Workers, weight versions, vLLM, and the nodes under them.",
    (
        Row(
            "Workers",
            (
                Panel(
                    "Workers",
                    "By state, and how many are wanted. `placing` waits for free resources in the cluster.",
                    (of("workers", "{{run}} {{state}}"), of("workers_wanted", "{{run}} wanted")),
                    width=8,
                ),
                Panel(
                    "Idle",
                    "Shares of a step: the learner waiting, workers without work. They size the pool, at 15 "
                    "% and 30 %.",
                    (
                        of("learner_wait_fraction", "{{run}} learner"),
                        of("rollout_idle_fraction", "{{run}} workers"),
                    ),
                    "percentunit",
                    most=1,
                ),
                Panel(
                    "Sizing",
                    "Changes of the wanted number, by direction and reason, since the coordinator's start.",
                    (
                        Query(
                            f"dynalign_autosize_decisions_total{RUN} or 0 * dynalign_workers_wanted{RUN}",
                            "{{run}} {{direction}} {{reason}}",
                        ),
                    ),
                ),
                Panel(
                    "Groups in flight",
                    "Waiting for a worker, with a worker, waiting for the learner.",
                    (
                        of("groups_pending", "{{run}} pending"),
                        of("groups_leased", "{{run}} leased"),
                        of("groups_scored", "{{run}} scored"),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Oldest lease",
                    "A group from lease to report. Far above the others: a straggler; beyond "
                    "deadlines.lease_s it is issued again.",
                    (of("oldest_lease_age_seconds"),),
                    "s",
                ),
                Panel(
                    "Room under the age bound",
                    "Groups that may be leased now. At 0 workers idle: they are as far ahead as "
                    "max_staleness permits.",
                    (of("ledger_capacity"),),
                ),
                Panel(
                    "Tokens sampled, by worker",
                    "One that falls behind the others sits on a slow node.",
                    (rate("worker_generated_tokens_total", "{{run}} {{worker}}"),),
                ),
                Panel(
                    "Candidates scored, by worker",
                    "Per second, and those to which judge.function gave no score.",
                    (
                        rate("worker_judgements_total", "{{run}} {{worker}}"),
                        rate("worker_judge_failures_total", "{{run}} {{worker}}, no score"),
                    ),
                ),
                Panel(
                    "A worker's time",
                    "Share of time with candidates in generation and in scoring (they may overlap), and "
                    "without work.",
                    (
                        Query(
                            f"avg by (run) (rate(dynalign_worker_generate_seconds_total{RUN}{RATE}))",
                            "{{run}} generating",
                        ),
                        Query(
                            f"avg by (run) (rate(dynalign_worker_score_seconds_total{RUN}{RATE}))",
                            "{{run}} scoring",
                        ),
                        Query(
                            f"avg by (run) (rate(dynalign_worker_idle_seconds_total{RUN}{RATE}))",
                            "{{run}} idle",
                        ),
                    ),
                    "percentunit",
                ),
                fraction(
                    "Truncated completions",
                    "Cut at max_completion_tokens. Many: the policy rambles, or the limit is too low.",
                    of("truncated_fraction"),
                    warn=0.3,
                    alarm=0.6,
                ),
            ),
        ),
        Row(
            "Weights",
            (
                Panel(
                    "Versions behind",
                    "Published minus held, by worker. It stays above the bound only where loading fails or "
                    "hangs.",
                    (
                        Query(
                            f"dynalign_policy_version{RUN} - on (run, instance) group_right () "
                            f"dynalign_worker_version{RUN}",
                            "{{run}} {{worker}}",
                        ),
                    ),
                    width=6,
                    least=None,
                ),
                Panel(
                    "Fetch and load",
                    "Seconds per version and worker.",
                    (
                        per(
                            "worker_weight_sync_seconds_total",
                            "worker_weight_syncs_total",
                            "{{run}} {{worker}}",
                        ),
                    ),
                    "s",
                    width=4,
                ),
                Panel(
                    "Generation paused",
                    "Seconds per version and worker: sequences in flight stand still.",
                    (
                        per(
                            "worker_weight_pause_seconds_total",
                            "worker_weight_syncs_total",
                            "{{run}} {{worker}}",
                        ),
                    ),
                    "s",
                    width=4,
                ),
                Panel(
                    "Publishing",
                    "Seconds until a version can be fetched.",
                    (of("weight_sync_seconds"),),
                    "s",
                    width=3,
                ),
                Panel(
                    "Size of a version", "Adapters, or all weights.", (of("weight_bytes"),), "bytes", width=3
                ),
                Panel(
                    "Weights received",
                    "Bytes per second into all workers.",
                    (Query(RECEIVED),),
                    "Bps",
                    width=4,
                ),
            ),
        ),
        Row(
            "vLLM",
            (
                Panel(
                    "Requests",
                    "In the batch, and waiting for a slot in it or for key-value cache.",
                    (
                        Query(f"ray_vllm_num_requests_running{ENGINE}", "{{model_name}} running"),
                        Query(f"ray_vllm_num_requests_waiting{ENGINE}", "{{model_name}} waiting"),
                    ),
                ),
                fraction(
                    "Key-value cache",
                    "Near 1 with requests waiting: rollout.kv_cache_gib sets the pace.",
                    Query(f"ray_vllm_kv_cache_usage_perc{ENGINE}", "{{model_name}}"),
                    warn=0.9,
                    alarm=0.98,
                ),
                Panel(
                    "Prefix cache",
                    "Share of prompt tokens found in the cache: a group's candidates share their prompt, and "
                    "their judge's.",
                    (CACHED,),
                    "percentunit",
                    most=1,
                ),
                Panel(
                    "Tokens",
                    "Per second: generated (verdicts included), and prompts prefilled.",
                    (
                        Query(
                            f"rate(ray_vllm_generation_tokens_total{ENGINE}{RATE})",
                            "{{model_name}} generated",
                        ),
                        Query(
                            f"rate(ray_vllm_prompt_tokens_total{ENGINE}{RATE})", "{{model_name}} prefilled"
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Time in the queue",
                    "95th percentile, all engines of a run.",
                    (
                        Query(
                            f"histogram_quantile(0.95, sum by (le) "
                            f"(rate(ray_vllm_request_queue_time_seconds_bucket{ENGINE}{RATE})))",
                            "95 %",
                        ),
                    ),
                    "s",
                    width=12,
                ),
            ),
        ),
        Row(
            "Nodes",
            (
                Panel(
                    "GPU",
                    "Utilization of each GPU.",
                    (Query("ray_node_gpus_utilization", "{{ip}} {{GpuIndex}}"),),
                    "percent",
                    width=6,
                    most=100,
                ),
                Panel(
                    "GPU memory",
                    "Share in use.",
                    (
                        Query(
                            "ray_node_gram_used / (ray_node_gram_used + ray_node_gram_available)",
                            "{{ip}} {{GpuIndex}}",
                        ),
                    ),
                    "percentunit",
                    width=6,
                    thresholds=bad_above(0.95, 0.99),
                    most=1,
                ),
                Panel(
                    "CPU",
                    "Utilization of each node.",
                    (Query("ray_node_cpu_utilization", "{{ip}}"),),
                    "percent",
                    width=6,
                    most=100,
                ),
                Panel(
                    "Memory",
                    "Share in use. Ray ends actors beyond 95 %.",
                    (Query("ray_node_mem_used / ray_node_mem_total", "{{ip}}"),),
                    "percentunit",
                    width=6,
                    thresholds=bad_above(0.85, 0.95),
                    most=1,
                ),
                Panel(
                    "Object store",
                    "Share in use. It holds the newest two weight versions and the groups in flight.",
                    (
                        Query(
                            "ray_object_store_used_memory / (ray_object_store_used_memory + "
                            "ray_object_store_available_memory)",
                            "{{NodeAddress}}",
                        ),
                    ),
                    "percentunit",
                    width=12,
                    thresholds=bad_above(0.8, 0.95),
                    most=1,
                ),
                Panel(
                    "Memory of actors",
                    "Resident bytes by kind of actor and node. The engine's own process is no actor: it "
                    "shows in the node's memory.",
                    (Query(BY_ACTOR, "{{ip}} {{actor}}"),),
                    "bytes",
                    width=12,
                ),
            ),
        ),
        Row(
            "Whom the judges ask",
            (
                Panel("Engines of judge.pool", "By state.", (of("pool_engines", "{{run}} {{state}}"),)),
                Panel(
                    "Endpoint",
                    "Tokens per second, questions that wait, and questions without an answer per second.",
                    (
                        rate("endpoint_tokens_total", "{{run}} {{endpoint}} tokens/s"),
                        of("endpoint_questions_in_flight", "{{run}} {{endpoint}} waiting"),
                        rate("endpoint_failures_total", "{{run}} {{endpoint}} failed"),
                    ),
                ),
                Panel(
                    "Money",
                    "Spent at each endpoint since the run began.",
                    (of("endpoint_cost_total", "{{run}} {{endpoint}}"),),
                ),
            ),
        ),
    ),
)
