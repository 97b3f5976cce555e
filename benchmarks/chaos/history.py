"""Which commits of a ledger's log lead to the final weights, by rules of the audit's own."""

from collections.abc import Iterable

from dynalign.benchmarks.chaos.raw import Fields


def history(lines: Iterable[Fields], wrong: list[str]) -> list[Fields]:
    """The commits that lead to the final weights.

    Lineages only grow. A new one continues from a checkpoint and undoes the commits after it; a ledger that
    starts again within its lineage undoes none. What contradicts this is a sentence in `wrong`.
    """
    commits: list[Fields] = []
    newest = 0
    for line in lines:
        lineage = _lineage(line)
        if lineage < newest or lineage > newest and line["kind"] != "lineage":
            wrong.append(f"a line of lineage {lineage} follows the start of lineage {newest}: {_what(line)}")
        elif line["kind"] == "lineage":
            done = commits[-1]["step"] if commits else 0
            begins = line["step"]
            if begins > done:
                wrong.append(
                    f"lineage {lineage} begins at step {begins}, but only {done} steps were committed"
                )
            if lineage == newest and begins < done:
                wrong.append(
                    f"a ledger of lineage {lineage} forgot the committed steps {begins + 1} to {done}"
                )
            commits = [commit for commit in commits if commit["step"] <= begins]
            if commits and commits[-1]["lineage"] > line["parent"]:
                wrong.append(
                    f"lineage {lineage} continues lineage {line['parent']} at step {begins}, "
                    f"which lineage {commits[-1]['lineage']} committed"
                )
            newest = lineage
        elif line["kind"] == "commit":
            commits.append(line)
    return commits


def _lineage(line: Fields) -> int:
    return int(line["group"]["lineage"] if line["kind"] == "scored" else line["lineage"])


def _what(line: Fields) -> str:
    match line["kind"]:
        case "commit":
            return f"the commit of step {line['step']}"
        case "lineage":
            return "its start"
        case kind:
            return str(kind)
