"""Two rows of the Grafana dashboard Self-reward health: what the alarms look at, and what judging costs."""

from dynalign.configs.sections.alarms import AlarmsSettings
from tests.worlds.dashboards import RUN, fraction, of, rate
from tests.worlds.grafana_model import Panel, Query, Row

JUDGES = Row(
    "Does the reward mean anything",
    (
        Panel(
            "Live and frozen judge",
            "The same candidates scored by the policy of today and by the initial one: where they "
            "part, the judge changed. "
            "Without a frozen judge there is one line.",
            (of("reward_mean", "{{run}} live"), of("frozen_judge_reward_mean", "{{run}} frozen")),
            width=12,
            most=5,
        ),
        Panel(
            "Alarms",
            "1 while an alarm fires (docs/alarms.md); events.jsonl and the report say what was seen "
            "and what to do.",
            tuple(of(f"alarm_{name}", f"{{{{run}}}} {name}") for name in AlarmsSettings.model_fields),
            width=12,
            most=1,
        ),
        Panel(
            "Training minus held-out",
            "Points between training prompts and held-out ones, both with the system prompt. "
            "It counts by how much it grows: prompts differ in difficulty.",
            (Query(f"dynalign_reward_mean{RUN} - dynalign_heldout_prompted_reward_mean{RUN}"),),
            width=6,
            least=None,
        ),
        Panel(
            "Score follows length",
            "Pearson's correlation, over all candidates and within groups. A rise: length pays.",
            (
                of("score_length_correlation", "{{run}} all"),
                of("score_length_correlation_within", "{{run}} within groups"),
            ),
            width=6,
            least=-1,
            most=1,
        ),
        Panel(
            "Score less the second judge's",
            "Points, over the candidates that both have scored. Where it moves, one of them changed.",
            (of("second_judge_gap"),),
            width=6,
            least=None,
        ),
        Panel(
            "Order and bias",
            "Within groups: rank correlation with the second judge, and correlation of the policy's "
            "confidence with the score and with the judge's error.",
            (
                of("second_judge_rank_correlation", "{{run}} second judge's order"),
                of("score_confidence_correlation", "{{run}} score and confidence"),
                of("self_bias_correlation", "{{run}} error and confidence"),
            ),
            width=6,
            least=-1,
            most=1,
        ),
        Panel(
            "Aspects",
            "Points between the rubric's best and worst aspect, where they are scored apart.",
            (of("aspect_spread"),),
            width=6,
        ),
        Panel(
            "Capability probe",
            "Score less that before training, and its standard error.",
            (
                of("capability_change", "{{run}} change"),
                of("capability_change_se", "{{run}} standard error"),
            ),
            "percentunit",
            width=6,
            least=None,
        ),
    ),
)

JUDGE_COSTS = Row(
    "Who judges, and what it costs",
    (
        fraction(
            "Failed calls",
            "Share of the step's questions to judges whose call failed. Such a candidate has no score; "
            "a group with too few is withheld as judge_unreachable.",
            of("unreachable_fraction"),
            warn=0.1,
            alarm=0.5,
        ),
        Panel(
            "Questions",
            "Per second, by who is asked, and those whose call failed.",
            (
                rate("worker_judge_questions_total", "{{run}} {{worker}} {{judge}}"),
                rate("worker_judge_failed_calls_total", "{{run}} {{worker}} {{judge}} failed"),
            ),
        ),
        Panel(
            "Seconds of questions",
            "Per second, by who is asked: how many questions are under way on average.",
            (rate("worker_judge_seconds_total", "{{run}} {{worker}} {{judge}}"),),
        ),
        Panel(
            "Tokens of judges and measures",
            "Read and written per second by who is asked, and per step; of the capability probe and of "
            "held-out answers, those beside the groups.",
            (
                rate("worker_judge_prompt_tokens_total", "{{run}} {{worker}} {{judge}} read"),
                rate("worker_judge_completion_tokens_total", "{{run}} {{worker}} {{judge}} written"),
                of("judge_tokens", "{{run}} per step"),
                of("capability_tokens", "{{run}} capability probe, per step"),
                of("evaluation_tokens", "{{run}} held-out answers, per step"),
            ),
        ),
        Panel(
            "Judges' money",
            "In the currency of the endpoints' prices: by who is asked so far, and per step.",
            (
                of("worker_judge_money_total", "{{run}} {{worker}} {{judge}}"),
                of("judge_money", "{{run}} per step"),
            ),
        ),
        Panel(
            "Liking for a place",
            "Of a judge that ranks: correlation of scores with the places it was shown. Below 0 it "
            "likes the first; the places are shuffled, so it costs signal and favours nobody.",
            (of("score_position_correlation"),),
            least=-1,
            most=1,
        ),
    ),
)
