"""`dynalign check`: the mistakes of a configuration, its placement plan, and the two contexts of a prompt."""

from collections.abc import Iterator
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import LoadedRun
from dynalign.launch.models.folder import download_cause, model_folder
from dynalign.launch.plan.text import plan_lines
from dynalign.launch.preflight import check, run_contexts, run_texts
from dynalign.launch.prompt_check import prompts_of
from dynalign.launch.resume.open_run import open_run


def check_lines(loaded: LoadedRun) -> Iterator[str]:
    """What was found, and the plan. A refused plan is included: its figures are the reason.

    Raises UserError with every mistake after the lines, CheckpointError when the newest checkpoint is
    damaged.
    """
    run = open_run(loaded)
    checked = check(run)
    if not checked.mistakes:
        settings_in_order = f"{len(loaded.origins)} settings in order"
        yield f"run {run.settings.name}: {settings_in_order}; {run.folder.path}: {run.folder.state()} run"
        if checked.plan is None:
            yield f"no placement plan: {run.settings.model} {download_cause(run.settings.model)}"
    yield from checked.notes
    yield from checked.asked
    if checked.plan is not None:
        yield from plan_lines(checked.plan)
    if checked.mistakes:
        raise UserError(checked.mistakes)


def context_lines(loaded: LoadedRun) -> Iterator[str]:
    """The first prompt as the model sees it when it samples and when it learns. Loads the tokenizer.

    Raises UserError when the model's folder, the prompts or the texts cannot be read.
    """
    settings = loaded.settings
    model = model_folder(settings.model)
    if not isinstance(model, Path):
        rule = "its tokenizer is not on this machine"
        remedy = "leave out --contexts until a run has downloaded it"
        raise UserError([Mistake("model", settings.model, rule, remedy)])
    contexts = run_contexts(settings, model, run_texts(settings))
    prompt = prompts_of(settings).train[0]
    kept = settings.algorithm.system_prompt == "kept"
    for title, ids in (
        (
            "sampling and learning context" if kept else "sampling context",
            contexts.sampling_context(prompt.prompt),
        ),
        ("plain context" if kept else "learning context", contexts.learning_context(prompt.prompt)),
    ):
        yield f"--- {title} of prompt {prompt.id}, {len(ids)} tokens ---"
        yield contexts.tokenizer.decode(ids, skip_special_tokens=False)
    yield from contexts.notes()
