"""What experts recognise from one moment to the next, told once for as long as it lasts."""

from collections.abc import Sequence

import numpy as np

from misc.extract_experts.expert import Words


def runs(seen: Sequence[Sequence[str]], times: np.ndarray, step: float) -> tuple[Words, ...]:
    """Join what is recognised at consecutive moments.

    Args:
        seen: texts of each moment.
        times: (moments,) seconds.
        step: seconds from one moment to the next.

    Returns:
        Each text with the time from its first moment to `step` after its last one in a row, by
        start; those of one moment in the order in which they were given.
    """
    found: list[Words] = []
    running: dict[str, int] = {}
    for texts, time in zip(seen, times, strict=True):
        still = {}
        for text in dict.fromkeys(texts):
            place = running.get(text, len(found))
            start = found[place].start if text in running else round(float(time), 3)
            found[place : place + 1] = [Words(text, start, round(float(time) + step, 3))]
            still[text] = place
        running = still
    return tuple(found)
