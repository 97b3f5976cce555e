"""Good answers from a file: JSON Lines with `prompt` or `id`, `answer`, and if there is one `paraphrase`.

    {"id": "craft-004", "answer": "Find the edges of the hole …", "paraphrase": "First look where …"}

It may be the file of the prompts itself, with these fields added; rows without `answer` are passed over.
"""

from collections.abc import Mapping, Sequence

from dynalign.configs.errors import Mistake, UserError
from dynalign.evaluation.judge_check.sheet import GoodAnswers
from dynalign.rollout.prompt_sources import read_rows
from dynalign.rollout.prompts import Prompt


def given_answers(source: str, prompts: Sequence[Prompt]) -> GoodAnswers:
    """The good answers to these prompts that a file has.

    Raises UserError with every mistake: of another kind than .jsonl, unreadable, a field that is no text, or
    no answer to any of these prompts."""
    if not source.endswith(".jsonl"):
        remedy = "give a .jsonl file with the fields prompt (or id) and answer"
        raise UserError([Mistake("--answers", source, "is no .jsonl file", remedy)])
    mistakes: list[Mistake] = []
    known = {prompt.id: prompt.id for prompt in prompts}
    known |= {prompt.prompt.strip(): prompt.id for prompt in prompts}
    answers: dict[str, str] = {}
    paraphrases: dict[str, str] = {}
    for place, row in read_rows(source, mistakes):
        wrong = [name for name in ("answer", "paraphrase") if not _is_text(row.get(name))]
        mistakes += [
            Mistake(place, row[name], f"{name!r} is no text", "write the answer alone") for name in wrong
        ]
        prompt_id = _prompt_of(row, known)
        if wrong or prompt_id is None or not str(row.get("answer") or "").strip():
            continue
        answers[prompt_id] = str(row["answer"])
        if str(row.get("paraphrase") or "").strip():
            paraphrases[prompt_id] = str(row["paraphrase"])
    if not answers and not mistakes:
        rule = f"answers none of the {len(prompts)} held-out prompts"
        mistakes.append(Mistake("--answers", source, rule, "give their ids or texts, each with an answer"))
    if mistakes:
        raise UserError(mistakes)
    return GoodAnswers(answers, paraphrases)


def _is_text(value: object) -> bool:
    """Whether a field is absent, or a text that can be written to a file: half of a surrogate pair cannot."""
    return value is None or (isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value))


def _prompt_of(row: Mapping[str, object], known: Mapping[str, str]) -> str | None:
    """The id of the prompt that a row answers; None for another prompt."""
    for value in (row.get("id"), row.get("prompt")):
        if value is not None and str(value).strip() in known:
            return known[str(value).strip()]
    return None
