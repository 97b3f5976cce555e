"""One example of each file of a run folder, in its present format.

`python -m tests.worlds.golden_formats` writes them to tests/golden/formats/. A format that changes gets
another number. The golden file of the number before then moves to `formats/<file>.<number>`, and a test shows
that it is still read, or refused by name.

Two golden files hold the present format as an earlier version wrote it (`WRITTEN_BEFORE`). They stay.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgpack

from dynalign.learner.learner_state import LearnerState
from dynalign.rollout import arrow_schema
from dynalign.rollout.ledger.evaluation_leases import EvaluationKey, EvaluationResult
from dynalign.rollout.ledger.log import encode
from dynalign.rollout.ledger.log_lines import LogLine
from dynalign.rollout.ledger.state import LedgerState, pack
from dynalign.rollout.ledger.values import (
    Break,
    Commit,
    LineageStart,
    PromptChange,
    Scored,
    ScoredGroup,
)
from dynalign.rollout.records import Candidate, Group, Opinion, ScoringRules, Verdict, VersionSpan
from dynalign.run_folder import checkpoint, layout, owner, value_texts, withheld_groups
from dynalign.run_folder.capability import CapabilityItem
from dynalign.run_folder.heldout import HeldoutItem
from dynalign.run_folder.metric_names import METRIC_NAMES
from dynalign.run_folder.metrics import MetricsLog
from dynalign.run_folder.spool import SpoolEntry
from dynalign.run_folder.withheld_groups import WithheldGroup
from tests.worlds.product import ROOT

GOLDEN = ROOT / "tests" / "golden" / "formats"
WRITTEN_BEFORE = frozenset({"ledger.log", "ledger.msgpack"})
"""Golden files that carry, for each scored group, the mean and standard deviation of its scores. Readers skip
these two numbers, and the files that are written now lack them."""

STAMP = owner.Stamp(3, "host", 4321, 1700000000.25, "raysubmit_1", 1700000100.5, "running")
MEASURED = ScoredGroup(7, 1, 3, SpoolEntry("00000007-1-3.arrow", 2048, "0123456789abcdef"), 1, 2)
LINES: tuple[LogLine, ...] = (
    LineageStart(3, 4, 2),
    Scored(MEASURED, 2),
    Break(8, 0, 3, 11, ("rollout-0", "rollout-1"), poison=False),
    Commit(5, 3, (6, 7), ((5, "low_signal"), (8, "poison"))),
    PromptChange(3, 5, "0123456789abcdef", first_draw=10, added=4, dropped=(3, 17)),
    EvaluationResult(EvaluationKey(5, 0, 1, 3), 2.25, 3, "gut — größer", False, 40, 5, 6),
)
STATE = LedgerState(
    version=5, issued=10, trained=6, pending=[9], scored={7: Scored(MEASURED, 2)},
    withheld={5: "low_signal", 8: "poison"}, last_group_ids=(4, 6), requeued=2, late=1, rolled_back=3,
)  # fmt: skip
LEARNER = LearnerState(5, (4, 6), {"loss": 0.5, "kl": None, "learning_rate": 1e-06})
MANIFEST = checkpoint.CheckpointManifest(
    "run",
    3,
    5,
    (4, 6),
    {"model": "m", "learner.lora": None},
    {"deepspeed/rank0.pt": checkpoint.FileEntry(7, "0011223344556677")},
)
WITHHELD = (
    WithheldGroup(5, "low_signal", 4, 3, 2, 0, 1700000000.5, "p1", "rollout-0", 1, (2.5, None, 2.5), 0.25),
    WithheldGroup(8, "poison", 5, 3, 11, 1, 1700000001.0),
)
TEXTS = {"definition.md": "\ufeffKollektive Würde\n", "system.txt": "s"}
ROW = dict.fromkeys(METRIC_NAMES) | {"step": 5, "lineage": 3, "loss": 0.5, "issued": 10}
ANSWER = '{"rationale": "It hides a cost.", "score": 2}'
ITEM = HeldoutItem(5, 3, "p1", "Wie geht’s?", False, 2.25, "gut", 3, False, 4, 5)
ANSWERED = CapabilityItem(5, 5, 3, 1, "arithmetic/0123456789ab", 1.0, "12 — zwölf", 38, 5, 6)
SPAN = VersionSpan(1, 0, 2, lineage=3)
PARSED = Verdict(
    2.5, "parsed", digit_probs_6=(0.1, 0.1, 0.2, 0.2, 0.2, 0.2), digit_mass=0.75, score_again=2.75
)
OPINIONS = (
    Opinion(
        "self", 3.5, "parsed", rubric="power", digit_probs=(0.0, 0.0, 0.0, 0.5, 0.5, 0.0), digit_mass=0.5
    ),
    Opinion(
        "gpt",
        2.0,
        "parsed",
        "veto",
        stance="harm",
        round=1,
        position=0,
        text="It hides a cost.",
        answers=(ANSWER,),
    ),
    Opinion("frozen", None, "unreachable", "probe", text="nothing answered"),
    Opinion("self", 2.75, "parsed", "again", digit_probs=(0.0, 0.0, 0.25, 0.75, 0.0, 0.0), digit_mass=0.5),
)
UNREAD = Verdict(None, "unparsed", text="I would say five\nor four", answers=("I would say five", "or four"))
RULES = ScoringRules("self", "expected", "mean", "mean", 0, 5, 0.1)
GROUP = Group(
    "run", 3, 7, 1, 0, "p1", "a prompt", (5, 6), (
        Candidate(
            (1, 2), (-0.5, -0.25), "hi", "stop", (SPAN,), replace(PARSED, opinions=OPINIONS),
            (-0.5, -0.375), 0.125, 2,
        ),
        Candidate((), (), "", "length", (), UNREAD),
    ), "self", 2, "d" * 16, "r" * 16, "rollout-0", 1.0, 2.0, 3.0, noise_std=0.25, scoring=RULES,
    model_hash="0123456789abcdef" * 2,
)  # fmt: skip


def of_format_2() -> Group:
    """What `step.arrow.2` holds: format 2 had no answers apart, no distributions of opinions, no lineages."""
    opinions = (
        Opinion("self", 3.5, "parsed", rubric="power"),
        Opinion("gpt", 2.5, "parsed", "veto", stance="harm", round=1, position=0, text="It hides a cost."),
        OPINIONS[2],
    )
    first = replace(
        GROUP.candidates_G[0],
        spans=(replace(SPAN, lineage=None),),
        verdict=replace(PARSED, opinions=opinions),
    )
    second = replace(GROUP.candidates_G[1], verdict=replace(UNREAD, text="I would say five", answers=()))
    return replace(GROUP, candidates_G=(first, second), scoring=None, model_hash="")


def of_format_1() -> Group:
    """What `step.arrow.1` holds: format 1 had no opinions either."""
    group = of_format_2()
    first = replace(group.candidates_G[0], verdict=PARSED)
    return replace(group, candidates_G=(first, group.candidates_G[1]))


@dataclass(frozen=True)
class Written:
    """A file of a run folder."""

    content: bytes
    exact: bool = True
    """Whether the bytes are compared. False for Arrow, which may lay out the same values in another way in
    another version: there the values are compared."""


def written() -> dict[str, Written]:
    """File name → content, as the product writes it now."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "owner.json").write_bytes(owner.encode(STAMP))
        LEARNER.write(folder)
        (folder / layout.MANIFEST).write_text(checkpoint.encode_manifest(MANIFEST))
        with MetricsLog(folder, tensorboard=False, lineage=3) as log:
            log.write(ROW)
            log.write_heldout([ITEM])
            log.write_capability([ANSWERED])
        withheld_groups.append(folder, WITHHELD)
        value_texts.keep(folder, "0123456789abcdef", TEXTS)
        (folder / layout.VALUE_TEXTS / "0123456789abcdef.json").rename(folder / "value-texts.json")
        found = {path.name: Written(path.read_bytes()) for path in sorted(folder.iterdir()) if path.is_file()}
    found["ledger.log"] = Written(b"".join(map(encode, LINES)))
    found["ledger.msgpack"] = Written(bytes(msgpack.packb(pack(STATE, 3))))
    found["step.arrow"] = Written(
        arrow_schema.encode([arrow_schema.to_batch(GROUP, [0.5, 0.0])]), exact=False
    )
    return found


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, each in written().items():
        if name in WRITTEN_BEFORE:
            continue
        (GOLDEN / name).write_bytes(each.content)
