"""What a panel's stance and a judge that ranks are asked; other judges' message is in `value_texts.py`.

Task, candidates and the reasons of other judges are data in all of them: no text in them can form a tag.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dynalign.rollout.judges.value_texts import UNIFIED, ValueTexts, as_data, filled, judge_user_message

TOKENS_PER_NUMBER = 4
"""Of a list of candidates: a number of up to three digits, its comma or its space."""


class Said(NamedTuple):
    """What a stance said in a round: Said("harm", 2.0, "It hides a cost.")."""

    stance: str
    """Its name."""
    grade: float
    """On the scale of the texts."""
    reason: str
    """Its rationale."""


def stance_message(
    texts: ValueTexts, stance: str, task: str, candidate: str, own: Said | None, others: Sequence[Said]
) -> str:
    """The message of one stance about one candidate.

    own: what the stance said in the round before, None in the first one; others: what the other stances said
    then. The stance comes last, so that all stances share the tokens before it."""
    asked = f"{judge_user_message(texts, UNIFIED, task, candidate)}\n\n{texts.stances[stance]}"
    if own is None:
        return asked
    values = {"own": _spoken(own), "others": "\n".join(map(_spoken, others))}
    return f"{asked}\n\n{filled(texts.round_template, values)}"


def ranked_message(texts: ValueTexts, task: str, candidates: Sequence[str]) -> str:
    """The message of a judge that ranks. candidates: in the order in which it is shown them, numbered from
    1."""
    shown = (
        f'<candidate number="{number}">\n{as_data(text)}\n</candidate>'
        for number, text in enumerate(candidates, 1)
    )
    values = {
        "definition": texts.definition,
        "rubric": texts.rubrics[UNIFIED],
        "task": as_data(task),
        "candidates": "\n".join(shown),
    }
    return filled(texts.ranked_template, values)


def _spoken(said: Said) -> str:
    # On one line: a reason that quotes a candidate cannot pass for the reply of another stance.
    return f"{said.stance}, grade {said.grade:g}: {' '.join(as_data(said.reason).split())}"
