"""Who is meant on the command line of `evaluate`: a run, a model's folder or name, a hub id, an endpoint.

An endpoint is a YAML file of endpoint settings, so that its key stays in an environment variable.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import load_run
from dynalign.configs.schema import RunSettings
from dynalign.configs.section import Section
from dynalign.configs.sections.endpoint import EndpointSettings
from dynalign.configs.sections.pool import PoolSettings
from dynalign.configs.user_files import UnreadableFile, read_file
from dynalign.configs.user_paths import user_path
from dynalign.evaluation.pairwise.figures import family
from dynalign.launch.models.folder import download, folder_mistakes, model_folder, model_label
from dynalign.launch.resume.open_run import find_run
from dynalign.run_folder import layout
from dynalign.run_folder.checkpoint import newest_whole
from dynalign.run_folder.content import model_hashes

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Subject:
    """A model that is tested, or that judges.

    Example: `Subject("quickstart", Path("runs/quickstart/…/hf"), None, "9f…", "smollm")`.
    """

    name: str
    """Its name in the report."""
    folder: Path | None
    """Its folder, for our own engines; None for an endpoint."""
    endpoint: EndpointSettings | None
    """Where it is asked; None for our own engines."""
    content: str
    """What makes it the same model as another one."""
    family: str
    """The family that its name begins with; of a run, that of the model it began from."""


@dataclass(frozen=True)
class EvaluatedRun:
    """A run whose model is tested: `EvaluatedRun(Path("runs/quickstart"), settings, subject)`."""

    folder: Path
    """The run folder."""
    settings: RunSettings
    """Its settings."""
    subject: Subject
    """The model of its newest checkpoint."""


def run_subject(run: str, runs: str) -> EvaluatedRun:
    """The model of a run's newest checkpoint. Raises UserError for a run without one."""
    folder = find_run(run, runs)
    settings = load_run(str(folder / layout.CONFIG)).settings
    newest = newest_whole(folder / layout.CHECKPOINTS)
    if newest is None:
        rule = "has no whole checkpoint, and so no trained model"
        raise UserError([Mistake("run", run, rule, "evaluate it after its first checkpoint")])
    named = family(settings.model)
    return EvaluatedRun(folder, settings, _local("run", folder.name, newest / layout.EXPORTED_MODEL, named))


def subject(place: str, text: str) -> Subject:
    """The model that a text names. place: the option, for mistakes. Raises UserError with all of them."""
    if text.endswith((".yaml", ".yml")):
        settings = endpoint_file(place, text)
        content = f"{settings.address.rstrip('/')} {settings.model}"
        return Subject(settings.model, None, settings, content, family(settings.model))
    try:
        found = model_folder(text)
        folder = Path(found) if isinstance(found, Path) else Path(download(found))
    except UserError as error:
        remedy = [
            Mistake(place if each.place == "model" else each.place, each.value, each.rule, each.remedy)
            for each in error.mistakes
        ]
        raise UserError(remedy) from error
    return _local(place, model_label(text), folder, family(text))


def endpoint_file(place: str, text: str) -> EndpointSettings:
    """The settings of an endpoint from a YAML file. Raises UserError."""
    path = user_path(place, text)
    try:
        values = yaml.safe_load(read_file(path, _MOST_BYTES).decode("utf-8"))
    except (UnreadableFile, UnicodeDecodeError, yaml.YAMLError) as error:
        cause = " ".join(str(error).split())
        remedy = "give a YAML file with address and model, as docs/endpoints.md shows"
        raise UserError([Mistake(place, text, f"cannot be read ({cause})", remedy)]) from error
    found = _validated(EndpointSettings, values if isinstance(values, dict) else {}, place)
    assert isinstance(found, EndpointSettings)
    return found


def engine_settings(settings: Sequence[str], run: RunSettings | None) -> PoolSettings:
    """How our own engines are built: `--engine KEY=VALUE`, and what a run says of its rollout engines.

    Raises UserError for each key that is no setting of `judge.pool`, and for each wrong value."""
    values: dict[str, object] = {}
    if run is not None:
        rollout = run.rollout
        values = {"engine": rollout.engine, "dtype": rollout.dtype, "engine_threads": rollout.engine_threads}
    mistakes = []
    for each in settings:
        key, equals, value = each.partition("=")
        if not equals:
            mistakes.append(Mistake("--engine", each, "is not of the form KEY=VALUE", "write dtype=float32"))
            continue
        values[key] = yaml.safe_load(value)
    if mistakes:
        raise UserError(mistakes)
    found = _validated(PoolSettings, values, "--engine")
    assert isinstance(found, PoolSettings)
    return found


def _validated(section: type[Section], values: dict[str, object], place: str) -> Section:
    try:
        return section.model_validate(values)
    except ValidationError as invalid:
        known = ", ".join(section.model_fields)
        mistakes = []
        for error in invalid.errors(include_url=False, include_context=False):
            key = ".".join(map(str, error["loc"]))
            rule = re.sub(r"^Value error, ", "", error["msg"]).rstrip(".").lower()
            value = None if error["type"] == "missing" else error["input"]
            mistakes.append(Mistake(f"{place} {key}".strip(), value, rule, f"there are: {known}"))
        raise UserError(mistakes) from invalid


def _local(place: str, name: str, folder: Path, named: str) -> Subject:
    mistakes = folder_mistakes(folder)
    if mistakes:
        raise UserError(mistakes)
    try:
        content = " ".join(model_hashes(folder).values())
    except OSError as error:
        rule = f"cannot be read ({error.strerror or error})"
        raise UserError([Mistake(place, str(folder), rule, "make its files readable")]) from error
    return Subject(name, folder, None, content, named)
