"""The agents: for each a message with placeholders, and the JSON schema of its answer.

The texts are package data in `dataset/agents/<kind>/`. A user's own folder with the same file names replaces
all of them.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from jsonschema import Draft202012Validator, SchemaError

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.user_files import UnreadableFile, read_file
from dynalign.configs.user_paths import user_path

Agent = Literal["goals", "writer", "critic", "refine"]
AGENTS: tuple[Agent, ...] = get_args(Agent)
"""In the order in which an item meets them."""

PLACEHOLDERS: Mapping[Agent, tuple[str, ...]] = {
    "goals": ("definition", "cell"),
    "writer": ("goal", "cell", "own_words"),
    "critic": ("definition", "prompt"),
    "refine": ("prompt", "feedback", "own_words"),
}
"""What the message of an agent must contain. It may contain the others, too."""
KNOWN = ("definition", "cell", "goal", "prompt", "feedback", "own_words")
"""Every placeholder."""
ANSWERS: Mapping[Agent, Mapping[str, str]] = {
    "goals": {"goal": "string"},
    "writer": {"prompt": "string"},
    "critic": {
        "deductions": "object",
        "disqualifications": "object",
        "difficulty_level": "integer",
        "feedback": "string",
    },
    "refine": {"prompt": "string"},
}
"""What the schema of an agent must require, with its type. Further texts of the writer go with the prompt."""
INSIDE = {"deductions": "integer", "disqualifications": "boolean"}
"""What the values of the critic's two objects must be."""

MOST_BYTES = 1 << 20
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class AgentText:
    """One agent.

    Example: `AgentText("Write a message … {goal} … {cell} … {own_words}", '{"type": "object", …}')`.
    """

    template: str
    """Its message, with placeholders."""
    json_schema: str
    """JSON schema of its answer."""

    def message(self, values: Mapping[str, str]) -> str:
        """The message. values: placeholder → text, which is not searched for placeholders again."""
        return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), self.template)


@dataclass(frozen=True)
class AgentTexts:
    """All agents of a kind of prompt: `AgentTexts({"goals": AgentText(…), …}, "3f1c08a2b6d94e57")`."""

    of: Mapping[Agent, AgentText]
    """Agent → its texts."""
    content_hash: str
    """16 hexadecimal characters of SHA-256 over all of them."""


def load_agents(folder: str | None, kind: str) -> AgentTexts:
    """The agents in a folder, or, if None, those of this kind that are shipped with dynalign.

    Raises UserError with every mistake: an unreadable or empty file, a missing or unknown placeholder, a
    schema that is none or does not require what is read."""
    root = (
        Path(str(files("dynalign.dataset").joinpath("agents", kind)))
        if folder is None
        else user_path("agents", folder)
    )
    mistakes: list[Mistake] = []
    agents: dict[Agent, AgentText] = {}
    digest = hashlib.sha256()
    for agent in AGENTS:
        template = _text(root / f"{agent}.txt", mistakes)
        schema = _text(root / f"{agent}.json", mistakes)
        if template is not None:
            mistakes += _template_mistakes(f"{root}/{agent}.txt", agent, template)
        if schema is not None:
            mistakes += _schema_mistakes(f"{root}/{agent}.json", agent, schema)
        agents[agent] = AgentText(template or "", schema or "")
        digest.update(f"{agent}\0{template}\0{schema}\0".encode())
    if mistakes:
        raise UserError(mistakes)
    return AgentTexts(agents, digest.hexdigest()[:16])


def _text(path: Path, mistakes: list[Mistake]) -> str | None:
    try:
        text = read_file(path, MOST_BYTES).decode("utf-8-sig").strip()
    except UnreadableFile as error:
        mistakes.append(Mistake(str(path), None, f"cannot be read ({error})", "add this text file"))
        return None
    except UnicodeDecodeError as error:
        rule = f"byte {error.start} is not UTF-8"
        mistakes.append(Mistake(str(path), None, rule, "save the file as UTF-8"))
        return None
    if not text:
        mistakes.append(Mistake(str(path), None, "is empty", "write the text"))
    return text or None


def _template_mistakes(file: str, agent: Agent, template: str) -> list[Mistake]:
    found = set(_PLACEHOLDER.findall(template))
    missing = [name for name in PLACEHOLDERS[agent] if name not in found]
    unknown = sorted(found - set(KNOWN))
    names = ", ".join(f"{{{name}}}" for name in KNOWN)
    return [
        Mistake(file, None, f"lacks the placeholder {{{name}}}", f"write {{{name}}} where its text goes")
        for name in missing
    ] + [
        Mistake(file, None, f"{{{name}}} is no placeholder", f"write one of {names}, or leave out the braces")
        for name in unknown
    ]


def _schema_mistakes(file: str, agent: Agent, text: str) -> list[Mistake]:
    try:
        schema: Any = json.loads(text)
        Draft202012Validator.check_schema(schema)
    except (ValueError, SchemaError) as error:
        rule = f"is no JSON schema ({' '.join(str(error).split())[:200]})"
        return [Mistake(file, None, rule, "write one JSON schema of an object")]
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    required = schema.get("required", []) if isinstance(schema, dict) else []
    mistakes = []
    for name, kind in ANSWERS[agent].items():
        found = properties.get(name, {})
        if name not in required or found.get("type") != kind:
            remedy = f'add "{name}" of type "{kind}" to its properties and to "required"'
            mistakes.append(Mistake(file, None, f"does not require {name!r} of type {kind!r}", remedy))
        elif name in INSIDE and not _holds_only(found, INSIDE[name]):
            rule = f"does not name, in {name!r}, properties of type {INSIDE[name]!r} alone"
            remedy = 'list them in "properties", all in "required", and set "additionalProperties": false'
            mistakes.append(Mistake(file, None, rule, remedy))
    return mistakes


def _holds_only(schema: Mapping[str, Any], kind: str) -> bool:
    """Whether every object of a schema has the same names, with values of one type."""
    inner = schema.get("properties", {})
    return (
        bool(inner)
        and all(each.get("type") == kind for each in inner.values())
        and set(schema.get("required", [])) == set(inner)
        and schema.get("additionalProperties") is False
    )
