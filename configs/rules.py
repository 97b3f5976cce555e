"""All rules between settings. Every broken one is reported, not only the first."""

from collections.abc import Collection

from dynalign.configs import endpoint_rules, judge_rules, method_rules, operation_rules
from dynalign.configs.errors import Mistake
from dynalign.configs.rule_table import Rule
from dynalign.configs.schema import RunSettings

RULES: tuple[Rule, ...] = (
    *judge_rules.RULES,
    *endpoint_rules.RULES,
    *method_rules.RULES,
    *operation_rules.RULES,
)


def broken_rules(settings: RunSettings, refused: Collection[str] = ()) -> list[Mistake]:
    """The mistakes of all broken rules.

    refused: dotted paths of values that were refused before, for which `settings` holds defaults. A rule
    that reads one of them is skipped, because it would check a value that the user has not written.
    """
    results = (rule.check(settings) for rule in RULES if not set(rule.reads) & set(refused))
    return [mistake for mistake in results if mistake is not None]
