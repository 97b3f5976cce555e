"""Questions to an engine whose weights change."""

import asyncio
from pathlib import Path

from dynalign.endpoint.base import Message, Question
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.records import VersionSpan
from dynalign.rollout.versioned_asker import VersionedAsker
from tests.worlds.chat_models import chat_tokenizer


class Swapped:
    """An engine that gets version 6 in the middle of every text, and shows what it was asked."""

    def __init__(self, contexts: Contexts) -> None:
        self.contexts = contexts
        self.asked: list[str] = []

    async def generate(self, request: EngineRequest) -> EngineResult:
        self.asked.append(self.contexts.tokenizer.decode(request.token_ids, skip_special_tokens=False))
        if request.choice_ids is not None:
            chosen = (-3.0, -0.1)
            return EngineResult(request.choice_ids[:1], (-0.1,), "length", (VersionSpan(6, 0, 1),), chosen)
        ids = tuple(self.contexts.encoded("four"))
        spans = (VersionSpan(5, 0, 1), VersionSpan(6, 1, len(ids)))
        return EngineResult(ids, (), "stop", spans)


def test_the_policy_answers_without_the_system_prompt_and_says_which_versions_it_was(tmp_path: Path) -> None:
    chat_tokenizer().save_pretrained(tmp_path)
    contexts = load_contexts(tmp_path, "Be kind.", "2026-01-01")
    engine = Swapped(contexts)
    asker = VersionedAsker(engine, contexts, 100)
    text = Question("policy", (Message("user", "2 + 2?"),), max_tokens=9)
    answers, versions = asyncio.run(asker.ask(text, held=5))
    assert answers is not None
    assert answers.answers_N[0].text == "four"
    assert versions == (5, 6)
    assert "2 + 2?" in engine.asked[0]
    assert "Be kind." not in engine.asked[0]
    label = Question(
        "policy", (Message("user", "A or B?"),), max_tokens=1, temperature=0.0, choices=("A", "B")
    )
    answers, versions = asyncio.run(asker.ask(label, held=5))
    assert answers is not None
    assert answers.answers_N[0].text == "B"
    assert versions == (6, 6)
    long = Question("policy", (Message("user", "word " * 99),), max_tokens=9)
    assert asyncio.run(asker.ask(long, held=5)) == (None, (5, 5))
