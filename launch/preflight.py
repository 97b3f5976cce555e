"""Everything that can be refused before anything is started, refused at once.

check       from files and figures alone, in under a second
preflight   the same, and what needs a tokenizer, a table reader, the model hub, or the user's own code
"""

import datetime
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import LoadedRun
from dynalign.configs.schema import RunSettings
from dynalign.launch.models.folder import download, folder_mistakes, model_folder
from dynalign.launch.models.known_models import known_shape
from dynalign.launch.models.shape import ModelShape, read_shape
from dynalign.launch.plan.machine import this_machine
from dynalign.launch.plan.memory import gigabytes
from dynalign.launch.plan.nodes import UNKNOWN, Cluster
from dynalign.launch.plan.plan import PlacementPlan, plan
from dynalign.launch.plan.refusals import refusals, shortage
from dynalign.launch.resume.open_run import RunFolder, open_run_folder
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.judges.base import context_tokens
from dynalign.rollout.judges.function import load_function
from dynalign.rollout.judges.value_texts import ValueTexts, load_value_texts
from dynalign.rollout.prompts import PromptSet, load_prompts, too_long
from dynalign.run_folder import layout
from dynalign.run_folder.checkpoint import CheckpointManifest, contradictions, read_manifest

if TYPE_CHECKING:
    from dynalign.launch.resume.mirrored import Mirrored

T = TypeVar("T")

SHOWN_LONG_PROMPTS = 20
"""A limit set too low meets most prompts; past this number a count says as much as the lines."""


@dataclass(frozen=True)
class Prepared:
    """What a run starts from. checkpoint: the manifest of the one to continue from, None for a new run. mirrored: what
    `checkpoint.mirror` holds, which may be that checkpoint; None for a run without a mirror."""

    model_folder: Path
    prompts: PromptSet
    checkpoint: CheckpointManifest | None
    plan: PlacementPlan
    mirrored: "Mirrored | None" = None

    def on(self, cluster: Cluster) -> "Prepared":
        """The same on a cluster that is known by now."""
        return replace(self, plan=self.plan.on(cluster))

    @property
    def cores(self) -> dict[str, tuple[int, ...]]:
        """The CPU cores that `rollout-0`, `learner-0`, … are pinned to."""
        return self.plan.cores


@dataclass(frozen=True)
class Checked:
    """plan: None where the model's figures are not known here (a hub id that was not downloaded yet), or a file of it is wrong."""

    plan: PlacementPlan | None
    mistakes: list[Mistake]


def check(loaded: LoadedRun) -> Checked:
    """What files and figures show. Raises CheckpointError when the newest checkpoint is damaged."""
    settings, mistakes = loaded.settings, list[Mistake]()
    source = settings.prompts.source
    prompts = (
        _collect(mistakes, lambda: load_prompts(source))
        if source == "builtin" or source.endswith(".jsonl")
        else None
    )
    texts = _collect(mistakes, lambda: run_texts(settings))
    _examine_run(settings, open_run_folder(loaded), prompts, mistakes)
    model = _collect(mistakes, lambda: model_folder(settings.model))
    result = None
    if isinstance(model, Path):
        mistakes += folder_mistakes(model)
        result = _plan(loaded, model, ESTIMATE, texts, mistakes)
    elif model is not None:
        result = _plan_before_download(loaded, model, texts, mistakes)
    return Checked(result, mistakes)


def preflight(loaded: LoadedRun) -> Prepared:
    """All that a run starts from. A model with a hub id is downloaded, if nothing else is wrong; the mirror is written to, as a test.

    :raises UserError: every mistake. :raises CheckpointError: the newest checkpoint is damaged.
    """
    from dynalign.launch.resume.mirrored import (
        look_at_mirror,
    )

    settings, mistakes, folder = loaded.settings, list[Mistake](), open_run_folder(loaded)
    prompts = _collect(mistakes, lambda: load_prompts(settings.prompts.source))
    texts = _collect(mistakes, lambda: run_texts(settings))
    mirrored = _collect(mistakes, lambda: look_at_mirror(settings, folder))
    checkpoint = _examine_run(
        settings, folder, prompts, mistakes, None if mirrored is None else mirrored.lost
    )
    if settings.judge.kind == "function":
        _collect(mistakes, lambda: load_function(settings.judge.function or ""))
    model = _collect(mistakes, lambda: model_folder(settings.model))
    if isinstance(model, str):
        _plan_before_download(loaded, model, texts, mistakes)
        model = None if mistakes else download(model)
    contexts, result = None, None
    if model is not None:
        lacking = folder_mistakes(model)
        mistakes += lacking
        if not lacking and texts is not None:
            contexts = _collect(mistakes, lambda: run_contexts(settings, model, texts))
        if contexts is not None:
            mistakes += _context_mistakes(settings, contexts, prompts)
        result = _plan(loaded, model, contexts or ESTIMATE, texts, mistakes)
    if mistakes or model is None or prompts is None or result is None:
        raise UserError(mistakes)
    return Prepared(model, prompts, checkpoint, result, mirrored)


def run_contexts(settings: RunSettings, model: Path, texts: ValueTexts) -> Contexts:
    """The contexts of a run that began today, or on its own day. Raises UserError like `load_contexts`."""
    return load_contexts(model, texts.generation_system, settings.date or datetime.date.today().isoformat())


def run_texts(settings: RunSettings) -> ValueTexts:
    """The value definition and rubrics of a run. Raises UserError like `load_value_texts`."""
    values = settings.judge.values
    return load_value_texts(
        Path(values).expanduser() if values else None, settings.judge.rubric, settings.judge.scorer
    )


def _collect(mistakes: list[Mistake], call: Callable[[], T]) -> T | None:
    try:
        return call()
    except UserError as error:
        mistakes += error.mistakes
        return None


def _examine_run(
    settings: RunSettings,
    folder: RunFolder,
    prompts: PromptSet | None,
    mistakes: list[Mistake],
    manifest: CheckpointManifest | None = None,
) -> CheckpointManifest | None:
    """The run folder, and what a run that is continued there may not change; the manifest to continue from. manifest: of a checkpoint
    that the run folder has lost."""
    mistakes += folder.mistakes(settings)
    if prompts is not None and settings.heldout.prompts > 0 and not prompts.heldout:
        remedy = "give some prompts the split heldout, or set heldout.prompts=0"
        mistakes.append(
            Mistake(
                "heldout.prompts",
                settings.heldout.prompts,
                f"{settings.prompts.source} has no held-out prompt",
                remedy,
            )
        )
    newest = folder.newest_checkpoint() if settings.resume == "auto" and manifest is None else None
    manifest = manifest if newest is None else read_manifest(newest)
    if manifest is not None and prompts is not None:
        mistakes += contradictions(manifest, settings, prompts.content_hash)
    return manifest


def _context_mistakes(settings: RunSettings, contexts: Contexts, prompts: PromptSet | None) -> list[Mistake]:
    mistakes: list[Mistake] = []
    if settings.judge.kind != "function" and settings.judge.scorer == "expected":
        _collect(mistakes, contexts.digit_ids)
    every = (*prompts.train, *prompts.heldout) if prompts else ()
    long = too_long(every, lambda prompt: len(contexts.sampling_context(prompt)), settings.prompts.max_tokens)
    if len(long) > SHOWN_LONG_PROMPTS:
        rule = f"{len(long) - SHOWN_LONG_PROMPTS} more prompts are longer than prompts.max_tokens={settings.prompts.max_tokens}"
        long = [
            *long[:SHOWN_LONG_PROMPTS],
            Mistake(settings.prompts.source, None, rule, "set prompts.max_tokens higher"),
        ]
    return mistakes + long


def _plan(
    loaded: LoadedRun, model: Path, contexts: Contexts, texts: ValueTexts | None, mistakes: list[Mistake]
) -> PlacementPlan | None:
    """The plan for the model in its folder, with the plan's mistakes and the disk's."""
    shape = _collect(mistakes, lambda: read_shape(model)) if (model / "config.json").is_file() else None
    return None if shape is None else _planned(loaded, shape, contexts, texts, mistakes)


def _plan_before_download(
    loaded: LoadedRun, model: str, texts: ValueTexts | None, mistakes: list[Mistake]
) -> PlacementPlan | None:
    """The plan for a hub's model of known figures; for another one, only that there are GPUs enough."""
    shape = known_shape(model)
    if shape is not None:
        return _planned(loaded, shape, ESTIMATE, texts, mistakes)
    cluster = _cluster(loaded.settings)
    mistakes += shortage(loaded.settings, cluster) if cluster.nodes else []
    return None


def _planned(
    loaded: LoadedRun,
    shape: ModelShape,
    contexts: Contexts,
    texts: ValueTexts | None,
    mistakes: list[Mistake],
) -> PlacementPlan:
    settings = loaded.settings
    result = plan(settings, shape, _cluster(settings), _context_tokens(settings, contexts, texts))
    mistakes += refusals(result) + _disk_mistakes(result, open_run_folder(loaded))
    return result


def _cluster(settings: RunSettings) -> Cluster:
    """The cluster of this machine alone; with RAY_ADDRESS one that is asked only when the run starts."""
    if os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
        return UNKNOWN
    return Cluster((this_machine(with_gpus=settings.placement.device == "gpu"),), started_here=True)


def _context_tokens(settings: RunSettings, contexts: Contexts, texts: ValueTexts | None) -> int:
    if texts is None:
        return settings.prompts.max_tokens + settings.rollout.max_completion_tokens
    return context_tokens(contexts, texts, settings)


def _disk_mistakes(result: PlacementPlan, folder: RunFolder) -> list[Mistake]:
    """Checkpoints and experience that are there already have their place; one more checkpoint is always written before the oldest goes."""
    there = len(list((folder.path / layout.CHECKPOINTS).glob("step-*")))
    written = sum(file.stat().st_size for file in (folder.path / layout.EXPERIENCE).glob("*.arrow"))
    records = sum(part.size_bytes for part in result.disk if part.name != "checkpoints")
    needed_bytes = max(1, result.checkpoints - there) * result.checkpoint.size_bytes + max(
        0, records - written
    )
    nearest = next(parent for parent in (folder.path, *folder.path.parents) if parent.exists())
    free_bytes = shutil.disk_usage(nearest).free
    if needed_bytes <= free_bytes:
        return []
    largest = max(result.disk, key=lambda part: part.size_bytes)
    rule = f"the disk must hold {gigabytes(needed_bytes)}, most of it for {largest.name} ({largest.formula})"
    remedy = "free some, lower checkpoint.keep_last or experience.keep_steps, or set runs elsewhere"
    return [Mistake(str(nearest), f"{gigabytes(free_bytes)} free", rule, remedy)]


class _FourCharacters:
    """A tokenizer's stand-in for an estimate: English has about four characters a token."""

    eos_token_id = 0
    added_tokens_decoder: Mapping[int, Any] = MappingProxyType({})

    def __len__(self) -> int:
        return 0

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool,
        return_dict: bool,
        **variables: object,
    ) -> list[int]:
        return [0] * (sum(len(message["content"]) for message in conversation) // 4)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [0] * (len(text) // 4)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return ""


ESTIMATE = Contexts(_FourCharacters(), system_prompt="", date="", system_role="system")
"""Contexts whose lengths are about right, without a tokenizer."""
