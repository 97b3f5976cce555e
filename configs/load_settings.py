"""Settings of commands that are no run: from a YAML file and `section.key=value` overrides, by a schema.

What `load.py` does for the settings of a run, without shipped files, earlier names and a run's rules.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ValidationError

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import listed, overlay_override, settings_text
from dynalign.configs.refusals import Fields, mistakes_from, schema_fields
from dynalign.configs.section import Section
from dynalign.configs.tree import DEFAULT, Tree, origins, parse_document, plain
from dynalign.configs.user_paths import user_path

Schema = TypeVar("Schema", bound=Section)


@dataclass(frozen=True)
class LoadedSettings(Generic[Schema]):
    """Valid settings, and where each came from.

    Example: `LoadedSettings(settings, {"seed": "prompts.yaml:4", "rounds": "default", …})`.
    """

    settings: Schema
    """Settings that the schema and the rules accept."""
    origins: dict[str, str]
    """Dotted path → `<file>:<line>`, `command line`, or `default`, for every setting."""


def load_settings(
    schema: type[Schema],
    config: str | None,
    overrides: Sequence[str],
    otherwise: str,
    rules: Callable[[Schema], Sequence[Mistake]] = lambda settings: (),
) -> LoadedSettings[Schema]:
    """Reads settings by a schema.

    config: the path of a YAML file; None: the defaults. overrides: `section.key=value`. otherwise: the remedy
    for an unknown setting that resembles none. rules: those between settings.

    Raises UserError with every mistake."""
    fields: Fields = dict(schema_fields(schema))
    mistakes: list[Mistake] = []
    tree: Tree = {}
    try:
        tree = {} if config is None else _tree(config, mistakes)
    except UserError as error:
        mistakes += error.mistakes
    for override in overrides:
        mistakes += overlay_override(tree, override, fields)
    try:
        settings = schema.model_validate(plain(tree))
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_context=False, include_input=False)
        refused = [each for error in errors for each in mistakes_from(error, tree, fields, otherwise)]
        raise UserError([*mistakes, *refused]) from None
    mistakes += rules(settings)
    if mistakes:
        raise UserError(mistakes)
    defaults = {setting.path: DEFAULT for setting in listed(settings)}
    return LoadedSettings(settings, defaults | dict(origins(tree)))


def _tree(config: str, mistakes: list[Mistake]) -> Tree:
    """The tree of a file. Raises UserError."""
    path = user_path("config", config)
    text = settings_text(config, path, "give the path of a readable YAML file, or leave it out")
    tree, twice = parse_document(text, path.name)
    mistakes += twice
    return tree
