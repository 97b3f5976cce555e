"""The first row of the Grafana dashboard Self-reward health: what the alarms look at, and which fire."""

from dynalign.configs.sections.alarms import AlarmsSettings
from tests.worlds.dashboards import RUN, of
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
