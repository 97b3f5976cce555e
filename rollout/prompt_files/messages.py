"""The prompt in a list of messages: its last user turn, with the turns before it if they are wanted."""

from collections.abc import Mapping

USERS = ("user", "human", "prompter")
_TITLES = {
    "user": "User",
    "human": "User",
    "prompter": "User",
    "assistant": "Assistant",
    "gpt": "Assistant",
    "model": "Assistant",
    "system": "System",
}
"""Role → what it is called in a text that keeps the earlier turns; some roles are of ShareGPT and
OpenAssistant."""


class NoPrompt(ValueError):
    """Messages without a prompt. The text is the rule that they break."""


def is_messages(value: object) -> bool:
    """Whether a value is a list of messages, or an object of their columns."""
    if isinstance(value, Mapping):
        return any(isinstance(value.get(name), list) for name in ("content", "value"))
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def prompt_of(value: object, earlier_turns: bool) -> str:
    """The text of the last user turn. What follows it, an answer, is left out.

    earlier_turns: whether the turns before it stay, as text above it, each after its role. value: as
    `is_messages` takes it, with role and content, or from and value. Raises NoPrompt.
    """
    turns = [_turn(message) for message in _listed(value)]
    last = max((place for place, (role, _) in enumerate(turns) if role in USERS), default=None)
    if last is None:
        raise NoPrompt("has no message of the user")
    text = turns[last][1]
    if not earlier_turns or last == 0 or not text.strip():
        return text
    return "\n\n".join(f"{_TITLES.get(role, role.title())}: {said}" for role, said in turns[: last + 1])


def _listed(value: object) -> list[Mapping[str, object]]:
    if isinstance(value, Mapping):
        columns = {name: each for name, each in value.items() if isinstance(each, list)}
        return [dict(zip(columns, row, strict=False)) for row in zip(*columns.values(), strict=False)]
    return list(value) if isinstance(value, list) else []


def _turn(message: Mapping[str, object]) -> tuple[str, str]:
    """The role and the text of a message."""
    role = message.get("role", message.get("from"))
    if not isinstance(role, str):
        raise NoPrompt("has a message without a role")
    return role.lower(), _text(message.get("content", message.get("value")))


def _text(content: object) -> str:
    """A text as it is, or the texts of its parts."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise NoPrompt(f"has a message whose content is a {type(content).__name__}, not a text")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            raise NoPrompt("has a message with a part that is no text")
        texts.append(text)
    return "\n".join(texts)
