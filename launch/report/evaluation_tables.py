"""The card of an evaluation as sentences and tables, which its page and its Markdown both show.

A figure is shown with its unit, its interval and its denominator, or not at all.
"""

from collections.abc import Iterator, Sequence

from dynalign.evaluation.pairwise.card import EvaluationCard
from dynalign.evaluation.pairwise.figures import JudgeResult, PairFigures
from dynalign.evaluation.pairwise.internalization import Internalization
from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.launch.report.evaluation_suites import SuiteScore
from dynalign.launch.report.figures import ABSENT, MINUS, figure
from dynalign.launch.report.judge_tables import CardSection, CardTable

PAPER_PREFERENCE = 0.872
"""Of arXiv 2512.05464: preference over the base model, one judge, one run, no interval."""
_KEPT = {"ifeval": "IFEval", "gpqa_diamond": "GPQA Diamond", "aime25": "AIME 2025"}
"""How the harness's names begin of what the paper says was kept."""
_RULES = {
    "half": "a tie is half a win",
    "dropped": "ties left out",
    "davidson": "Davidson's model, place taken out",
    "agree": "both orders agree",
}


def percent(value: float | None) -> str:
    """A share as `62.5 %`."""
    return ABSENT if value is None else f"{100 * value:.1f} %"


def share(estimate: Estimate | None) -> str:
    """`62.5 % (54.0 to 71.0)`."""
    if estimate is None:
        return ABSENT
    if estimate.low is None or estimate.high is None:
        return f"{percent(estimate.mean)} (no interval)"
    return f"{percent(estimate.mean)} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def points(estimate: Estimate | None, factor: float = 100.0, digits: int = 1) -> str:
    """A difference with its sign: `+4.2 (−1.0 to +9.4)`."""
    if estimate is None:
        return ABSENT
    mean = _signed(estimate.mean * factor, digits)
    if estimate.low is None or estimate.high is None:
        return f"{mean} (no interval)"
    ends = (_signed(end * factor, digits) for end in (estimate.low, estimate.high))
    return f"{mean} ({' to '.join(ends)})"


def conclusion(figures: PairFigures) -> str:
    """What the win rate says, inconclusive included."""
    rate = figures.win_rate
    if rate is None:
        return "no figure: no judge gave a readable verdict in both orders"
    if figures.judges and all(judge.unusable for judge in figures.judges):
        return "no conclusion: no judge is usable"
    if rate.low is None or rate.high is None:
        return "inconclusive: one unit has no interval"
    if rate.low > 0.5:
        return f"{figures.model} is preferred"
    if rate.high < 0.5:
        return f"{figures.against} is preferred"
    return "inconclusive: the interval holds 50 %"


def headline(card: EvaluationCard) -> Iterator[str]:
    """The card in a few lines, for a terminal."""
    figures = card.figures
    units = 0 if figures.win_rate is None else figures.win_rate.n
    judges = ", ".join(judge.judge for judge in figures.judges)
    yield (
        f"{figures.model} against {figures.against}: win rate {share(figures.win_rate)}, "
        f"{units} units, judged by {judges}: {conclusion(figures)}"
    )
    yield from (f"warning: {warning}" for warning in figures.warnings)
    if card.internalization is not None:
        found = card.internalization
        yield f"internalization: {points(found.difference)} points: {found.sentence}"


def card_facts(card: EvaluationCard) -> list[tuple[str, str]]:
    """What was compared, by name."""
    facts = card.facts
    asked = "which serves the value more" if facts.criterion == "value" else "which helps more"
    return [
        ("model", card.figures.model),
        ("against", card.figures.against),
        ("judges", ", ".join(card.comparison.judges)),
        ("asked for", asked),
        ("prompts", f"{facts.prompts} ({', '.join(facts.sources)})"),
        ("answers", f"at most {facts.max_tokens} tokens, temperature {facts.temperature:g}"),
        ("seed", str(facts.seed)),
        ("day", facts.day),
    ]


def sections(card: EvaluationCard) -> list[CardSection]:
    """All sections that have something to show."""
    found = [_preference(card), _judges(card.figures)]
    if len(card.transfer) > 1:
        found.append(_transfer(card))
    if card.internalization is not None:
        found.append(_internalization(card.internalization))
    found += _aspects(card)
    found += _external(card)
    return found


def paper_table(card: EvaluationCard, suites: Sequence[SuiteScore] = ()) -> CardTable:
    """The paper's table beside this evaluation. suites: what `evaluate suite` found of the same model."""
    return paper_rows(card.figures.win_rate, len(card.figures.judges), suites)


def paper_rows(rate: Estimate | None, judges: int, suites: Sequence[SuiteScore] = ()) -> CardTable:
    """The same from the win rate alone. judges: how many gave it."""
    units = 0 if rate is None else rate.n
    here = f"{share(rate)}, {units} units, {judges} judge{'s' if judges != 1 else ''}"
    kept = "kept, by the paper; no interval"
    return CardTable(
        "The paper's table and this model",
        ("", "arXiv 2512.05464", "here"),
        (
            ("preference over the base", f"{percent(PAPER_PREFERENCE)}, one judge, no interval", here),
            *((title, kept, _suite_score(name, suites)) for name, title in _KEPT.items()),
        ),
        "The paper compares another model on other prompts by another judge: the figures stand side by side, "
        "and are no comparison.",
        wide=True,
    )


def _suite_score(name: str, suites: Sequence[SuiteScore]) -> str:
    """`41.0 % (36.9 to 45.2), base 40.2 % (…): non-inferior`."""
    found = next((each for each in suites if each.task.startswith(name)), None)
    if found is None:
        return "not asked: `dynalign evaluate suite`"
    if found.against is None:
        return share(found.model)
    return f"{share(found.model)}, the other {share(found.against)}: {found.verdict}"


def markdown(card: EvaluationCard, suites: Sequence[SuiteScore] = ()) -> str:
    """The card as Markdown, for a model card."""
    lines = [f"## Evaluation: {card.figures.model} against {card.figures.against}", ""]
    lines += [f"- {name}: {value}" for name, value in card_facts(card)]
    lines += ["", f"**{_sentence(conclusion(card.figures))}**", ""]
    lines += [f"> {_sentence(warning)}" for warning in card.figures.warnings]
    for table in (
        paper_table(card, suites),
        *(table for section in sections(card) for table in section.tables),
    ):
        lines += ["", f"### {table.title}", "", _row(table.head), _row(["---"] * len(table.head))]
        lines += [_row(row) for row in table.rows]
        lines += ["", table.caption]
    return "\n".join(lines) + "\n"


def rate_rows(card: EvaluationCard) -> list[tuple[str, Estimate | None, str]]:
    """Every win rate with its name and its denominator: the rows of table and chart."""
    figures = card.figures
    rows = [
        (_RULES[rule.rule], rule.estimate, f"{rule.denominator} {rule.of}")
        for rule in figures.rules
        if rule.rule != "half"
    ]
    half = figures.rules[0]
    of_units = f"{half.denominator} {half.of}"
    rows.insert(0, ("win rate (a tie is half a win)", figures.win_rate, of_units))
    rows.insert(1, ("the same, by the cluster bootstrap", figures.bootstrap, of_units))
    if figures.controlled is not None:
        rows.append(("at equal length and markup", figures.controlled.estimate, of_units))
    if len(figures.judges) > 1:
        rows += [
            (f"by {judge.judge} alone", judge.win_rate, f"{(judge.win_rate.n or 0)} units")
            for judge in figures.judges
            if judge.win_rate is not None
        ]
    return rows


def _preference(card: EvaluationCard) -> CardSection:
    figures = card.figures
    rows = tuple((name, share(estimate), of) for name, estimate, of in rate_rows(card))
    table = CardTable(
        "Win rates",
        ("", "share (95 % interval)", "of"),
        rows,
        "A prompt's value is the mean over judges of the mean over both orders. Intervals are over prompts, "
        "or over goals where the prompts have some: Student's t, and 10,000 resamples of whole units."
        f"{_controlled(figures)}",
        wide=True,
    )
    answers = CardTable(
        "Answers",
        ("model", "answers", "empty", "cut off", "refused", "characters"),
        tuple(
            (name, str(each.answers), str(each.empty), str(each.cut_off), str(each.refused),
             figure(each.characters))
            for name, each in zip((figures.model, figures.against), figures.answers, strict=True)
        ),
        "An empty answer loses to one with a text; two equal ones are a tie. A cut-off answer is judged as "
        f"it is. No readable pair of verdicts: {figures.unread_prompts} prompts. With all of them lost the "
        f"win rate would be {percent(figures.worst)}, with all won {percent(figures.best)}.",
        wide=True,
    )  # fmt: skip
    return CardSection("Preference", "", _sentence(conclusion(figures)), (table, answers))


def _controlled(figures: PairFigures) -> str:
    found = figures.controlled
    if found is None:
        return ""
    by = f"{'longer' if found.longer >= 0 else 'shorter'} by {figure(abs(found.longer))} characters"
    longer = f" Answers of {figures.model} are {by} (φ {found.length:.1f})."
    return f"{longer} Length or markup decides by itself: do not rely on it." if found.separated else longer


def _judges(figures: PairFigures) -> CardSection:
    table = CardTable(
        "Judges",
        ("judge", "win rate", "equal", "read", "unread", "refused", "ties", "P(first) − ½", "flips", "state"),
        tuple(_judge_row(judge) for judge in figures.judges),
        "Equal: verdicts on equal or empty answers, without asking. P(first) − ½ is the bias for the answer "
        "that stands first: 0 is none, +50.0 always the first. A flip is a verdict that changes with the "
        "order. Unread and refused verdicts are no wins.",
        wide=True,
    )
    words = []
    if figures.alpha is not None:
        words.append(f"Krippendorff's α {_plain(figures.alpha)} over prompts and orders.")
    if figures.without_one is not None:
        low, high = figures.without_one
        words.append(f"With one judge left out the win rate is {percent(low)} to {percent(high)}.")
    words += [_sentence(warning) for warning in figures.warnings]
    return CardSection("Judges", "", " ".join(words) or "One judge, without a sign of a bias.", (table,))


def _judge_row(judge: JudgeResult) -> tuple[str, ...]:
    counts = judge.counts
    flips = f"{judge.position.flips} of {judge.position.pairs}"
    return (
        judge.judge,
        share(judge.win_rate),
        str(counts.without_asking),
        f"{counts.read} of {counts.wanted - counts.without_asking}",
        str(counts.unread),
        str(counts.refused),
        str(counts.ties),
        points(judge.position.bias),
        flips,
        "unusable" if judge.unusable else "",
    )


def _transfer(card: EvaluationCard) -> CardSection:
    rows = tuple(
        (
            each.source,
            share(each.win_rate),
            ABSENT if each.gap is None else points(each.gap),
            str(each.prompts),
        )
        for each in card.transfer
    )
    caption = (
        "The gap is the win rate on the training source minus that of the row, in points (Welch's interval)."
    )
    table = CardTable("By source", ("source", "win rate", "gap", "prompts"), rows, caption)
    return CardSection("Transfer", "", "Whether the preference carries over to other prompts.", (table,))


def _internalization(found: Internalization) -> CardSection:
    rows = (
        ("base", percent(0.5), share(found.base_prompted), points(found.gain_base)),
        ("aligned", share(found.aligned), share(found.aligned_prompted), points(found.gain_aligned)),
        ("difference of differences", "", "", points(found.difference)),
        ("aligned without − base with the prompt", "", "", points(found.reach)),
    )
    table = CardTable(
        "Two by two",
        ("", "without the system prompt", "with it", "gain, points"),
        rows,
        "Win rates against the base without the prompt, on "
        f"{found.prompts} prompts with a value in all cells.",
        wide=True,
    )
    return CardSection("Internalization", "", _sentence(found.sentence), (table,))


def _aspects(card: EvaluationCard) -> Iterator[CardSection]:
    for found in card.aspects:
        changes = CardTable(
            f"Change by aspect, {found.judge}",
            ("aspect", card.figures.model, card.figures.against, "change", "without a score"),
            tuple(
                (each.aspect, _plain(each.model), _plain(each.against), points(each.change, 1.0, 2),
                 str(each.missing))
                for each in found.results
            ),
            "Points of 5; the change is paired by prompt.",
            wide=True,
        )  # fmt: skip
        pairs = CardTable(
            f"Parts and whole, {found.judge}",
            ("", "within prompts", "between prompts"),
            tuple((f"{p.first} · {p.second}", _plain(p.within), _plain(p.between)) for p in found.pairs),
            "Pearson's correlation of the scores, of deviations from each prompt's mean, and of the means.",
            wide=True,
        )
        yield CardSection(
            f"Aspects, by {found.judge}", "", "What each aspect gained or lost.", (changes, pairs)
        )


def _external(card: EvaluationCard) -> Iterator[CardSection]:
    for judge, results in card.external.items():
        rows = tuple(
            (each.dimension, _plain(each.correlation), str(each.items), str(each.unread)) for each in results
        )
        caption = "Spearman's rank correlation with HumanAgencyBench's scores; intervals are over its tests."
        table = CardTable(
            "HumanAgencyBench", ("dimension", "correlation", "answers", "unread"), rows, caption
        )
        yield CardSection(
            f"External measure, {judge}", "", "Whether the judge sees what others saw.", (table,)
        )


def _plain(estimate: Estimate | None) -> str:
    if estimate is None:
        return ABSENT
    mean = f"{estimate.mean:.2f}".replace("-", MINUS)
    if estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} ({estimate.low:.2f} to {estimate.high:.2f})".replace("-", MINUS)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", MINUS)


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}."


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
