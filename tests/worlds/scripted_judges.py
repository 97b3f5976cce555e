"""Judges of known worth, behind the protocol `Judge`: each is a function of prompt, text, place and seed."""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dynalign.rollout.records import Verdict

Score = Callable[[str, str, int, random.Random], float | None]
"""f(prompt, text, place in the group, randomness of this call) -> points; None: not readable."""


@dataclass(frozen=True)
class ScriptedJudge:
    """Scores by a function. Its randomness depends on the seed and the text, not on the order of calls."""

    points: Score

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        return [self._verdict(prompt, text, place, seed) for place, text in enumerate(texts_G)]

    def _verdict(self, prompt: str, text: str, place: int, seed: int) -> Verdict:
        digest = hashlib.sha256(f"{seed}/{prompt}/{text}".encode()).digest()
        points = self.points(prompt, text, place, random.Random(digest))
        if points is None:
            return Verdict(None, "unparsed", text="I would rather not say.")
        return Verdict(min(5.0, max(0.0, points)), "parsed")


def quality(prompt: str, text: str) -> float:
    """Points of an answer in `good_answer`'s form: its topic, its completeness, the order of its steps."""
    topic = prompt.split()[-1]
    if topic not in text:
        return 0.5
    steps = [word for word in ("First", "Then", "Finally") if word in text]
    in_order = [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)
    return 1.0 + len(steps) + (0.8 if in_order else 0.0)


def good_answer(topic: str) -> str:
    return (
        f"First look at the {topic} closely. Then mend the {topic} with care. Finally test the {topic} well."
    )


PERFECT = ScriptedJudge(lambda prompt, text, place, rng: quality(prompt, text))
RANDOM = ScriptedJudge(lambda prompt, text, place, rng: rng.uniform(0, 5))
LENGTH = ScriptedJudge(lambda prompt, text, place, rng: len(text) / 100)
CONSTANT = ScriptedJudge(lambda prompt, text, place, rng: 3.0)
UNREADABLE = ScriptedJudge(lambda prompt, text, place, rng: None)
HALF_READABLE = ScriptedJudge(
    lambda prompt, text, place, rng: quality(prompt, text) if rng.random() < 0.5 else None
)
FIRST_PLACE = ScriptedJudge(lambda prompt, text, place, rng: 3.0 - 0.25 * place)
"""Scores nothing but the place: the first of G gets 0.25·(G - 1) points more than the last."""


def noisy(noise: float, quality_of: Callable[[str], float]) -> ScriptedJudge:
    """A judge whose scores are a text's quality plus normal noise, both in points."""
    return ScriptedJudge(lambda prompt, text, place, rng: quality_of(text) + rng.gauss(0, noise))
