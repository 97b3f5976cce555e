"""The contexts of a chat tokenizer in which every byte is a token."""

import pytest

from dynalign.rollout.contexts import Contexts, load_contexts
from tests.worlds.chat_models import chat_tokenizer


@pytest.fixture(scope="session")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    folder = tmp_path_factory.mktemp("tokenizer")
    chat_tokenizer().save_pretrained(folder)
    return load_contexts(folder, "s", "2026-01-01")
