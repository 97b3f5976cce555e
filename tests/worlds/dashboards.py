"""The Grafana dashboard Training, panel by panel, and the helpers that all four dashboards are written with.

`python -m tests.worlds.monitoring_files` writes k8s/monitoring/dashboards from them.
"""

from tests.worlds.grafana_model import Dashboard, Panel, Query, Row

RUN = '{run=~"$run"}'
RATE = "[$__rate_interval]"


def of(metric: str, legend: str = "{{run}}") -> Query:
    return Query(f"dynalign_{metric}{RUN}", legend)


def rate(metric: str, legend: str) -> Query:
    return Query(f"rate(dynalign_{metric}{RUN}{RATE})", legend)


def stat(
    title: str,
    description: str,
    query: Query,
    unit: str = "short",
    thresholds: tuple[tuple[float, str], ...] = (),
) -> Panel:
    return Panel(title, description, (query,), unit, "stat", 4, 4, thresholds, least=None)


def bad_above(warn: float, alarm: float) -> tuple[tuple[float, str], ...]:
    return (0, "green"), (warn, "orange"), (alarm, "red")


def fraction(title: str, description: str, *queries: Query, warn: float, alarm: float) -> Panel:
    return Panel(title, description, queries, "percentunit", thresholds=bad_above(warn, alarm), most=1)


SINCE_STEP = Query(
    f"time() - (dynalign_last_step_timestamp_seconds{RUN} or dynalign_run_started_timestamp_seconds{RUN})"
)
LEFT = Query(
    f"(dynalign_steps_wanted{RUN} - dynalign_step{RUN}) * avg_over_time(dynalign_step_seconds{RUN}[15m])"
)
STATE = Query(f"dynalign_run_state{RUN} == 1", "{{run}}: {{state}}")

TRAINING = Dashboard(
    "dynalign-training",
    "dynalign / Training",
    "Does it learn, how far is it, and what does a step cost.",
    (
        Row(
            "Now",
            (
                stat("State", "What the run does. Paused runs hold their devices.", STATE, "name"),
                stat(
                    "Progress",
                    "Committed steps by the steps that finish the run.",
                    Query(f"dynalign_step{RUN} / dynalign_steps_wanted{RUN}"),
                    "percentunit",
                ),
                stat("Time left", "Steps left, each as long as those of the last 15 minutes.", LEFT, "s"),
                stat(
                    "Since the last step",
                    "Beyond 10 minutes, and three of its steps, DynalignNoStep fires.",
                    SINCE_STEP,
                    "s",
                    bad_above(300, 600),
                ),
                stat("Reward", "Mean score of the last step's candidates, 0 to 5.", of("reward_mean")),
                stat(
                    "Held-out reward",
                    "The newest evaluation, answered without the system prompt: what the method is about.",
                    of("heldout_reward_mean"),
                ),
            ),
        ),
        Row(
            "Reward",
            (
                Panel(
                    "Reward",
                    "Training, and held-out prompts with and without the system prompt. Held-out must rise; "
                    "training alone is no proof.",
                    (
                        of("reward_mean", "{{run}} training"),
                        of("heldout_reward_mean", "{{run}} held-out"),
                        of("heldout_prompted_reward_mean", "{{run}} held-out, prompted"),
                    ),
                    width=12,
                    most=5,
                ),
                Panel(
                    "Spread within a group",
                    "Mean standard deviation of a group's scores: without spread there is nothing to learn "
                    "from.",
                    (of("reward_std"),),
                    width=6,
                ),
                Panel(
                    "Internalization gap",
                    "Nats per token between the prompted and the plain policy. The method wants it to fall; "
                    "it need not.",
                    (of("internalization_gap"),),
                    width=6,
                    least=None,
                ),
            ),
        ),
        Row(
            "Learner",
            (
                Panel(
                    "Loss",
                    "The GRPO loss has no level to reach; spikes matter.",
                    (of("loss"),),
                    width=6,
                    least=None,
                ),
                Panel(
                    "Gradient norm",
                    "Before clipping. A rising trend comes before a collapse.",
                    (of("grad_norm"),),
                    width=6,
                ),
                Panel(
                    "KL and entropy",
                    "KL to the initial policy (with algorithm.kl_coef) and entropy, nats per token. Entropy "
                    "near 0: a collapsed policy.",
                    (of("kl", "{{run}} KL"), of("entropy", "{{run}} entropy")),
                    width=6,
                ),
                Panel("Learning rate", "As scheduled.", (of("learning_rate"),), "sci", width=6),
                Panel(
                    "Importance ratio",
                    "Mean and largest ratio. The mean leaves 1 with stale or mismatched tokens.",
                    (of("ratio_mean", "{{run}} mean"), of("ratio_max", "{{run}} max")),
                    width=6,
                ),
                Panel(
                    "Clipped tokens",
                    "Share of tokens whose ratio was clipped. Beyond 20 % most of the gradient is gone.",
                    (of("clip_low_fraction", "{{run}} low"), of("clip_high_fraction", "{{run}} high")),
                    "percentunit",
                    width=6,
                    thresholds=bad_above(0.1, 0.2),
                ),
                Panel(
                    "Effective sample size",
                    "Share of tokens that count after weighting.",
                    (of("effective_sample_size"),),
                    "percentunit",
                    width=6,
                    most=1,
                ),
                Panel("Completions", "Mean length, in tokens.", (of("completion_length_mean"),), width=6),
            ),
        ),
        Row(
            "What a step costs",
            (
                Panel(
                    "Time of a step",
                    "The learner's wait, its work, and the publishing. A wait that dominates: more workers. "
                    "None: more learner.",
                    (
                        of("learner_wait_seconds", "{{run}} waiting"),
                        of("learn_seconds", "{{run}} learning"),
                        of("weight_sync_seconds", "{{run}} publishing"),
                    ),
                    "s",
                    stacked=True,
                ),
                Panel(
                    "Tokens per second",
                    "Sampled by all workers, and trained. Lasting difference: the slower side sets the pace.",
                    (
                        of("generate_tokens_per_second", "{{run}} sampled"),
                        of("learn_tokens_per_second", "{{run}} trained while learning"),
                    ),
                ),
                Panel(
                    "Age of trained tokens",
                    "Versions between sampling and training: mean, oldest, and the bound that is never "
                    "passed.",
                    (
                        of("staleness_mean", "{{run}} mean"),
                        of("staleness_max", "{{run}} oldest"),
                        of("staleness_bound", "{{run}} bound"),
                    ),
                ),
                Panel(
                    "Versions of held-out answers",
                    "The oldest that the newest evaluation is of, and the policy's now. With "
                    "heldout.waits=false an evaluation takes several steps.",
                    (
                        of("heldout_version_min", "{{run}} oldest answer"),
                        of("policy_version", "{{run}} policy"),
                    ),
                ),
                Panel(
                    "Age of trained groups",
                    "Groups per second by the age of their oldest token.",
                    (Query(f"sum by (le) (rate(dynalign_group_staleness_bucket{RUN}{RATE}))", "{{le}}"),),
                    "short",
                    "heatmap",
                ),
                Panel(
                    "GPU-seconds per trained group",
                    "GPUs held, times the step's wall time, by its groups; 0 on CPUs.",
                    (of("gpu_seconds_per_trained_group"),),
                    "s",
                ),
                Panel("Groups trained", "Since the run began.", (of("groups_trained_total"),)),
            ),
        ),
    ),
)
