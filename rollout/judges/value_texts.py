"""The written value as texts: definition, system prompt, rubrics, and the judge's message made of them.

The texts are package data in `rollout/values/`. A user's own folder with the same file names replaces all
of them.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Literal

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.sections.judge import JudgeSettings, stance_parts
from dynalign.configs.user_files import UnreadableFile, read_file

ASPECTS = ("knowledge", "power", "vitality", "benevolence")
"""The aspects of the shipped value, in the order of their verdicts."""
UNIFIED = "unified"
"""The rubric of the whole value."""

PLACEHOLDERS = ("definition", "rubric", "task", "candidate")
"""What a judge's template must contain, each once, `{candidate}` last."""
RANKED_PLACEHOLDERS = ("definition", "rubric", "task", "candidates")
"""The same for the template of a ranking."""
ROUND_PLACEHOLDERS = ("own", "others")
"""The same for the text with which a stance of a panel is asked again."""
JUDGE_PREFILLS: Mapping[str, str] = {"expected": "Grade: ", "sampled": ""}
"""`judge.scorer` → the text with which the judge's answer begins.

Without it a small chat model starts a sentence: SmolLM2-135M puts 0.16 of its mass on the six digits, with
it 0.85. It ends in a space because a digit after a space is a token of its own."""

PREFILL = "prefill"
"""The name of `ValueTexts.judge_prefill` among the parts of a hash."""

_MOST_BYTES = 1 << 20
"""Of one text. A judge's context of 100,000 tokens has about half of it."""
_DEFINITION_FILE = "collective_agency.md"
_SYSTEM_FILE = "generation_system.txt"
_RANKED_FILE = "judge_ranked.txt"
_ROUND_FILE = "panel_round.txt"
_OWN_WORDS_FILE = "own_words.txt"
_ANY_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_TAG_OPENING = re.compile(
    r"[<＜﹤](?![ \t\r\n]|\Z)"  # the wide forms too: some tokenizers normalize them to <
    r"|\[(?=/?[a-z]?[A-Z_][A-Z_\d]*\]|\||e~\[|unused\d)|\](?=~b\])"
)


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
    """The same over the rubrics in use, the judge's templates and stances, and `judge_prefill`."""
    probe_rubrics: Mapping[str, str] = field(default_factory=dict)
    """Name → text of the rubrics of a factorized probe."""
    stances: Mapping[str, str] = field(default_factory=dict)
    """Name → text of each stance of a panel."""
    round_template: str = ""
    """What a stance is asked once it has seen the others' reasons, with `ROUND_PLACEHOLDERS`."""
    ranked_template: str = ""
    """The message of a judge that ranks, with `RANKED_PLACEHOLDERS`."""
    definition_parts: Mapping[str, str] = field(default_factory=dict)
    """File → its exact text, of what `definition_hash` is over, in its order."""
    rubric_parts: Mapping[str, str] = field(default_factory=dict)
    """The same for `rubric_hash`; `judge_prefill` is its part `PREFILL`."""


@dataclass(frozen=True)
class ValueDefinition:
    """The value, for whoever writes prompts for it.

    Example: `ValueDefinition("# Collective Agency …", ("collective agency", "vitality"))`.
    """

    text: str
    """The definition."""
    own_words: tuple[str, ...]
    """The words and phrases that name the value, which no prompt may hold."""


def load_definition(folder: Path | None) -> ValueDefinition:
    """The definition in `folder` or, if None, in the package, with the words of the file `own_words.txt`;
    where there is no such file, with the definition's heading.

    Raises UserError for an absent or unreadable file, or where neither gives a word."""
    root = _values_root(folder)
    mistakes: list[Mistake] = []
    definition = _read(root, _DEFINITION_FILE, mistakes)
    words = _read(root, _OWN_WORDS_FILE, mistakes) if (root / _OWN_WORDS_FILE).exists() else b""
    if definition is None or words is None:
        raise UserError(mistakes)
    text = definition.decode("utf-8-sig").strip()
    lines = [line.strip() for line in words.decode("utf-8-sig").splitlines()]
    own = [line for line in lines if line and not line.startswith("#")]
    if not own and text.startswith("#"):
        own = [text.splitlines()[0].lstrip("# ").strip()]
    if not any(own):
        rule = "is missing, and the definition has no heading that would name the value"
        remedy = "write there the words that no prompt may hold, one a line"
        raise UserError([Mistake(f"{root}/{_OWN_WORDS_FILE}", None, rule, remedy)])
    return ValueDefinition(text, tuple(dict.fromkeys(own)))


def texts_of(folder: Path | None, judge: JudgeSettings) -> ValueTexts:
    """The texts that a run's judge and its probes read. Otherwise as `load_value_texts`."""
    stances = [stance_parts(stance)[0] for stance in judge.stances]
    return load_value_texts(
        folder, judge.rubric, judge.scorer, stances, judge.kind == "ranked", judge.probe_factorized
    )


def load_value_texts(
    folder: Path | None,
    rubric: Literal["unified", "factorized"],
    scorer: Literal["expected", "sampled"],
    stances: Sequence[str] = (),
    ranked: bool = False,
    probe_factorized: bool = False,
) -> ValueTexts:
    """Reads the texts that this rubric and scorer need, from `folder` or, if None, from the package.

    stances: names of a panel's stances. ranked: whether a judge ranks. probe_factorized: whether the aspects
    are read besides the rubric. The aspects are the folder's own: its files `rubric_<aspect>.txt`.

    Raises UserError for an absent folder, or one that lists every missing, unreadable, non-UTF-8 or empty
    file and every wrong placeholder.
    """
    root = _values_root(folder)
    rubric_files = _rubric_files(root, rubric)
    probe_files = _rubric_files(root, "factorized") if probe_factorized else {}
    stance_files = {name: f"stance_{name}.txt" for name in stances}
    templates: dict[str, tuple[str, ...]] = {f"judge_{scorer}.txt": PLACEHOLDERS}
    templates |= {_ROUND_FILE: ROUND_PLACEHOLDERS} if stances else {}
    templates |= {_RANKED_FILE: RANKED_PLACEHOLDERS} if ranked else {}
    mistakes: list[Mistake] = []
    contents: dict[str, bytes] = {}
    steering = (_DEFINITION_FILE, _SYSTEM_FILE)
    rubrics = dict.fromkeys((*rubric_files.values(), *probe_files.values()))
    for name in (*steering, *rubrics, *stance_files.values(), *templates):
        if (content := _read(root, name, mistakes)) is not None:
            contents[name] = content
    texts = {name: content.decode("utf-8-sig").strip() for name, content in contents.items()}
    for file, placeholders in templates.items():
        if file in texts:
            mistakes += _template_mistakes(f"{root}/{file}", texts[file], placeholders)
    if mistakes:
        raise UserError(mistakes)
    prefill = JUDGE_PREFILLS[scorer]
    judging = [*rubric_files.values(), f"judge_{scorer}.txt"]
    besides = [*stance_files.values(), *list(templates)[1:]]
    exact = {name: content.decode() for name, content in contents.items()}
    definition_parts = {name: exact[name] for name in steering}
    rubric_parts = {name: exact[name] for name in judging}
    rubric_parts |= {PREFILL: prefill} | {name: exact[name] for name in besides}
    return ValueTexts(
        definition=texts[_DEFINITION_FILE],
        generation_system=texts[_SYSTEM_FILE],
        rubrics={name: texts[file] for name, file in rubric_files.items()},
        judge_template=texts[f"judge_{scorer}.txt"],
        judge_prefill=prefill,
        definition_hash=texts_hash(definition_parts.values()),
        rubric_hash=texts_hash(rubric_parts.values()),
        probe_rubrics={name: texts[file] for name, file in probe_files.items()},
        stances={name: texts[file] for name, file in stance_files.items()},
        round_template=texts.get(_ROUND_FILE, ""),
        ranked_template=texts.get(_RANKED_FILE, ""),
        definition_parts=definition_parts,
        rubric_parts=rubric_parts,
    )


def _values_root(folder: Path | None) -> Path:
    root = Path(str(files("dynalign.rollout").joinpath("values"))) if folder is None else folder
    if not root.is_dir():
        rule = "is not a folder" if root.exists() else "does not exist"
        remedy = f"name a folder with {_DEFINITION_FILE} and the other texts, as in rollout/values, or null"
        raise UserError([Mistake("judge.values", str(root), rule, remedy)])
    return root


def _rubric_files(root: Path, rubric: Literal["unified", "factorized"]) -> dict[str, str]:
    """Name → file of each rubric. A folder's aspects are what it has: the shipped ones in their order, then
    others by name. A folder without any lacks the shipped ones."""
    if rubric == "unified":
        return {UNIFIED: f"rubric_{UNIFIED}.txt"}
    found = {file.name[len("rubric_") : -len(".txt")] for file in root.glob("rubric_*.txt")} - {UNIFIED}
    names = [name for name in ASPECTS if name in found] + sorted(found - set(ASPECTS))
    return {name: f"rubric_{name}.txt" for name in names or ASPECTS}


def _read(root: Path, name: str, mistakes: list[Mistake]) -> bytes | None:
    """The content of a text; None and one more mistake where it cannot be read, or is empty."""
    try:
        content = read_file(root / name, _MOST_BYTES)
        if content.decode("utf-8-sig").strip():
            return content
        mistakes.append(Mistake(f"{root}/{name}", None, "is empty", "write the text"))
    except UnreadableFile as error:
        rule = f"cannot be read ({error})"
        mistakes.append(Mistake(f"{root}/{name}", None, rule, "add this text file"))
    except UnicodeDecodeError as error:
        rule = f"byte {error.start} is not UTF-8"
        mistakes.append(Mistake(f"{root}/{name}", None, rule, "save the file as UTF-8"))
    return None


def judge_user_message(texts: ValueTexts, rubric_name: str, task: str, candidate: str) -> str:
    """The judge's user message for one candidate and one rubric.

    Task and candidate are data: no text in them can form a tag or a placeholder, so the message around
    them is the same for all. Raises KeyError for a rubric that was not loaded."""
    values = {
        "definition": texts.definition,
        "rubric": {**texts.probe_rubrics, **texts.rubrics}[rubric_name],
        "task": as_data(task),
        "candidate": as_data(candidate),
    }
    return filled(texts.judge_template, values)


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with each `{name}` of `values` replaced. What is put in is not searched again, so that no
    text in it is taken for a placeholder."""
    return _ANY_PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)


def as_data(text: str) -> str:
    """The text with a space after each character that could open a tag.

    These are a `<` that touches what follows, and the bracket of a control word. So the text closes no
    delimiter and spells no special token of a chat template (`</candidate>`, `<|im_end|>`, `[/INST]`,
    `[UNUSED_TOKEN_145]`, `[|user|]`, `]~b]`), while it reads the same to the judge."""
    return _TAG_OPENING.sub(lambda found: found[0] + " ", text)


def _template_mistakes(file: str, template: str, placeholders: Sequence[str]) -> list[Mistake]:
    found = [name for name in _ANY_PLACEHOLDER.findall(template) if name in placeholders]
    mistakes = []
    for name in placeholders:
        if (times := found.count(name)) != 1:
            rule = f"{{{name}}} stands there {times} times, not once"
            mistakes.append(Mistake(file, None, rule, f"write {{{name}}} once"))
    for name in dict.fromkeys(_ANY_PLACEHOLDER.findall(template)):
        if name not in placeholders:
            rule = f"{{{name}}} is no placeholder, and the judge would read it as it stands"
            known = ", ".join(f"{{{each}}}" for each in placeholders)
            mistakes.append(Mistake(file, None, rule, f"write one of {known}, or leave out the braces"))
    last = placeholders[-1]
    if not mistakes and found[-1] != last:
        rule = f"{{{last}}} must come last: what precedes it is computed once for a whole group"
        mistakes.append(Mistake(file, None, rule, f"move {{{found[-1]}}} before it"))
    return mistakes


def texts_hash(texts: Iterable[str]) -> str:
    """16 hexadecimal characters of SHA-256 over texts, each with its length in bytes before it."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:16]
