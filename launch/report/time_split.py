"""What the seconds of a step were spent on, from the rows of metrics.jsonl."""

from dynalign.launch.report.data import Run


def rollout_split(run: Run) -> dict[int, tuple[float, ...]]:
    """step → seconds of (generating, scoring, loading weights, idle), which add up to the step.

    Steps without these measurements are left out.
    """
    found: dict[int, tuple[float, ...]] = {}
    for row in run.rows:
        step_s = row["step_s"]
        generate_s = row["generate_s"]
        score_s = row["score_s"]
        if step_s is None or generate_s is None or score_s is None:
            continue
        pause_s = min(step_s, row["weight_sync_pause_s"] or 0.0)
        idle = row["rollout_idle_fraction"]
        busy_s = (generate_s + score_s) if idle is None else (1 - idle) * step_s - pause_s
        busy_s = max(0.0, min(busy_s, step_s - pause_s))
        share = busy_s / ((generate_s + score_s) or 1.0)
        idle_s = max(0.0, step_s - pause_s - share * (generate_s + score_s))
        found[row["step"]] = (share * generate_s, share * score_s, pause_s, idle_s)
    return found


def learner_split(run: Run) -> dict[int, tuple[float, ...]]:
    """step → seconds of (learning, publishing, waiting for a straggler, other waiting, rest).

    They add up to the step. Steps without these measurements are left out.
    """
    found: dict[int, tuple[float, ...]] = {}
    for row in run.rows:
        if row["step_s"] is None or row["learn_s"] is None:
            continue
        wait_s = row["learner_wait_s"] or 0.0
        sync_s = row["weight_sync_s"] or 0.0
        straggler_s = min(wait_s, row["straggler_wait_s"] or 0.0)
        rest_s = max(0.0, row["step_s"] - row["learn_s"] - sync_s - wait_s)
        found[row["step"]] = (row["learn_s"], sync_s, straggler_s, wait_s - straggler_s, rest_s)
    return found
