"""Uploads an exported model to a model hub, with `huggingface_hub` and the user's own token."""

import re
from pathlib import Path

from dynalign.configs.errors import Mistake, RunFailed

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


def push_mistakes(repository: str, token: str | None = None) -> list[Mistake]:
    """What is wrong with a push before anything is copied. token: None for the one of `hf auth login`."""
    mistakes = []
    if not _NAME.fullmatch(repository):
        rule = "is not of the form OWNER/NAME"
        mistakes.append(Mistake("--push", repository, rule, "write the owner, a slash, the model's name"))
    from huggingface_hub import get_token

    if not (token or get_token()):
        remedy = "set HF_TOKEN, or run `hf auth login`"
        mistakes.append(Mistake("--push", repository, "needs a token, and there is none", remedy))
    return mistakes


def push(folder: Path, repository: str, endpoint: str | None = None, token: str | None = None) -> str:
    """Uploads a folder; a new repository is private. Returns its address.

    endpoint: of the hub; None for HF_ENDPOINT, or the public one. Raises RunFailed with the hub's words; the
    exported folder stays, and the push can be repeated."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint, token=token)
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Upload a model exported by dynalign"
        )
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise RunFailed(f"{repository} was not uploaded ({cause}); the model is in {folder}") from error
    return str(address)
