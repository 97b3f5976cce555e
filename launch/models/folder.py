"""From the setting `model` to a folder: a fetched model, a Hugging Face folder, or a hub id."""

import json
import os
import re
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.refusals import did_you_mean
from dynalign.configs.user_paths import cache_folder, user_path
from dynalign.launch.models.fetch import SOURCES, folder

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


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
    return _hub_snapshot(model) or model


def _hub_snapshot(model: str) -> Path | None:
    """The folder of a downloaded hub model; None if it is not there, or incomplete.

    `huggingface_hub` keeps it in snapshots/<revision>, and the revision in refs/main.
    """
    named = os.environ.get("HF_HUB_CACHE")
    hub = user_path("HF_HUB_CACHE", named) if named else _hub_home() / "hub"
    repository = hub / f"models--{model.replace('/', '--')}"
    revision = repository / "refs" / "main"
    if not revision.is_file():
        return None
    snapshot = repository / "snapshots" / revision.read_text().strip()
    complete = all(any(snapshot.glob(pattern)) for pattern in ("config.json", "*.safetensors"))
    return snapshot if complete else None


def _hub_home() -> Path:
    named = os.environ.get("HF_HOME")
    return user_path("HF_HOME", named) if named else cache_folder() / "huggingface"


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

    if not (path / "config.json").is_file():
        lacks("has no config.json", "give a folder that transformers can load")
    elif (method := _quantization(path)) not in (None, "mxfp4"):
        lacks(
            f"holds quantized weights ({method}), which cannot be trained",
            "give an unquantized copy (bfloat16 safetensors)",
        )
    if not any(any(path.glob(pattern)) for pattern in _WEIGHTS):
        lacks("has no *.safetensors", "save the model as safetensors")
    if not any((path / name).is_file() for name in _TOKENIZERS):
        lacks("has no tokenizer", "add tokenizer.json")
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


def _has_chat_template(path: Path) -> bool:
    if (path / "chat_template.jinja").is_file() or (path / "chat_template.json").is_file():
        return True
    try:
        return bool(json.loads((path / "tokenizer_config.json").read_text("utf-8")).get("chat_template"))
    except (OSError, ValueError):
        return False
