"""`dynalign check`: the verdict on a configuration, its placement plan, and the two contexts of a prompt."""

from collections.abc import Iterator
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import LoadedRun
from dynalign.launch.models.folder import model_folder
from dynalign.launch.plan.text import plan_lines
from dynalign.launch.preflight import check, run_contexts, run_texts
from dynalign.launch.resume.open_run import open_run_folder
from dynalign.rollout.prompts import load_prompts


def check_lines(loaded: LoadedRun) -> Iterator[str]:
    """What was found, and the plan, also one that is refused: its figures are the reason.

    :raises UserError: every mistake, after the lines. :raises CheckpointError: the newest checkpoint is damaged.
    """
    checked = check(loaded)
    settings, folder = loaded.settings, open_run_folder(loaded)
    if not checked.mistakes:
        yield f"run {settings.name}: {len(loaded.origins)} settings in order; {folder.path}: {folder.state()} run"
        if checked.plan is None:
            yield f"no placement plan: {settings.model} is downloaded when the run starts"
    if checked.plan is not None:
        yield from plan_lines(checked.plan)
    if checked.mistakes:
        raise UserError(checked.mistakes)


def context_lines(loaded: LoadedRun) -> Iterator[str]:
    """What the first prompt looks like to the model when it samples and when it learns. Loads the tokenizer.

    :raises UserError: the model's folder, prompts, or texts cannot be read.
    """
    settings = loaded.settings
    model = model_folder(settings.model)
    if not isinstance(model, Path):
        rule, remedy = (
            "its tokenizer is not on this machine",
            "leave out --contexts until a run has downloaded it",
        )
        raise UserError([Mistake("model", settings.model, rule, remedy)])
    contexts = run_contexts(settings, model, run_texts(settings))
    prompt = load_prompts(settings.prompts.source).train[0]
    for title, ids in (
        ("sampling context", contexts.sampling_context(prompt.prompt)),
        ("learning context", contexts.learning_context(prompt.prompt)),
    ):
        yield f"--- {title} of prompt {prompt.id}, {len(ids)} tokens ---"
        yield contexts.tokenizer.decode(ids, skip_special_tokens=False)
