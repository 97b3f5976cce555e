"""Scores that an experiment keeps: who is asked, about which answers, and where the scores go.

A model is opened once for all that it is asked. A score is kept by the content of prompt and answer, so that
the report needs no model, and another call asks only for what is missing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalign.configs.errors import Mistake, RecordError, UserError
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.evaluation.pairwise.scoring import score_answers
from dynalign.launch.commands.evaluate_opening import OpenSubject
from dynalign.launch.commands.evaluate_subjects import Subject
from dynalign.launch.interrupts import run_async
from dynalign.launch.prompt_check import SlowWork
from dynalign.rollout.judges.value_texts import ValueTexts
from dynalign.run_folder import durable

Asked = tuple[str, str]
"""Prompt and answer."""
ByRubric = Mapping[str, float | None]
"""Rubric → points; `whole` for that of the whole value; None for a verdict that cannot be read."""


def third_settings(judge: JudgeSettings, who: Subject) -> JudgeSettings:
    """How a third judge scores, on the scale that the runs' texts use. Endpoints often give no
    log-probabilities of digits, and a grade of two digits is no token."""
    one_digit = judge.highest_grade <= 9
    return JudgeSettings(
        scorer="expected" if who.endpoint is None and one_digit else "sampled",
        lowest_grade=judge.lowest_grade,
        highest_grade=judge.highest_grade,
        min_digit_mass=judge.min_digit_mass,
        max_rationale_tokens=judge.max_rationale_tokens,
    )


def answer_key(prompt: str, answer: str) -> str:
    """24 hexadecimal characters over prompt and answer."""
    text = json.dumps([prompt, answer], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class ScoreFile:
    """Where scores of one judge are kept: `ScoreFile(folder / "judged.json", "dynalign.judged/1", place)`."""

    path: Path
    """The file."""
    format: str
    """Its format, with a number."""
    place: str
    """The setting that names the judge, for messages."""

    def read(self, content: str | None = None) -> dict[str, Any]:
        """Answer, by its key → what was kept of it. content: of the judge who is to give more; None: of any.

        Raises RecordError for a damaged file, UserError where another judge gave them."""
        try:
            kept = json.loads(self.path.read_text("utf-8"))
            if kept["format"] != self.format:
                raise RecordError(
                    f"{self.path} has format {kept['format']!r}, this version reads {self.format}"
                )
            judge = str(kept["judge"])
            same = content in (None, kept["content"])
            scores: dict[str, Any] = dict(kept["scores"])
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{self.path}: holds no scores ({error!r}); remove it") from error
        if not same:
            rule = f"{judge} has scored answers of this experiment"
            remedy = f"name it again, or remove {self.path} to have all scored anew"
            raise UserError([Mistake(self.place, None, rule, remedy)])
        return scores

    def write(self, who: Subject, scores: Mapping[str, Any]) -> None:
        """Keeps all scores of a judge, in place of what was there."""
        content = {"format": self.format, "judge": who.name, "content": who.content, "scores": scores}
        durable.write(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class ScoringWork:
    """What one model is asked: `ScoringWork(who, JudgeSettings(), (texts,), pairs, file, kept)`."""

    who: Subject
    """Who is asked."""
    how: JudgeSettings
    """How a score is made."""
    texts: tuple[ValueTexts, ...]
    """The rubrics, those of one set after the other."""
    missing: Mapping[str, Asked]
    """Answers without a score, by their key."""
    file: ScoreFile
    """Where the scores go."""
    kept: Mapping[str, Any]
    """What it holds already."""
    whole_alone: bool
    """Whether the score of the whole value is kept by itself, and not by its name."""


def do_all(works: Sequence[ScoringWork], open_subject: OpenSubject, seed: int) -> None:
    """Asks for what is missing, and keeps it, model after model.

    Raises EndpointUnreachable or BudgetReached; what was answered is in the journal."""
    left = [work for work in works if work.missing]
    for who in {work.who.content: work.who for work in left}.values():
        of_model = [work for work in left if work.who.content == who.content]
        run_async(_of_one_model(who, of_model, open_subject, seed))


async def _of_one_model(
    who: Subject, works: Sequence[ScoringWork], open_subject: OpenSubject, seed: int
) -> None:
    async with open_subject(who, "judge") as asked:
        for work in works:
            pairs = list(work.missing.values())
            found: list[dict[str, float | None]] = [{} for _ in pairs]
            for texts in work.texts:
                rubrics = ", ".join(texts.rubrics)
                progress = SlowWork(f"of {len(pairs):,} answers scored by {who.name} ({rubrics})")
                scored = await score_answers(asked, texts, work.how, pairs, seed, progress=progress)
                for every, some in zip(found, scored, strict=True):
                    every.update(some)
            named = zip(work.missing, found, strict=True)
            new = {key: next(iter(by.values())) if work.whole_alone else by for key, by in named}
            work.file.write(who, {**work.kept, **new})
