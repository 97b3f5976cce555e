"""Whether transformers knows a model's architecture as one that generates text: read from its own table,
without importing it."""

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from dynalign.configs.errors import Mistake

_GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Ends of the names of architectures with a head over the vocabulary."""
_TABLE = re.compile(r"^MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = .*?^\)", re.DOTALL | re.MULTILINE)
_ROW = re.compile(r"\(\"([^\"]+)\", \"([^\"]+)\"\)")


def architecture_mistakes(folder: Path) -> list[Mistake]:
    """The mistake of a config.json that names an architecture which cannot be trained to generate text."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        kind = config.get("model_type")
        named = [str(name) for name in config.get("architectures") or ()]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return []  # read_shape says what is wrong with it
    known = causal_models()
    rule = ""
    if kind is not None and known and str(kind) not in known:
        rule = f"transformers knows no causal language model of its model_type {kind!r}"
    elif named and not any(name.endswith(_GENERATING) or name in known.values() for name in named):
        rule = f"its architecture {named[0]} has no head that generates text"
    remedy = "use a causal language model that transformers knows"
    return [Mistake(f"model folder {folder}", None, rule, remedy)] if rule else []


@cache
def causal_models() -> dict[str, str]:
    """model_type → class, as `AutoModelForCausalLM` maps them; empty where the table is not found."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return {}
    try:
        text = (Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py").read_text("utf-8")
    except OSError:
        return {}
    table = _TABLE.search(text)
    return dict(_ROW.findall(table[0])) if table else {}
