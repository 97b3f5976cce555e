"""The axes of the cells, and the cells of a set: every value of an axis as often as every other."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from itertools import combinations
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.tree import Leaf, parse_document
from dynalign.configs.user_files import UnreadableFile, read_file
from dynalign.configs.user_paths import user_path
from dynalign.dataset.items import AXES, Cell

Taxonomy = Mapping[str, tuple[str, ...]]
"""Axis → its values, for the axes that a kind of prompt has."""

PLACE = "taxonomy"
MOST_BYTES = 1 << 20


def axes_of(kind: str) -> tuple[str, ...]:
    """The axes of a kind of prompt: only dilemmas have a severity."""
    return AXES if kind == "dilemma" else AXES[:-1]


def load_taxonomy(file: str | None, kind: str) -> Taxonomy:
    """The axes in a YAML file, or, if None, in the one shipped with dynalign.

    Raises UserError with every mistake: an unreadable file, a missing, unknown or empty axis, a value that is
    no text or stands there twice."""
    path = (
        Path(str(files("dynalign.dataset").joinpath("taxonomy.yaml")))
        if file is None
        else user_path(PLACE, file)
    )
    try:
        text = read_file(path, MOST_BYTES).decode("utf-8")
    except (UnreadableFile, UnicodeDecodeError) as error:
        cause = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        rule = f"cannot be read ({cause})"
        remedy = f"give a YAML file with the axes {', '.join(axes_of(kind))}"
        raise UserError([Mistake(PLACE, str(path), rule, remedy)]) from None
    tree, mistakes = parse_document(text, path.name)
    for unknown in sorted(set(tree) - set(AXES)):
        remedy = f"the axes are {', '.join(AXES)}"
        mistakes.append(Mistake(f"{path.name}: {unknown}", None, "is no axis", remedy))
    axes: dict[str, tuple[str, ...]] = {}
    for axis in axes_of(kind):
        found = tree.get(axis)
        value = found.value if isinstance(found, Leaf) else None
        mistake = _axis_mistake(value)
        if mistake is not None:
            remedy = "write a list of different texts, such as [farming, health]"
            mistakes.append(Mistake(f"{path.name}: {axis}", None, mistake, remedy))
        elif isinstance(value, tuple):
            axes[axis] = tuple(str(each).strip() for each in value)
    if mistakes:
        raise UserError(mistakes)
    return axes


def _axis_mistake(value: object) -> str | None:
    if value is None:
        return "is missing or has no list of values"
    if not isinstance(value, tuple):
        return "is no list"
    if not value:
        return "is empty, so that there is no cell"
    if any(not isinstance(each, str) or not each.strip() for each in value):
        return "holds something that is no text"
    twice = [each for each, times in Counter(str(each).strip() for each in value).items() if times > 1]
    return f"holds {twice[0]!r} twice" if twice else None


def even_cells(taxonomy: Taxonomy, count: int, seed: int) -> list[Cell]:
    """The first `count` cells of an endless sequence, in which no value of an axis ever is ahead of another
    one of it by more than one.

    For each cell, axis by axis: of the values that were drawn least often, the one that was drawn least often
    together with the values chosen so far; of equals, the one with the least hash. So pairs are even, too, as
    far as the axes allow. A larger count begins with the same cells."""
    singles: Counter[tuple[str, str]] = Counter()
    pairs: Counter[tuple[str, str, str, str]] = Counter()
    cells = []
    for place in range(count):
        chosen: dict[str, str] = {}
        for axis, values in taxonomy.items():
            least = min(singles[axis, value] for value in values)
            rest = [value for value in values if singles[axis, value] == least]
            chosen[axis] = min(rest, key=partial(_rank, pairs, chosen, axis, (seed, place)))
        singles.update(chosen.items())
        pairs.update((*one, *other) for one, other in combinations(chosen.items(), 2))
        cells.append(Cell(**chosen))
    return cells


def _rank(
    pairs: Counter[tuple[str, str, str, str]],
    chosen: Mapping[str, str],
    axis: str,
    at: tuple[int, int],
    value: str,
) -> tuple[int, bytes]:
    together = sum(pairs[other, chosen[other], axis, value] for other in chosen)
    return together, hashlib.sha256(f"{at[0]}/{at[1]}/{axis}/{value}".encode()).digest()
