"""From the setting `model` to a folder: a fetched model, a Hugging Face folder, or a hub id."""

import json
import os
import re
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.refusals import did_you_mean
from dynalign.configs.user_paths import cache_folder, user_path
from dynalign.launch.models.architecture import architecture_mistakes
from dynalign.launch.models.fetch import SOURCES, folder
from dynalign.launch.models.known_models import known_shape
from dynalign.launch.models.tokenizer_files import tokenizer_mistakes
from dynalign.launch.models.weights import file_damage, weight_mistakes
from dynalign.run_folder import layout

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


def model_label(path: str | Path) -> str:
    """The last part of a path; of a checkpoint's exported folder the run and the step."""
    parts = Path(path).parts
    if len(parts) > 3 and parts[-1] == layout.EXPORTED_MODEL and parts[-3] == layout.CHECKPOINTS:
        return f"{parts[-4]}, {parts[-2]}"
    return parts[-1] if parts else str(path)


def model_folder(model: str) -> Path | str:
    """The model's folder on this machine; a hub id that was not downloaded yet is returned as it is.

    Raises UserError for a name that was not fetched yet, or that is neither a folder nor a hub id
    (owner/name).
    """
    if model in SOURCES:
        if folder(model).is_dir():
            return folder(model)
        remedy = f"run `dynalign model fetch {model}`"
        raise UserError([Mistake("model", model, "is not on this machine yet", remedy)])
    path = user_path("model", model)
    if os.path.isdir(path):  # also of a folder that may not be looked into, where Path.is_dir raises
        return path
    if model.startswith(("/", ".", "~")) or not _HUB_ID.fullmatch(model):
        close = did_you_mean(model, SOURCES)
        remedy = f"give {', '.join(SOURCES)}, a folder, or a hub id (owner/name)"
        if close:
            remedy = f"did you mean {close}?"
        raise UserError([Mistake("model", model, "is no folder and no model known here", remedy)])
    snapshot = _hub_snapshot(model)
    if snapshot is not None and not _incomplete(snapshot):
        return snapshot
    if snapshot is None and (refused := _mistyped(model)):
        raise refused
    return model


def _incomplete(snapshot: Path) -> bool:
    """Whether a download broke off: the model's configuration, or a file of its weights is not complete."""
    return file_damage(snapshot / "config.json") is not None or bool(weight_mistakes(snapshot))


def _mistyped(model: str) -> UserError | None:
    """The refusal of a path without its folder that has the form of a hub id: its first part is a folder."""
    owner, _, name = model.partition("/")
    if known_shape(model) is not None or not Path(owner).is_dir():
        return None
    close = did_you_mean(name, [path.name for path in Path(owner).iterdir() if path.is_dir()])
    remedy = f"did you mean {owner}/{close}?" if close else "give the path of a model's folder"
    hub = f"the hub's {model} can be named from another current folder, or once it was downloaded"
    rule = f"there is a folder {owner} here, and no {name} in it"
    return UserError([Mistake("model", model, rule, f"{remedy} ({hub})")])


def _hub_snapshot(model: str) -> Path | None:
    """The folder of a downloaded hub model; None if it is not there.

    `huggingface_hub` keeps it in snapshots/<revision>, and the revision in refs/main.
    """
    repository = _hub_cache() / f"models--{model.replace('/', '--')}"
    try:
        revision = (repository / "refs" / "main").read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    snapshot = repository / "snapshots" / revision
    return snapshot if revision and snapshot.is_dir() else None


def _hub_cache() -> Path:
    """Where `huggingface_hub` keeps what it downloads, by its rules."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := os.environ.get(variable):
            return user_path(variable, os.path.expandvars(named))
    named = os.environ.get("HF_HOME")
    home = user_path("HF_HOME", os.path.expandvars(named)) if named else cache_folder() / "huggingface"
    return home / "hub"


def download_cause(model: str) -> str:
    """Why a hub's model is downloaded when the run starts, in words that follow its name."""
    snapshot = _hub_snapshot(model)
    if snapshot is None:
        return "is downloaded when the run starts"
    lacking = "; ".join(mistake.rule for mistake in folder_mistakes(snapshot))
    return f"is on this machine in part ({lacking}), and the rest is downloaded when the run starts"


def download(model: str) -> Path:
    """Downloads a hub's model into the hub's cache, and returns its folder.

    Raises UserError when the hub cannot be reached or has no such model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors"]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "check the id, the network and your access to it, or set model to a folder that you have"
        raise UserError([Mistake("model", model, f"could not be downloaded ({cause})", remedy)]) from error


def folder_mistakes(path: Path) -> list[Mistake]:
    """What a run needs of a Hugging Face folder and this one lacks.

    Weights in mxfp4 pass, since transformers unpacks them for the learner; the plan refuses what they
    cannot do.
    """
    mistakes: list[Mistake] = []

    def lacks(rule: str, remedy: str) -> None:
        mistakes.append(Mistake(f"model folder {path}", None, rule, remedy))

    if _own_code(path):
        lacks("is Python code of its own, which is never run", "use a model that transformers knows")
    else:
        mistakes += architecture_mistakes(path)
    if not (path / "config.json").is_file():
        lacks("has no config.json", "give a folder that transformers can load")
    elif (method := _quantization(path)) not in (None, "mxfp4"):
        lacks(
            f"holds quantized weights ({method}), which cannot be trained",
            "give an unquantized copy (bfloat16 safetensors)",
        )
    mistakes += weight_mistakes(path)
    if (path / "adapter_config.json").is_file():
        lacks(
            "holds adapter_config.json, so that transformers would load the adapter's base model instead",
            "merge the adapter, or take its files out of the folder",
        )
    if not any((path / name).is_file() for name in _TOKENIZERS):
        lacks("has no tokenizer", "add tokenizer.json")
    mistakes += tokenizer_mistakes(path)
    if not _has_chat_template(path):
        lacks("has no chat template", "use an instruct model, or add chat_template.jinja")
    return mistakes


def _quantization(path: Path) -> str | None:
    """The method by which the weights are quantized; None for plain floats."""
    try:
        config = json.loads((path / "config.json").read_text("utf-8")).get("quantization_config")
    except (ValueError, AttributeError):
        return None  # read_shape says what is wrong with it
    return None if config is None else str(config.get("quant_method", "method unknown"))


def _own_code(path: Path) -> bool:
    """Whether the architecture is known to the model's own Python code alone."""
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
        mapped = config.get("auto_map")
    except (OSError, ValueError, AttributeError):
        return False  # read_shape says what is wrong with it
    if not mapped:
        return False
    from transformers import CONFIG_MAPPING

    return config.get("model_type") not in CONFIG_MAPPING


def _has_chat_template(path: Path) -> bool:
    if (path / "chat_template.jinja").is_file() or (path / "chat_template.json").is_file():
        return True
    try:
        return bool(json.loads((path / "tokenizer_config.json").read_text("utf-8")).get("chat_template"))
    except (OSError, ValueError):
        return False
