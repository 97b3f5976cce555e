"""From a YAML file and `section.key=value` overrides to settings with origins, or all mistakes at once.

file ─► tree ─┐
              ├─► overlay ─► present names ─► schema ─► rules ─► LoadedRun
overrides ────┘
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from dynalign.configs import earlier_versions
from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.refusals import FIELDS, MISSING, Fields, did_you_mean, mistakes_from, name_in
from dynalign.configs.rules import broken_rules
from dynalign.configs.schema import RunSettings
from dynalign.configs.section import Section
from dynalign.configs.tree import (
    COMMAND_LINE,
    DEFAULT,
    Leaf,
    Tree,
    find,
    origins,
    overlay,
    parse_document,
    parse_value,
    plain,
    prune,
)
from dynalign.configs.user_files import TooLarge, UnreadableFile, read_file
from dynalign.configs.user_paths import user_path

FROM_FILE_NAME = "default: the file's name"
MOST_BYTES = 1 << 20
"""Of a settings file. One with every setting and its explanation has about 10 KB."""
WORKERS = ("rollout", "workers")


@dataclass(frozen=True)
class LoadedRun:
    """Valid settings, and where each came from.

    Example: `LoadedRun(settings, {"steps": "quickstart.yaml:4", "seed": "default", …})`.
    """

    settings: RunSettings
    """Settings that keep every rule."""
    origins: dict[str, str]
    """Dotted path → `<file>:<line>`, `command line`, or `default`, for every setting."""


@dataclass(frozen=True)
class Setting:
    """One value of a run.

    Example: `Setting("steps", 8, "Optimizer steps.")`.
    """

    path: str
    """Dotted path."""
    value: object
    """The value; None for a section that is null."""
    description: str
    """What the setting means, with its unit."""


def shipped_names() -> list[str]:
    """The run files that come with dynalign."""
    files = resources.files("dynalign.configs").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def listed(section: Section, path: str = "") -> Iterator[Setting]:
    """Every value in the schema's order; a section that is null is one value."""
    for key, field in type(section).model_fields.items():
        value = vars(section)[key]
        dotted = f"{path}.{key}" if path else key
        if isinstance(value, Section):
            yield from listed(value, dotted)
        elif isinstance(value, Mapping) and value:
            for name, below in value.items():
                yield from listed(below, f"{dotted}.{name}")
        else:
            yield Setting(dotted, value, field.description or "")


def load_run(config: str, overrides: Sequence[str] = ()) -> LoadedRun:
    """Reads the settings of a run.

    config: a shipped name (`quickstart`) or the path of a YAML file. overrides: `section.key=value`, the
    value in YAML; they replace values of the file, and of two overrides of one key the last one holds.

    Raises UserError with every mistake: unreadable file or override, unknown key, wrong type, out of range,
    broken rule.
    """
    mistakes: list[Mistake] = []
    read = _read(config, mistakes)
    tree = {} if read is None else read
    for override in overrides:
        mistakes += overlay_override(tree, override)
    _spread_workers(tree)
    earlier_versions.present(tree)
    if read is not None:
        tree.setdefault("name", Leaf(Path(config).stem, FROM_FILE_NAME))
    settings, refused = _validated(tree)
    if find(tree, (*WORKERS, "min")) is find(tree, (*WORKERS, "max")) and (*WORKERS, "min") in refused:
        refused[*WORKERS, "max"] = []  # `rollout.workers: 0` is one value under two keys
    # What is missing, and which rules are broken, is known only if the file could be read.
    every = [mistake for of_value in refused.values() for mistake in of_value]
    mistakes += [mistake for mistake in every if read is not None or mistake.rule != MISSING]
    if read is not None:
        mistakes += _broken_rules(tree, settings, {_whole(".".join(path)) for path in refused})
    if mistakes or settings is None:
        raise UserError(mistakes)
    return LoadedRun(settings, {setting.path: DEFAULT for setting in listed(settings)} | dict(origins(tree)))


def _read(config: str, mistakes: list[Mistake]) -> Tree | None:
    """The file's tree, or None and one more mistake: the overrides are checked all the same."""
    shipped = shipped_names()
    try:
        path = user_path("config", config)
        if config in shipped:
            path = Path(str(resources.files("dynalign.configs").joinpath(f"{config}.yaml")))
        elif not path.suffix and not path.exists():
            close = did_you_mean(config, shipped)
            hint = f"did you mean {close}? Shipped" if close else "shipped"
            remedy = f"{hint}: {', '.join(shipped)}; or give a YAML file's path"
            raise UserError([Mistake(config, None, "there is no such config", remedy)])
        remedy = f"give a readable YAML file, or a shipped name: {', '.join(shipped)}"
        tree, twice = parse_document(settings_text(config, path, remedy), path.name)
    except UserError as error:
        mistakes += error.mistakes
        return None
    mistakes += twice
    return tree


def settings_text(config: str, path: Path, remedy: str) -> str:
    """The text of a settings file. Raises UserError with this remedy if it cannot be read."""
    try:
        return read_file(path, MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        rule = "cannot be read (it is not UTF-8 text)"
    except TooLarge as error:
        rule = f"is not a settings file ({error})"
    except UnreadableFile as error:
        rule = f"cannot be read ({error})"
    raise UserError([Mistake(config, None, rule, remedy)])


def overlay_override(tree: Tree, override: str, fields: Fields = FIELDS) -> list[Mistake]:
    """Puts `section.key=value` into a tree. Returns what is wrong with it. fields: of the schema."""
    path, equals, text = override.partition("=")
    if not equals:
        close = did_you_mean(path, fields)
        return [
            Mistake(override, None, "is not of the form section.key=value", f"write {close or path}=<value>")
        ]
    keys = tuple(path.strip().split("."))
    if not all(keys):
        return [Mistake(override, None, "has an empty key", "write section.key=value")]
    try:
        overlay(tree, keys, parse_value(text))
    except UserError as error:
        return [replace(mistake, place=f"{path} ({COMMAND_LINE})", value=text) for mistake in error.mistakes]
    return []


def _spread_workers(tree: Tree) -> None:
    """`rollout.workers: 3` is short for `{min: 3, max: 3}`."""
    workers = find(tree, WORKERS)
    if isinstance(workers, Leaf) and workers.value is not None:
        overlay(tree, WORKERS, {"min": workers, "max": workers})


def _validated(tree: Tree) -> tuple[RunSettings | None, dict[tuple[str, ...], list[Mistake]]]:
    """The settings, or None and path → mistakes of every value and every unknown section that the schema
    refuses."""
    try:
        return RunSettings.model_validate(plain(tree)), {}
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_context=False, include_input=False)
        paths = [tuple(part for part in error["loc"] if isinstance(part, str)) for error in errors]
        return None, {path: mistakes_from(error, tree) for path, error in zip(paths, errors, strict=True)}


def _whole(path: str) -> str:
    """What is left out where this value was refused: of sections under the user's own names, all of them,
    since each has values that may not be left out."""
    own = name_in(path)
    return path if own is None else own[0]


def _broken_rules(tree: Tree, settings: RunSettings | None, refused: set[str]) -> list[Mistake]:
    """The broken rules among the values that were not refused. A rule that reads a refused one is skipped.

    settings: None where some value was refused.
    """
    skipped = {
        path for path in FIELDS for dotted in refused if path == dotted or path.startswith(f"{dotted}.")
    }
    origin_of = dict(origins(tree))
    return [
        replace(mistake, place=f"{mistake.place} ({origin_of[mistake.place]})")
        if mistake.place in origin_of
        else mistake
        for mistake in broken_rules(settings or _without(tree, refused), skipped)
    ]


def _without(tree: Tree, refused: set[str]) -> RunSettings:
    """The settings with defaults in place of the refused values."""
    checked: Tree = {}
    for key, item in tree.items():
        overlay(checked, (key,), item)
    for dotted in refused:
        prune(checked, tuple(dotted.split(".")))
    for required in ("name", "model"):
        checked.setdefault(required, Leaf("unnamed", DEFAULT))
    return RunSettings.model_validate(plain(checked))
