"""The Grafana dashboards Self-reward health and Faults."""

from tests.worlds.dashboards import RUN, STATE, bad_above, fraction, of, rate, stat
from tests.worlds.dashboards_judges import JUDGE_COSTS, JUDGES
from tests.worlds.grafana_model import Dashboard, Panel, Query, Row

WITHOUT_SIGNAL = (
    "sum by (run) (increase(dynalign_groups_withheld_total"
    '{run=~"$run",reason=~"low_signal|unparsed|empty"}[30m]))'
)
RESTARTED = (
    f"sum by (run, kind, cause) (increase(dynalign_restarts_total{RUN}[10m])) > 0 "
    f"or 0 * sum by (run) (dynalign_restarts_total{RUN})"
)
LAW = (
    f"dynalign_groups_issued_total{RUN} - dynalign_groups_pending{RUN} - dynalign_groups_leased{RUN}"
    f" - dynalign_groups_scored{RUN} - dynalign_groups_trained_total{RUN}"
    f" - sum without (reason) (dynalign_groups_withheld_total{RUN})"
)

SELF_REWARD = Dashboard(
    "dynalign-self-reward",
    "dynalign / Self-reward health",
    "Can the scores still be believed.",
    (
        JUDGES,
        Row(
            "Is there a signal",
            (
                fraction(
                    "Groups without signal",
                    "Share of the step's groups whose scores do not differ beyond noise. They are withheld "
                    "and replaced.",
                    of("no_signal_fraction"),
                    warn=0.5,
                    alarm=0.75,
                ),
                fraction(
                    "Saturated scores",
                    "Within 0.1 points of 0 or 5: no room to rise, and none to differ.",
                    of("score_saturation_fraction"),
                    warn=0.5,
                    alarm=0.9,
                ),
                Panel(
                    "Spread within a group",
                    "Standard deviation of scores, and the judge's own noise. Spread near noise teaches "
                    "nothing.",
                    (of("reward_std", "{{run}} spread"), of("judge_noise_std", "{{run}} noise")),
                ),
                Panel(
                    "Reliability of the advantages",
                    "1 - noise / variance within groups, withheld ones too. Below 0.5 it is mostly noise.",
                    (of("advantage_reliability"),),
                    thresholds=((0, "red"), (0.5, "orange"), (0.8, "green")),
                    most=1,
                ),
                Panel(
                    "Withheld groups",
                    "Per second, by reason, also between steps.",
                    (rate("groups_withheld_total", "{{run}} {{reason}}"),),
                    stacked=True,
                    width=12,
                ),
                Panel(
                    "No signal, on time",
                    "Share of the groups settled in the last half hour, steps or no steps; "
                    "DynalignNoSignal reads it.",
                    (
                        Query(
                            f"{WITHOUT_SIGNAL} / ({WITHOUT_SIGNAL} + sum by (run) "
                            f"(increase(dynalign_groups_trained_total{RUN}[30m])))"
                        ),
                    ),
                    "percentunit",
                    width=12,
                    thresholds=bad_above(0.5, 0.75),
                    most=1,
                ),
            ),
        ),
        Row(
            "Does the judge understand",
            (
                fraction(
                    "Unparsed verdicts",
                    "Verdicts that cannot be read. Such a candidate gets no advantage.",
                    of("unparsed_fraction", "{{run}} trained groups"),
                    of("unreadable_fraction", "{{run}} withheld ones too"),
                    warn=0.05,
                    alarm=0.2,
                ),
                fraction(
                    "Answers that look like attacks",
                    "Shapes of known attacks on judges, spellings of control tokens. Up to 2 % is chance.",
                    of("injection_fraction"),
                    warn=0.02,
                    alarm=0.1,
                ),
                Panel(
                    "Digit mass",
                    "Probability that the judge answers with one of the six digits; below "
                    "judge.min_digit_mass a verdict is unparsed.",
                    (of("digit_mass_mean"),),
                    "percentunit",
                    thresholds=((0, "red"), (0.1, "orange"), (0.5, "green")),
                    most=1,
                ),
                Panel(
                    "Engine against learner",
                    "Nats per token, on a sample of the candidates. 0.03 to 0.04 is usual in bfloat16; far "
                    "more is another model.",
                    (of("logprob_mismatch_mean"),),
                    thresholds=bad_above(0.08, 0.15),
                ),
            ),
        ),
        JUDGE_COSTS,
        Row(
            "What it does to the policy",
            (
                Panel(
                    "Answers",
                    "Mean length in tokens: a trend here with a rising reward is a judge that is played.",
                    (of("completion_length_mean"),),
                ),
                Panel(
                    "Entropy", "Nats per token. Falling to 0: one answer for everything.", (of("entropy"),)
                ),
                Panel(
                    "Internalization gap",
                    "Nats per token between the prompted and the plain policy.",
                    (of("internalization_gap"),),
                    least=None,
                ),
            ),
        ),
    ),
)

FIRING = 'count by (alertname) (ALERTS{alertname=~"Dynalign.+",alertstate="firing"})'

FAULTS = Dashboard(
    "dynalign-faults",
    "dynalign / Faults",
    "What died, what was done about it, and what is about to go wrong.",
    (
        Row(
            "Now",
            (
                stat(
                    "Alerts firing",
                    "k8s/monitoring/rules.yaml says what each means and what to do.",
                    Query(f"sum({FIRING}) or vector(0)", "alerts"),
                    thresholds=((0, "green"), (1, "red")),
                ),
                stat("State", "What the run does.", STATE, "name"),
                stat("Lineage", "Counts starts and returns to a checkpoint.", of("lineage")),
                stat(
                    "Supervision",
                    "Seconds since the driver last looked. Nothing is replaced while it does not.",
                    Query(f"time() - dynalign_look_timestamp_seconds{RUN}"),
                    "s",
                    bad_above(30, 120),
                ),
                stat(
                    "Groups unaccounted for",
                    "issued - pending - leased - scored - trained - withheld: always 0.",
                    Query(LAW),
                    "short",
                    bad_above(1, 1),
                ),
                stat(
                    "Disk left",
                    "Share of the run folder's file system.",
                    Query(f"dynalign_run_folder_free_bytes{RUN} / dynalign_run_folder_size_bytes{RUN}"),
                    "percentunit",
                    ((0, "red"), (0.1, "orange"), (0.2, "green")),
                ),
            ),
        ),
        Row(
            "Deaths and restarts",
            (
                Panel(
                    "Alerts",
                    "Firing, by name.",
                    (
                        Query(
                            f'{FIRING} or label_replace(vector(0), "alertname", "none", "", "")',
                            "{{alertname}}",
                        ),
                    ),
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "State",
                    "Of the run, over time.",
                    (Query(f"dynalign_run_state{RUN} == 1", "{{run}} {{state}}"),),
                    kind="state-timeline",
                    width=12,
                ),
                Panel(
                    "Restarts",
                    "Actors replaced in the last ten minutes, by kind and cause. events.jsonl in the run "
                    "folder has a line for each.",
                    (
                        Query(
                            RESTARTED,
                            "{{run}} {{kind}} {{cause}}",
                        ),
                    ),
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Workers missing",
                    "Wanted minus serving. Lasting: the cluster is full, or workers fail to start.",
                    (
                        Query(
                            f"dynalign_workers_wanted{RUN} - ignoring (state) "
                            'dynalign_workers{run=~"$run",state="serving"}'
                        ),
                    ),
                    width=12,
                    least=None,
                ),
            ),
        ),
        Row(
            "Work done twice",
            (
                Panel(
                    "Requeued, late, rolled back",
                    "Groups per second: leases given back, reports refused, progress undone.",
                    (
                        rate("groups_requeued_total", "{{run}} requeued"),
                        rate("groups_late_total", "{{run}} late"),
                        rate("groups_rolled_back_total", "{{run}} rolled back"),
                    ),
                ),
                Panel(
                    "Weight versions that failed",
                    "Workers ended over a version, since the run's driver began, and versions that the "
                    "object store had to bring.",
                    (
                        of("weight_sync_failures_total"),
                        of("worker_weight_fallbacks_total", "{{run}} {{worker}} by the object store"),
                    ),
                ),
                Panel(
                    "Waiting for a straggler",
                    "Seconds of the last step spent on a late group while younger ones were scored.",
                    (of("straggler_wait_seconds"),),
                    "s",
                ),
            ),
        ),
        Row(
            "What a crash would cost",
            (
                Panel(
                    "Steps since the newest checkpoint",
                    "What a failed learner has to do again. Checkpoints made before this coordinator began "
                    "do not show.",
                    (Query(f"dynalign_step{RUN} - dynalign_checkpoint_step{RUN}"),),
                ),
                Panel(
                    "Age of the newest checkpoint",
                    "Seconds.",
                    (Query(f"time() - dynalign_checkpoint_timestamp_seconds{RUN}"),),
                    "s",
                ),
                Panel(
                    "Checkpoints that failed",
                    "Since the coordinator's start; beyond checkpoint.failures in a row the run ends.",
                    (of("checkpoint_failures_total"),),
                ),
                Panel(
                    "Disk",
                    "Free space of the run folder's file system, and where it stands in four hours at the "
                    "pace of the last one.",
                    (
                        of("run_folder_free_bytes", "{{run}} free"),
                        of("run_folder_size_bytes", "{{run}} size"),
                        Query(
                            f"clamp_min(predict_linear(dynalign_run_folder_free_bytes{RUN}[1h], 4 * 3600), "
                            f"0)",
                            "{{run}} free in 4 h",
                        ),
                    ),
                    "bytes",
                ),
                Panel(
                    "Mirror",
                    "Steps that checkpoint.mirror is behind the newest checkpoint, and copies that failed. "
                    "Lasting: DynalignMirrorBehind.",
                    (
                        Query(f"dynalign_checkpoint_step{RUN} - dynalign_mirror_step{RUN}", "{{run}} behind"),
                        of("mirror_failures_total", "{{run}} failed"),
                    ),
                ),
                Panel(
                    "Start-up",
                    "Seconds from the coordinator's start to its first commit: what every restart of the "
                    "learner costs.",
                    (of("time_to_first_step_seconds"),),
                    "s",
                ),
            ),
        ),
    ),
)
