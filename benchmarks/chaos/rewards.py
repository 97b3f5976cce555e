"""The reward function of a storm's run: some prompts end their worker, some give a group without signal."""

import os
from zlib import crc32

POISON_WORD = "nightshade"
"""A prompt with this word ends the process that scores it."""

SILENT_WORD = "silence"
"""All answers to a prompt with this word score 0, which no veto can lower further."""

EXIT_STATUS = 13


def storm_reward(prompt: str, completion: str) -> float:
    """A score in 0 … 5 by the text of the answer, so that it is the same each time."""
    if POISON_WORD in prompt:
        os._exit(EXIT_STATUS)
    return 0.0 if SILENT_WORD in prompt else crc32(completion.encode()) % 51 / 10
