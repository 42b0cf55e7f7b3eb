"""Lists that a data set came without, and lists that should have nothing in common."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections import defaultdict

from .convert import Plan

SHARE = 0.2  # of the pictures, for validation where nobody said how many


def hold_out(plan: Plan, share: float | None, seed: int) -> str | None:
    """Draws a list `val` out of `train` where a data set brings nothing to validate on.

    Args:
        share: of the pictures; None: SHARE.

    Returns:
        What was done, in words; None where the data set has lists of its own.
    """
    if plan.lists.get(plan.valid) or not plan.lists.get(plan.train):
        return None
    ids = sorted(plan.lists[plan.train])
    count = min(len(ids) - 1, max(1, round(len(ids) * (SHARE if share is None else share))))
    if count < 1:
        return None
    drawn = set(random.Random(seed).sample(ids, count))
    plan.lists["train"] = [i for i in plan.lists[plan.train] if i not in drawn]
    plan.lists["val"] = [i for i in ids if i in drawn]
    plan.train, plan.valid = "train", "val"
    drawn_from = f"{count} of {len(ids)} pictures, drawn by the seed, are val.txt"
    return f"no list to validate on: {drawn_from} (--split says how many)"


def warn_shared(plan: Plan) -> None:
    """Warns about pictures, by their content, that the network would be trained and validated on."""
    train, valid = (set(plan.lists.get(name, ())) for name in (plan.train, plan.valid))
    both = train & valid
    sizes = defaultdict(list)
    for ident in (train | valid) - both:
        sizes[plan.pictures[ident].source.stat().st_size].append(ident)
    seen = defaultdict(list)
    for group in sizes.values():
        for ident in group if len(group) > 1 else ():
            seen[_digest(plan.pictures[ident].source)].append(ident)
    copies = {i for group in seen.values() if train & set(group) for i in group if i in valid}
    if both or copies:
        names = [plan.pictures[i].source.name for i in sorted(both | copies)]
        warnings.warn(
            f"{len(names)} pictures are in {plan.train}.txt and in {plan.valid}.txt, whose mAP flatters: "
            + ", ".join(names[:10])
            + (f" and {len(names) - 10} more" if len(names) > 10 else ""),
            stacklevel=2,
        )


def _digest(path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def warn_case(names: list[str]) -> None:
    """Warns about class names that differ by letter case or blanks only."""
    same = defaultdict(list)
    for name in names:
        same["".join(name.casefold().split())].append(name)
    pairs = [" and ".join(repr(n) for n in group) for group in same.values() if len(group) > 1]
    if pairs:
        warnings.warn(
            "class names that differ by letter case or blanks only are classes of their own: "
            f"{'; '.join(pairs[:10])}; --names FILE says which to keep",
            stacklevel=2,
        )
