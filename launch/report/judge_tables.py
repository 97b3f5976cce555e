"""The card of a judge check as sentences and tables, which its page and its Markdown both show."""

from collections.abc import Sequence
from dataclasses import dataclass

from dynalign.evaluation.judge_check.bar import MOST_KEY, MOST_LIFT
from dynalign.evaluation.judge_check.card import JudgeCard, passes
from dynalign.evaluation.judge_check.figures import Agreement, JudgeFigures
from dynalign.evaluation.judge_check.lift import FamilyLift, Lift
from dynalign.evaluation.judge_check.seconds import SecondFigures
from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.evaluation.statistics.paired import Flips, PairedChange
from dynalign.evaluation.statistics.reliability import WANTED
from dynalign.launch.report.figures import ABSENT, figure, hundredths, interval, signed_hundredths
from dynalign.launch.report.judge_sentences import verdict


@dataclass(frozen=True, slots=True)
class CardTable:
    """A table: `CardTable("Forms", ("form", "mean |Δ|"), (("padding", "0.31"),), "Points of 5.")`."""

    title: str
    """What it shows."""
    head: tuple[str, ...]
    """The columns' names."""
    rows: tuple[tuple[str, ...], ...]
    """The cells; the first of a row is its name."""
    caption: str
    """How the figures were computed."""
    wide: bool = False
    """Whether it takes the page's whole width."""


@dataclass(frozen=True, slots=True)
class CardSection:
    """What the card says about one judge, or all: `CardSection("self, expected", "below the bar", …)`."""

    title: str
    """Its heading."""
    state: str
    """`above the bar`, `below the bar`, or nothing."""
    verdict: str
    """A sentence."""
    tables: tuple[CardTable, ...]
    """Its tables."""


def card_facts(card: JudgeCard) -> list[tuple[str, str]]:
    """What was checked, by name."""
    facts = card.facts
    return [
        ("run", facts.run),
        ("model", facts.model),
        ("held-out prompts", str(facts.prompts)),
        ("good answers", facts.good_answers),
        ("candidates", f"{facts.group_size} per prompt, by the policy"),
        ("attacks", facts.attacks),
        ("engine", facts.engine),
        ("day", facts.day),
    ]


def card_sections(card: JudgeCard) -> list[CardSection]:
    """A section for each judge, and one for their agreement."""
    sections = [_of_judge(figures, card.seconds_of(figures.judge)) for figures in card.judges]
    return sections if card.agreement is None else [*sections, _of_all(card.agreement)]


def order_rows(figures: JudgeFigures) -> list[tuple[str, Estimate | None]]:
    """The comparisons of planted answers by name, that of the bar first."""
    pairs = [(f"{pair.better} above {pair.worse}", pair.auc) for pair in (figures.overall, *figures.adjacent)]
    return [pairs[0], ("the same, across prompts", figures.across), *pairs[1:]]


def _of_judge(figures: JudgeFigures, seconds: SecondFigures | None) -> CardSection:
    state = "above the bar" if passes(figures) else "below the bar"
    return CardSection(
        figures.judge,
        state,
        verdict(figures),
        (
            _order(figures),
            _tiers(figures),
            _forms(figures),
            _repeats(figures),
            *(() if figures.lift is None else (_attacks(figures.lift),)),
            *(() if seconds is None or seconds.own is None else (_members(figures, seconds.own, seconds),)),
            *(() if seconds is None or not seconds.probes else (_probes(seconds),)),
        ),
    )


def _members(figures: JudgeFigures, own: JudgeFigures, seconds: SecondFigures) -> CardTable:
    rows = [
        ("as the run scores", interval(figures.overall.auc), *_unread(figures), ABSENT, ABSENT, ABSENT),
        ("before its vetoes", interval(own.overall.auc), *_unread(own), ABSENT, ABSENT, ABSENT),
    ]
    for veto in seconds.vetoes:
        measured = (interval(veto.figures.overall.auc), *_unread(veto.figures))
        does = (interval(veto.lowers, with_n=False), interval(veto.by, with_n=False), str(veto.removes))
        rows.append((f"veto {veto.figures.judge}", *measured, *does))
    return CardTable(
        "The judge and its vetoes",
        ("member", "AUC", "not read", "lowers: share", "by: points", "takes away"),
        tuple(rows),
        "A veto lowers a score and never raises it; without one of its own it takes the candidate's away. "
        "Share and mean points over the policy's candidates, with 95 % intervals over prompts. The other "
        "figures are those of the score that the run uses. Before training the initial policy is the policy.",
        wide=True,
    )


def _unread(figures: JudgeFigures) -> tuple[str]:
    return (f"{figures.unread:,} of {figures.scores:,}",)


def _probes(seconds: SecondFigures) -> CardTable:
    rows = tuple(
        (
            each.probe,
            interval(each.tau.correlation),
            f"{each.tau.groups}, {each.tau.without_spread}",
            interval(each.alpha),
            interval(each.gap, "+", with_n=False),
            f"{each.unread:,} of {each.scores:,}",
        )
        for each in seconds.probes
    )
    return CardTable(
        "Probes",
        (
            "probe",
            "Kendall's τ-b",
            "groups, without spread",
            "Krippendorff's α",
            "judge less probe",
            "not read",
        ),
        rows,
        "How a probe scores the policy's candidates beside the score that the run uses; it changes none. "
        f"Here it scores every group, in the run {seconds.probe_fraction:.1%} of them.",
        wide=True,
    )


def _order(figures: JudgeFigures) -> CardTable:
    return CardTable(
        "Planted order",
        ("comparison", "AUC"),
        tuple((name, interval(found)) for name, found in order_rows(figures)),
        "Probability that the better of two answers to one prompt gets the higher score; a tie counts half. "
        "n: prompts. The first line is the bar's. Which of half and shuffled is worse depends on the answer.",
    )


def _tiers(figures: JudgeFigures) -> CardTable:
    rows = tuple((name, interval(mean)) for name, mean in figures.tiers)
    return CardTable("Mean scores", ("answer", "points of 5"), rows, "With 95 % intervals over prompts.")


def _forms(figures: JudgeFigures) -> CardTable:
    rows = tuple(
        (
            each.name,
            str(each.change.pairs),
            interval(each.change.size, with_n=False),
            interval(each.change.shift, "+", with_n=False),
            _flips(each.flips),
            f"{each.flips.p:.2f}" if each.flips.pairs else ABSENT,
        )
        for each in figures.variants
    )
    return CardTable(
        "The same answer in another form",
        ("form", "prompts", "mean |Δ|", "mean Δ", "labels that changed", "p"),
        rows,
        "Points by which the score changes though the answer says the same. A label is the score rounded to "
        "a whole number; p is McNemar's exact one for equally many up and down.",
        wide=True,
    )


def _flips(flips: Flips) -> str:
    return f"{flips.up} up, {flips.down} down"


def _repeats(figures: JudgeFigures) -> CardTable:
    found = figures.reliability
    rows: list[tuple[str, str]] = [
        ("reliability of the differences within a group", interval(found.of_one if found else None)),
        ("noise: std of a repeated score, points", figure(found.noise_std) if found else ABSENT),
        (
            "spread within a group, noise included: std, points",
            figure(found.between_std) if found else ABSENT,
        ),
        (f"samples for a reliability of {WANTED:g}", _samples(figures)),
        ("what the first place in a group gives over the last, points", interval(figures.position, "+")),
        ("scores asked for, and not read", f"{figures.scores:,}, {figures.unread:,}"),
        ("time per score, s", figure(figures.seconds / figures.scores) if figures.scores else ABSENT),
    ]
    return CardTable(
        "Repeated scores of the policy's candidates",
        ("quantity", "figure"),
        tuple(rows),
        "Each candidate was scored twice, the second time in the reverse order. Reliability is "
        "1 − σ²noise/σ²between, with a bootstrap interval over prompts. It says that a score repeats, not "
        "that it is right.",
        wide=True,
    )


def _attacks(lift: Lift) -> CardTable:
    rows = [_attack_row("all families", lift.overall, "", sum(each.unread for each in lift.families))]
    rows += [_attack_row(each.family, each.change, _highest(each), each.unread) for each in lift.families]
    key = (
        f"{lift.highest_key}, {hundredths(lift.highest_key_score)}"
        if lift.highest_key_score is not None
        else ABSENT
    )
    rows.append(("a master key alone: points", "", interval(lift.keys), key, ""))
    return CardTable(
        "Attacks",
        ("family", "pairs", "mean Δ", "the highest", "not read"),
        tuple(rows),
        "Points by which an attack behind half of the good answer raises its score, with 95 % intervals over "
        f"prompts. The aims are {MOST_LIFT:g} at most, and {MOST_KEY:g} for a master key as a whole answer. "
        "Not read: attacked answers without a score where the plain one has one.",
        wide=True,
    )


def _attack_row(name: str, changed: PairedChange, highest: str, unread: int) -> tuple[str, ...]:
    return (name, str(changed.pairs), interval(changed.shift, "+"), highest or ABSENT, str(unread))


def _highest(family: FamilyLift) -> str:
    if family.highest is None or family.highest_rise is None:
        return ""
    return f"{family.highest.partition(': ')[2]}, {signed_hundredths(family.highest_rise, '+')}"


def _samples(figures: JudgeFigures) -> str:
    if figures.reliability is None or figures.reliability.of_one is None:
        return ABSENT
    low, high = (_number(each) for each in figures.samples_needed_range)
    return f"{_number(figures.samples_needed)} ({low} to {high}; now {figures.samples})"


def _number(samples: int | None) -> str:
    return "no number reaches it" if samples is None else f"{samples:,}"


def _of_all(found: Agreement) -> CardSection:
    table = CardTable(
        "Rank correlation within groups",
        ("judges", "Kendall's τ-b", "groups", "without spread"),
        tuple(
            (
                f"{pair.first} · {pair.second}",
                interval(pair.tau.correlation),
                str(pair.tau.groups),
                str(pair.tau.without_spread),
            )
            for pair in found.pairs
        ),
        "Mean over groups, with a 95 % interval over prompts. Without spread: one of the two gave the whole "
        "group one score.",
        wide=True,
    )
    verdict = f"Krippendorff's α, ordinal, over the policy's candidates: {interval(found.alpha)}."
    return CardSection("Agreement of the judges", "", verdict, (table,))


def markdown(card: JudgeCard) -> str:
    """The card in Markdown, for a README or a model card."""
    lines = [f"# Judge check: {card.facts.run}", ""]
    lines += [f"- {name}: {cell_text(value)}" for name, value in card_facts(card)]
    for section in card_sections(card):
        state = f" ({section.state})" if section.state else ""
        lines += ["", f"## {cell_text(section.title)}{state}", "", cell_text(section.verdict)]
        for table in section.tables:
            lines += ["", f"### {table.title}", "", *table_lines(table), "", table.caption]
    return "\n".join(lines) + "\n"


def table_lines(table: CardTable) -> list[str]:
    """A table in Markdown."""
    rows: Sequence[Sequence[str]] = [table.head, ["---"] * len(table.head), *table.rows]
    return [f"| {' | '.join(cell_text(cell) for cell in row)} |" for row in rows]


def cell_text(text: str) -> str:
    """The text on one line, without marks that Markdown would read."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
