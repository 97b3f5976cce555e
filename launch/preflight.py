"""Everything that can be refused before anything is started, all of it reported together.

check       from files and figures alone, in under a second; the user's reward function is imported, in
            a process of its own
preflight   the same, and what needs a tokenizer, a table reader, or the model hub
"""

import datetime
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dynalign.actors.pool.names import pool_names
from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import LoadedRun
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.judge import FROZEN
from dynalign.configs.user_paths import user_path
from dynalign.evaluation.suites.probe import DrawnItems
from dynalign.launch.capability_check import examined_probe, probe_of
from dynalign.launch.checked_judges import judge_notes
from dynalign.launch.disk_check import disk_mistakes
from dynalign.launch.local_model import in_cluster
from dynalign.launch.metrics_address import host_mistakes
from dynalign.launch.models.adapter_targets import target_mistakes
from dynalign.launch.models.folder import download, folder_mistakes, model_folder
from dynalign.launch.models.known_models import known_shape
from dynalign.launch.models.shape import ModelShape, read_shape
from dynalign.launch.plan.machine import this_machine
from dynalign.launch.plan.nodes import UNKNOWN, Cluster
from dynalign.launch.plan.plan import PlacementPlan, plan
from dynalign.launch.plan.refusals import refusals, shortage
from dynalign.launch.plan.warnings import plan_warnings
from dynalign.launch.pool_model import pool_contexts, pool_folder, pool_hashes, pool_shape
from dynalign.launch.prompt_check import context_mistakes, heldout_mistakes, notes, prompts_of
from dynalign.launch.resume.open_run import OpenRun, open_run
from dynalign.launch.reward_module import reward_mistakes
from dynalign.launch.token_estimate import ESTIMATE
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.judges.base import context_tokens, judge_tokens
from dynalign.rollout.judges.make import missing_askers
from dynalign.rollout.judges.value_texts import ValueTexts, texts_of
from dynalign.rollout.prompts import PromptSet
from dynalign.rollout.weights.version import travelling_adapter
from dynalign.run_folder import owner
from dynalign.run_folder.checkpoint import (
    CheckpointManifest,
    content_contradictions,
    contradictions,
    read_manifest,
)
from dynalign.run_folder.content import model_hashes, values_hashes

if TYPE_CHECKING:
    from dynalign.launch.judge_endpoints import ExaminedEndpoints
    from dynalign.launch.resume.mirrored import Mirrored

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """All that a run starts from, checked."""

    model_folder: Path
    """Absolute path of the model's Hugging Face folder."""
    prompts: PromptSet
    """The prompts to train on and the held-out ones."""
    checkpoint: CheckpointManifest | None
    """The manifest of the checkpoint to continue from; None for a new run."""
    plan: PlacementPlan
    """Which actor runs where, and what it needs."""
    texts: ValueTexts
    """The value definition and rubrics, read once: all workers judge by the same texts."""
    mirrored: "Mirrored | None" = None
    """What `checkpoint.mirror` holds, possibly that checkpoint; None for a run without a mirror."""
    content: Mapping[str, str] = field(default_factory=dict)
    """The hashes of the model and of the value texts; a continued run must find the same."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end a turn by the chat template, if the model's files name none of them as its end."""
    pool_folder: Path | None = None
    """Absolute path of the folder of the pool's model; None for a run without a pool."""
    endpoints: "ExaminedEndpoints | None" = None
    """The endpoints that judges ask, and what each was found to do; None for a run that asks none."""
    probe: DrawnItems | None = None
    """The items of the capability probe; None without one."""

    def on(self, cluster: Cluster) -> "Prepared":
        """The same, planned on another cluster, once it is known."""
        return replace(self, plan=self.plan.on(cluster))

    @property
    def cores(self) -> dict[str, tuple[int, ...]]:
        """The CPU cores that `rollout-0`, `learner-0`, … are pinned to."""
        return self.plan.cores


@dataclass(frozen=True)
class Checked:
    """What files and figures show about a run."""

    plan: PlacementPlan | None
    """None for a model that was not downloaded and is not known, or one with a damaged file."""
    mistakes: list[Mistake]
    """Everything that refuses the run."""
    notes: tuple[str, ...] = ()
    """What may be meant, and is said."""
    asked: tuple[str, ...] = ()
    """What endpoints were asked and have answered, a line each."""


def check(run: OpenRun, ask: bool = True) -> Checked:
    """Examines files and figures. ask: also ask the endpoints, where nothing else is wrong.

    Raises CheckpointError when the newest checkpoint is damaged, RecordError when owner.json is."""
    settings = run.settings
    mistakes: list[Mistake] = []
    # A data set of the hub is read when the run starts, like a model of the hub.
    of_hub = settings.prompts.source.startswith("hub:")
    prompts = None if of_hub else _collect(mistakes, lambda: prompts_of(settings))
    texts = _collect(mistakes, lambda: run_texts(settings))
    manifest = _examine_run(run, prompts, mistakes)
    _collect(mistakes, lambda: probe_of(settings))
    model = _collect(mistakes, lambda: model_folder(settings.model))
    result = None
    content: Mapping[str, str] = {}
    if isinstance(model, Path):
        lacking = folder_mistakes(model)
        mistakes += [*lacking, *target_mistakes(settings, model)]
        if not lacking:
            content = _content(settings, model, texts, manifest, mistakes)
        policy = model
        _collect(mistakes, lambda: pool_folder(settings, policy, fetch=False))
        result = _plan(run, model, ESTIMATE, texts, mistakes)
    elif model is not None:
        result = _plan_before_download(run, model, texts, mistakes)
    warnings = () if result is None else plan_warnings(result)
    asked = None
    if ask and settings.judge.endpoints and texts is not None and not mistakes:
        from dynalign.launch.judge_endpoints import asked_aside

        asked = _collect(mistakes, lambda: asked_aside(settings, run.folder.path, texts))
    answered = () if asked is None else asked.told
    told = (*notes(settings, prompts), *judge_notes(settings, content), *warnings)
    return Checked(result, mistakes, told, answered)


def refuse_by_files(loaded: LoadedRun) -> None:
    """Raises UserError with what `check` would refuse, in a second instead of after half a minute of imports.

    A run that is finished is not examined: nothing of it is read again.
    """
    run = open_run(loaded)
    if run.folder.finished(run.settings) is None and (mistakes := check(run, ask=False).mistakes):
        raise UserError(mistakes)


def preflight(run: OpenRun) -> Prepared:
    """Prepares all that a run starts from.

    A hub's model is downloaded if nothing else is wrong. The mirror is tested by writing to it.
    Raises UserError with every mistake, CheckpointError when the newest checkpoint is damaged.
    """
    from dynalign.launch.resume.mirrored import look_at_mirror

    settings = run.settings
    mistakes: list[Mistake] = []
    prompts = _collect(mistakes, lambda: prompts_of(settings))
    texts = _collect(mistakes, lambda: run_texts(settings))
    mirrored = _collect(mistakes, lambda: look_at_mirror(settings, run.folder))
    checkpoint = _examine_run(run, prompts, mistakes, None if mirrored is None else mirrored.lost)
    model = _collect(mistakes, lambda: model_folder(settings.model))
    if isinstance(model, str):
        _plan_before_download(run, model, texts, mistakes)
        model = None if mistakes else download(model)
    contexts = None
    result = None
    pool = None
    content: Mapping[str, str] = {}
    if model is not None:
        policy = model
        pool = _collect(mistakes, lambda: pool_folder(settings, policy, fetch=not mistakes))
        lacking = folder_mistakes(model)
        mistakes += [*lacking, *target_mistakes(settings, model)]
        content = {} if lacking else _content(settings, model, texts, checkpoint, mistakes)
        if not lacking and texts is not None:
            contexts = _collect(mistakes, lambda: run_contexts(settings, model, texts))
        if contexts is not None:
            mistakes += context_mistakes(settings, model, contexts, prompts)
        other = None if pool is None else _collect(mistakes, lambda: pool_contexts(settings, pool))
        result = _plan(run, model, contexts or ESTIMATE, texts, mistakes, other)
    probe = None
    if contexts is not None and result is not None:
        asked_of = (result, contexts, run.folder.path, 0 if checkpoint is None else checkpoint.step)
        probe = _collect(mistakes, lambda: examined_probe(*asked_of))
    if mistakes or model is None or prompts is None or result is None or texts is None:
        raise UserError(mistakes)
    asked = None
    if settings.judge.endpoints:
        from dynalign.launch.judge_endpoints import asked_for_run

        asked = asked_for_run(settings, run.folder.path, texts)
    for note in (*notes(settings, prompts), *judge_notes(settings, content), *plan_warnings(result)):
        logger.warning(note)
    stop_ids = () if contexts is None else contexts.stop_ids
    return Prepared(
        model, prompts, checkpoint, result, texts, mirrored, content, stop_ids, pool, asked, probe
    )


def run_contexts(settings: RunSettings, model: Path, texts: ValueTexts) -> Contexts:
    """The contexts of a run, on its `date` or else today. Raises UserError like `load_contexts`."""
    return load_contexts(model, texts.generation_system, settings.date or datetime.date.today().isoformat())


def run_texts(settings: RunSettings) -> ValueTexts:
    """The value definition and rubrics of a run. Raises UserError like `load_value_texts`."""
    values = user_path("judge.values", settings.judge.values) if settings.judge.values else None
    return texts_of(values, settings.judge)


def asker_names(settings: RunSettings) -> tuple[str, ...]:
    """The names that a judge of this run can ask besides the policy: its pool and endpoints, and `frozen`
    where the engines hold the initial policy below an adapter."""
    below = () if travelling_adapter(settings) is None else (FROZEN,)
    return (*below, *pool_names(settings), *settings.judge.endpoints)


def _collect(mistakes: list[Mistake], call: Callable[[], T]) -> T | None:
    """The result of a call; None if it raises UserError, whose mistakes are then added to `mistakes`."""
    try:
        return call()
    except UserError as error:
        mistakes += error.mistakes
        return None


def _examine_run(
    run: OpenRun,
    prompts: PromptSet | None,
    mistakes: list[Mistake],
    lost: CheckpointManifest | None = None,
) -> CheckpointManifest | None:
    """Checks the run folder, and that a continued run changes nothing that may not change.

    lost: the manifest of a checkpoint that only the mirror has.
    Returns the manifest to continue from; None for a new run.
    """
    settings = run.settings
    if os.path.isdir(run.folder.path):
        owner.read(run.folder.path)  # a damaged one is refused here, not after the imports of `train`
    mistakes += run.folder.mistakes(settings)
    mistakes += host_mistakes(settings)
    mistakes += heldout_mistakes(run, prompts)
    if settings.judge.kind == "function" and settings.judge.function is not None:
        mistakes += reward_mistakes(settings.judge.function)
    mistakes += missing_askers(settings.judge, asker_names(settings))
    manifest = lost
    if lost is None and settings.resume == "auto":
        newest = run.folder.newest_checkpoint()
        manifest = None if newest is None else read_manifest(newest)
    if manifest is not None and prompts is not None:
        mistakes += contradictions(manifest, settings, prompts.content_hash)
    return manifest


def _content(
    settings: RunSettings,
    model: Path,
    texts: ValueTexts | None,
    manifest: CheckpointManifest | None,
    mistakes: list[Mistake],
) -> dict[str, str]:
    """The hashes of what the run is trained with; adds a mistake where the checkpoint was made with other
    content."""
    try:
        hashes = model_hashes(model) | pool_hashes(settings)
    except OSError as error:
        rule = f"cannot be read ({error.strerror}: {error.filename})"
        mistakes.append(Mistake("model", settings.model, rule, "make its files readable"))
        return {}
    if texts is not None:
        judged = bool(settings.judge.asked)
        hashes |= values_hashes(texts.definition_hash, texts.rubric_hash if judged else None)
    if manifest is not None:
        mistakes += content_contradictions(manifest, settings, hashes)
    return hashes


def _plan(
    run: OpenRun,
    model: Path,
    contexts: Contexts,
    texts: ValueTexts | None,
    mistakes: list[Mistake],
    pool_contexts: Contexts | None = None,
) -> PlacementPlan | None:
    """The plan for a model in its folder; adds the mistakes of the plan and of the disk."""
    shape = _collect(mistakes, lambda: read_shape(model)) if (model / "config.json").is_file() else None
    return None if shape is None else _planned(run, shape, contexts, texts, mistakes, pool_contexts)


def _plan_before_download(
    run: OpenRun, model: str, texts: ValueTexts | None, mistakes: list[Mistake]
) -> PlacementPlan | None:
    """The plan for a hub's model of known figures. For another one, only the number of GPUs is checked."""
    shape = known_shape(model)
    if shape is not None:
        return _planned(run, shape, ESTIMATE, texts, mistakes)
    cluster = _cluster(run.settings)
    mistakes += shortage(run.settings, cluster) if cluster.nodes else []
    return None


def _planned(
    run: OpenRun,
    shape: ModelShape,
    contexts: Contexts,
    texts: ValueTexts | None,
    mistakes: list[Mistake],
    pool_contexts: Contexts | None = None,
) -> PlacementPlan:
    """pool_contexts: of the pool's model; None where it is the policy's, or is not read."""
    settings = run.settings
    longest = _context_tokens(settings, contexts, texts)
    judged = longest if texts is None else judge_tokens(pool_contexts or contexts, texts, settings)
    result = plan(settings, shape, _cluster(settings), longest, pool_shape(settings), judged)
    mistakes += refusals(result) + disk_mistakes(result, run.folder)
    return result


def _cluster(settings: RunSettings) -> Cluster:
    """This machine alone; an unknown cluster where RAY_ADDRESS names one, which only the driver asks."""
    if in_cluster():
        return UNKNOWN
    return Cluster((this_machine(with_gpus=settings.placement.device == "gpu"),), started_here=True)


def _context_tokens(settings: RunSettings, contexts: Contexts, texts: ValueTexts | None) -> int:
    if texts is None:
        return settings.prompts.max_tokens + settings.rollout.max_completion_tokens
    return context_tokens(contexts, texts, settings)
