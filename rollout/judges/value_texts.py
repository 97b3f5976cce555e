"""The written value as texts: definition, system prompt, rubrics, and the judge's message made of them.

The texts are package data in `rollout/values/`. A user's own folder with the same file names replaces all
of them.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.user_files import UnreadableFile, read_file

ASPECTS = ("knowledge", "power", "vitality", "benevolence")
RUBRIC_NAMES: Mapping[str, tuple[str, ...]] = {"unified": ("unified",), "factorized": ASPECTS}
"""`judge.rubric` → the names of the rubrics it applies, in the order of their verdicts."""

PLACEHOLDERS = ("definition", "rubric", "task", "candidate")
"""What a judge's template must contain, each once, `{candidate}` last."""
JUDGE_PREFILLS: Mapping[str, str] = {"expected": "Grade: ", "sampled": ""}
"""`judge.scorer` → the text with which the judge's answer begins.

Without it a small chat model starts a sentence: SmolLM2-135M puts 0.16 of its mass on the six digits, with
it 0.85. It ends in a space because a digit after a space is a token of its own."""

_MOST_BYTES = 1 << 20
"""Of one text. A judge's context of 100,000 tokens has about half of it."""
_DEFINITION_FILE = "collective_agency.md"
_SYSTEM_FILE = "generation_system.txt"
_ANY_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_TAG_OPENING = re.compile(r"<(?=\S)|\[(?=/?[a-z]?[A-Z_]+\])")


@dataclass(frozen=True)
class ValueTexts:
    """The texts that steer generation and judging, without surrounding white space.

    Example, shortened:

        ValueTexts(
            definition="Collective Agency is …",
            generation_system="Let Collective Agency grow through your answer: …",
            rubrics={"unified": "0: empty …"},
            judge_template="You grade one answer … {definition} {rubric} {task} {candidate} …",
            judge_prefill="Grade: ",
            definition_hash="3f1c08a2b6d94e57",
            rubric_hash="a90d6b1e2c3f4875",
        )
    """

    definition: str
    """The value definition, which the judge reads."""
    generation_system: str
    """s, the system prompt of the sampling context."""
    rubrics: Mapping[str, str]
    """Name → text of each rubric in use."""
    judge_template: str
    """The judge's user message, with the placeholders `PLACEHOLDERS`."""
    judge_prefill: str
    """The text with which the judge's answer begins."""
    definition_hash: str
    """16 hexadecimal characters of SHA-256 over the files of the definition and the system prompt."""
    rubric_hash: str
    """The same over the rubrics in use, the judge's template and `judge_prefill`."""


def load_value_texts(
    folder: Path | None, rubric: Literal["unified", "factorized"], scorer: Literal["expected", "sampled"]
) -> ValueTexts:
    """Reads the texts that this rubric and scorer need, from `folder` or, if None, from the package.

    Raises UserError for an absent folder, or one that lists every missing, unreadable, non-UTF-8 or empty
    file and every wrong placeholder.
    """
    root = Path(str(files("dynalign.rollout").joinpath("values"))) if folder is None else folder
    if not root.is_dir():
        rule = "is not a folder" if root.exists() else "does not exist"
        remedy = f"name a folder with {_DEFINITION_FILE} and the other texts, as in rollout/values, or null"
        raise UserError([Mistake("judge.values", str(root), rule, remedy)])
    rubric_files = {name: f"rubric_{name}.txt" for name in RUBRIC_NAMES[rubric]}
    judge_file = f"judge_{scorer}.txt"
    mistakes: list[Mistake] = []
    contents: dict[str, bytes] = {}
    texts: dict[str, str] = {}
    for name in (_DEFINITION_FILE, _SYSTEM_FILE, *rubric_files.values(), judge_file):
        try:
            contents[name] = read_file(root / name, _MOST_BYTES)
            texts[name] = contents[name].decode("utf-8-sig").strip()
        except UnreadableFile as error:
            rule = f"cannot be read ({error})"
            mistakes.append(Mistake(f"{root}/{name}", None, rule, "add this text file"))
        except UnicodeDecodeError as error:
            rule = f"byte {error.start} is not UTF-8"
            mistakes.append(Mistake(f"{root}/{name}", None, rule, "save the file as UTF-8"))
        else:
            if not texts[name]:
                mistakes.append(Mistake(f"{root}/{name}", None, "is empty", "write the text"))
    if texts.get(judge_file):
        mistakes += _template_mistakes(f"{root}/{judge_file}", texts[judge_file])
    if mistakes:
        raise UserError(mistakes)
    prefill = JUDGE_PREFILLS[scorer]
    judging = [*(contents[name] for name in (*rubric_files.values(), judge_file)), prefill.encode()]
    return ValueTexts(
        definition=texts[_DEFINITION_FILE],
        generation_system=texts[_SYSTEM_FILE],
        rubrics={name: texts[file] for name, file in rubric_files.items()},
        judge_template=texts[judge_file],
        judge_prefill=prefill,
        definition_hash=_hash(contents[name] for name in (_DEFINITION_FILE, _SYSTEM_FILE)),
        rubric_hash=_hash(judging),
    )


def judge_user_message(texts: ValueTexts, rubric_name: str, task: str, candidate: str) -> str:
    """The judge's user message for one candidate and one rubric.

    Task and candidate are data: no text in them can form a tag or a placeholder, so the message around
    them is the same for all. Raises KeyError for a rubric that was not loaded."""
    values = {
        "definition": texts.definition,
        "rubric": texts.rubrics[rubric_name],
        "task": as_data(task),
        "candidate": as_data(candidate),
    }
    return _PLACEHOLDER.sub(lambda found: values[found[1]], texts.judge_template)


def as_data(text: str) -> str:
    """The text with a space after each character that could open a tag.

    These are a `<` that touches what follows, and the `[` of an upper-case control word. So the text
    closes no delimiter and spells no special token of a chat template (`</candidate>`, `<|im_end|>`,
    `[/INST]`), while it reads the same to the judge."""
    return _TAG_OPENING.sub(lambda found: found[0] + " ", text)


def _template_mistakes(file: str, template: str) -> list[Mistake]:
    found = _PLACEHOLDER.findall(template)
    mistakes = []
    for name in PLACEHOLDERS:
        if (times := found.count(name)) != 1:
            rule = f"{{{name}}} stands there {times} times, not once"
            mistakes.append(Mistake(file, None, rule, f"write {{{name}}} once"))
    for name in dict.fromkeys(_ANY_PLACEHOLDER.findall(template)):
        if name not in PLACEHOLDERS:
            rule = f"{{{name}}} is no placeholder, and the judge would read it as it stands"
            known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
            mistakes.append(Mistake(file, None, rule, f"write one of {known}, or leave out the braces"))
    if not mistakes and found[-1] != "candidate":
        rule = "{candidate} must come last: what precedes it is computed once for a whole group"
        mistakes.append(Mistake(file, None, rule, f"move {{{found[-1]}}} before it"))
    return mistakes


def _hash(contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:16]
