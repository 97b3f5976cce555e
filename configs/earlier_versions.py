"""What configurations of earlier versions contain and this version no longer has.

A run folder of an earlier version can be continued, so its `config.yaml` must load.
"""

from typing import Final

from dynalign.configs.tree import Leaf, Tree, find, prune

FIXED_SAMPLING: Final[dict[str, float]] = {"temperature": 1.0, "top_p": 1.0, "top_k": -1}
"""Former settings of section `rollout`, each with the only value that it could have. Other trainers have
them, too."""

FIXED_SAMPLING_RULE: Final = (
    "is not a setting: sampling is fixed at temperature 1, top-p 1 and top-k off, because truncated "
    "sampling biases the importance ratio"
)

_MOVED_MODULES: Final[dict[str, str]] = {
    "rollout.reward_functions": "dynalign.rollout.judges.reward_functions"
}
"""Former module of a reward function that comes with dynalign → its present module."""


def present_function(name: str) -> str:
    """`package.module:callable` under its present name; the name itself where it has not changed."""
    module, colon, function = name.partition(":")
    return f"{_MOVED_MODULES.get(module, module)}{colon}{function}"


def present(tree: Tree) -> None:
    """Changes settings of an earlier version, in place, to what they are called now.

    A sampling setting with its only former value is dropped; another value stays, to be refused as unknown.
    A reward function gets its present name.
    """
    for key, only in FIXED_SAMPLING.items():
        found = find(tree, ("rollout", key))
        if isinstance(found, Leaf) and not isinstance(found.value, bool) and found.value == only:
            prune(tree, ("rollout", key))
    judge = find(tree, ("judge",))
    function = find(tree, ("judge", "function"))
    if isinstance(judge, dict) and isinstance(function, Leaf) and isinstance(function.value, str):
        judge["function"] = Leaf(present_function(function.value), function.origin)
