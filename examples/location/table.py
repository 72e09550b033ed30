"""The table of docs/defenses.md from audits: one line a defense, means over all releases taken as the target.

    python examples/location/table.py OUT/audit.json [MISLABELLED/audit.json] [NEAR_DUPLICATE/audit.json]

Audits of runs with --canaries add what LiRA finds of their canaries; several seeds of a recipe are averaged,
and the spread over seeds stands behind the sign.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

LIRA, RMIA, CONFIDENCE = "lira.online.global", "rmia.offline", "confidence"
COLUMNS = ("accuracy", "balanced accuracy", "LiRA AUC", "LiRA", "RMIA", "size, KiB")


def mean_of(metric: dict[str, Any]) -> float:
    """In %, over all targets where several stood."""
    spread = metric.get("across_targets")
    return 100 * float(spread["mean"] if spread else metric["value"])


def found(attacks: list[dict[str, Any]], name: str, what: str) -> float | None:
    """A metric of an attack; "tpr" is that at 1 % false positives."""
    for attack in attacks:
        if attack["name"] == name and attack["metrics"]["auc"]:
            metrics = attack["metrics"]
            if what != "tpr":
                return mean_of(metrics[what])
            return next(mean_of(entry) for entry in metrics["tpr_at_fpr"] if entry["fpr"] == 0.01)
    return None


def line_of(artifact: dict[str, Any]) -> list[float | None]:
    """The columns of one file."""
    attacks = artifact["attacks"]
    return [
        mean_of(artifact["utility"]["test_accuracy"]),
        found(attacks, CONFIDENCE, "balanced_accuracy"),
        found(attacks, LIRA, "auc"),
        found(attacks, LIRA, "tpr"),
        found(attacks, RMIA, "tpr"),
        artifact["size_bytes"] / 1024,
    ]


def told(values: list[float | None]) -> str:
    """One number, or mean and spread over seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if len(known) == 1:
        return f"{known[0]:.1f}"
    return f"{statistics.mean(known):.1f} ± {statistics.stdev(known):.1f}"


def main(paths: list[str]) -> None:
    """Print the table, the least leaking file first."""
    lines: dict[str, list[list[float | None]]] = defaultdict(list)
    canaries: dict[str, dict[str, float | None]] = defaultdict(dict)
    for path in paths:
        audit = json.loads(Path(path).read_text())
        kind = audit["recipe"]["audit"]["canaries"]
        for artifact in audit["artifacts"]:
            if artifact["role"] == "original":
                continue
            if kind is None:
                lines[artifact["defense"]].append(line_of(artifact))
            else:
                rate = found(artifact["canary_attacks"], LIRA, "tpr")
                canaries[kind.partition(":")[2]][artifact["defense"]] = rate
    print("| defense |", " | ".join([*COLUMNS, *canaries]), "|")
    print("|" + "---|" * (1 + len(COLUMNS) + len(canaries)))
    for name in sorted(lines, key=lambda name: statistics.mean(line[3] or 0.0 for line in lines[name])):
        cells = [told([line[k] for line in lines[name]]) for k in range(len(COLUMNS))]
        cells += [told([rates.get(name)]) for rates in canaries.values()]
        print(f"| `{name}` |", " | ".join(cells), "|")


if __name__ == "__main__":
    main(sys.argv[1:])
