"""The written value as texts: definition, system prompt, rubrics, judge template, and the judge's message made of them.

The texts are package data in `rollout/values/`; a folder of the user's own with the same file names replaces all of them.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from dynalign.configs.errors import Mistake, UserError

ASPECTS = ("knowledge", "power", "vitality", "benevolence")
RUBRIC_NAMES: Mapping[str, tuple[str, ...]] = {"unified": ("unified",), "factorized": ASPECTS}
"""The rubrics that each `rubric` setting applies, in the order of their verdicts."""

PLACEHOLDERS = ("definition", "rubric", "task", "candidate")
JUDGE_PREFILLS: Mapping[str, str] = {"expected": "Grade: ", "sampled": ""}
"""How the judge's own turn opens. Without it a small chat model starts a sentence: SmolLM2-135M puts 0.16 of its mass on
the six digits, with it 0.85. It ends in a space because a digit after a space is its own token."""

_DEFINITION_FILE, _SYSTEM_FILE = "collective_agency.md", "generation_system.txt"
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_TAG_OPENING = re.compile(r"<(?=\S)|\[(?=/?[a-z]?[A-Z_]+\])")


@dataclass(frozen=True)
class ValueTexts:
    """Everything in words that generation and judging are steered by. Texts are stripped of surrounding white space.

    `definition_hash` covers the definition and the system prompt, `rubric_hash` the rubrics in use, the judge template and
    `judge_prefill`: each 16 hexadecimal characters of SHA-256 over the files' bytes. `rubrics` maps names to texts.
    """

    definition: str
    generation_system: str
    rubrics: Mapping[str, str]
    judge_template: str
    judge_prefill: str
    definition_hash: str
    rubric_hash: str


def load_value_texts(
    folder: Path | None, rubric: Literal["unified", "factorized"], scorer: Literal["expected", "sampled"]
) -> ValueTexts:
    """Read the texts that this rubric and scorer need, from `folder` or, if None, from the package.

    Raises UserError with every missing, unreadable, non-UTF-8 or empty file and every misplaced placeholder at once.
    """
    root: Traversable = files("dynalign.rollout").joinpath("values") if folder is None else folder
    rubric_files = {name: f"rubric_{name}.txt" for name in RUBRIC_NAMES[rubric]}
    judge_file = f"judge_{scorer}.txt"
    mistakes: list[Mistake] = []
    contents: dict[str, bytes] = {}
    texts: dict[str, str] = {}
    for name in (_DEFINITION_FILE, _SYSTEM_FILE, *rubric_files.values(), judge_file):
        try:
            contents[name] = root.joinpath(name).read_bytes()
            texts[name] = contents[name].decode("utf-8-sig").strip()
        except OSError as error:
            mistakes.append(
                Mistake(f"{root}/{name}", None, f"cannot be read ({error.strerror})", "add this text file")
            )
        except UnicodeDecodeError as error:
            mistakes.append(
                Mistake(f"{root}/{name}", None, f"byte {error.start} is not UTF-8", "save the file as UTF-8")
            )
        else:
            if not texts[name]:
                mistakes.append(Mistake(f"{root}/{name}", None, "is empty", "write the text"))
    if texts.get(judge_file):
        mistakes += _template_mistakes(f"{root}/{judge_file}", texts[judge_file])
    if mistakes:
        raise UserError(mistakes)
    prefill = JUDGE_PREFILLS[scorer]
    return ValueTexts(
        definition=texts[_DEFINITION_FILE],
        generation_system=texts[_SYSTEM_FILE],
        rubrics={name: texts[file] for name, file in rubric_files.items()},
        judge_template=texts[judge_file],
        judge_prefill=prefill,
        definition_hash=_hash(contents[name] for name in (_DEFINITION_FILE, _SYSTEM_FILE)),
        rubric_hash=_hash(
            [*(contents[name] for name in (*rubric_files.values(), judge_file)), prefill.encode()]
        ),
    )


def judge_user_message(texts: ValueTexts, rubric_name: str, task: str, candidate: str) -> str:
    """The judge's user message. Task and candidate are data: no text in them can form a tag or a placeholder, so all
    that stands outside of them is the same for every task and candidate. Raises KeyError for a rubric not loaded."""
    values = {
        "definition": texts.definition,
        "rubric": texts.rubrics[rubric_name],
        "task": as_data(task),
        "candidate": as_data(candidate),
    }
    return _PLACEHOLDER.sub(lambda found: values[found[1]], texts.judge_template)


def as_data(text: str) -> str:
    """`text` with a space after each character that could open a tag: a `<` touching what follows, and the `[` of an
    upper-case control word. Then it closes no delimiter and spells no special token of a chat template (`</candidate>`,
    `<|im_end|>`, `[/INST]`), while it reads the same to the judge."""
    return _TAG_OPENING.sub(lambda found: found[0] + " ", text)


def _template_mistakes(place: str, template: str) -> list[Mistake]:
    found = _PLACEHOLDER.findall(template)
    mistakes = [
        Mistake(
            place,
            None,
            f"{{{name}}} stands there {found.count(name)} times, not once",
            f"write {{{name}}} once",
        )
        for name in PLACEHOLDERS
        if found.count(name) != 1
    ]
    if not mistakes and found[-1] != "candidate":
        rule = "{candidate} must come last: what precedes it is computed once for a whole group"
        mistakes.append(Mistake(place, None, rule, f"move {{{found[-1]}}} before it"))
    return mistakes


def _hash(contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:16]
