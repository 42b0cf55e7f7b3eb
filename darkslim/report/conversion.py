"""What a conversion found and wrote, as numbers and as the text that a person reads."""

from __future__ import annotations

from collections import Counter

from terminaltables import AsciiTable

from ..data.convert import Plan

ROWS = 20  # skipped boxes printed one by one; all of them are in --json


def summary(plan: Plan, written: dict[str, str]) -> dict:
    lists = {}
    for name, ids in plan.lists.items():
        boxes = plan.boxes(name)
        per_class = {n: int((boxes[:, 0] == i).sum()) for i, n in enumerate(plan.names)}
        lists[name] = {
            "images": len(ids),
            "boxes": len(boxes),
            "background": sum(not len(plan.pictures[i].boxes) for i in ids),
            "per_class": per_class,
        }
    return {
        "images": len(plan.pictures),
        "boxes": sum(len(p.boxes) for p in plan.pictures.values()),
        "names": plan.names,
        "lists": lists,
        "skipped": [{"file": f, "what": what, "why": why} for f, what, why in plan.skipped],
        "broken": [{"file": f, "why": why} for f, why in plan.broken],
        "notes": {k: v for k, v in plan.notes.items() if v},
        "written": written,
    }


def text(plan: Plan, result: dict) -> str:
    rows = [["list", "images", "without boxes", "boxes", *plan.names[:12]]]
    for name, counts in result["lists"].items():
        rows.append(
            [
                name,
                counts["images"],
                counts["background"],
                counts["boxes"],
                *list(counts["per_class"].values())[:12],
            ]
        )
    rows.append(["all images", result["images"], "", result["boxes"], *[""] * len(plan.names[:12])])
    lines = [AsciiTable(rows).table]
    for note, number in result["notes"].items():
        lines.append(f"{note}: {number}")
    for title, entries in (
        ("boxes skipped", plan.skipped),
        ("files left out", [(f, "", why) for f, why in plan.broken]),
    ):
        if not entries:
            continue
        whys = Counter(why for *_, why in entries)
        lines.append(f"{title}: {len(entries)} ({', '.join(f'{n} {why}' for why, n in whys.most_common(5))})")
        lines.append(AsciiTable([["file", "what", "why"], *entries[:ROWS]]).table)
        if len(entries) > ROWS:
            lines.append(f"... and {len(entries) - ROWS} more; --json FILE has them all")
    return "\n".join([*lines, "written: " + ", ".join(result["written"].values())])
