"""The table of docs/defenses.md from audits: one line a defense, means over all releases taken as the target.

    python examples/location/table.py TFLITE/audit.json EXECUTORCH/audit.json [CANARIES/audit.json ...]

Of several formats the last is shown; several backends stand with a stroke between them. Audits of runs with
--canaries add what LiRA finds of their canaries; several seeds of a recipe are averaged, and the spread over
seeds stands behind the sign.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

LIRA, RMIA, CONFIDENCE = "lira.online.global", "rmia.offline", "confidence"
COLUMNS = ("accuracy", "balanced accuracy", "LiRA AUC", "LiRA", "RMIA", "packed, KiB")


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
        artifact["gzip_bytes"] / 1024,
    ]


Seeds = dict[int, float | None]


def told(by_backend: list[Seeds]) -> str:
    """A number for each backend, with its spread where there are several seeds."""
    cells = []
    for seeds in by_backend:
        known = [value for value in seeds.values() if value is not None]
        spread = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
        cells.append(f"{statistics.mean(known):.1f}{spread}" if known else "-")
    return " / ".join(cells)


def main(paths: list[str]) -> None:
    """Print the table, the least leaking files first."""
    # Defense, column, backend, seeds.
    cells: dict[str, dict[str, dict[str, Seeds]]] = defaultdict(dict)
    columns, backends = dict.fromkeys(COLUMNS), {}
    for path in paths:
        audit = json.loads(Path(path).read_text())
        kind = audit["recipe"]["audit"]["canaries"]
        for artifact in audit["artifacts"]:
            if artifact["role"] == "original" or artifact["format"] != audit["recipe"]["formats"][-1]:
                continue
            line = dict(zip(COLUMNS, line_of(artifact), strict=True))
            if kind is not None:
                of_canaries = {"LiRA AUC": "auc", "LiRA": "tpr"}
                line = {
                    f"{name}, {kind.partition(':')[2]} canaries": found(
                        artifact["canary_attacks"], LIRA, what
                    )
                    for name, what in of_canaries.items()
                }
                columns |= dict.fromkeys(line)
            backends[artifact["backend"]] = None
            for column, value in line.items():
                of = cells[artifact["defense"]].setdefault(column, {})
                of.setdefault(artifact["backend"], {})[audit["recipe"]["seed"]] = value

    def leakage(name: str) -> float:
        values = [value for seeds in cells[name].get("LiRA", {}).values() for value in seeds.values()]
        return statistics.mean(value or 0.0 for value in values) if values else 100.0

    print("| defense |", " | ".join(columns), "|")
    print("|" + "---|" * (1 + len(columns)))
    for name in sorted(cells, key=leakage):
        told_of = [told([cells[name].get(c, {}).get(b, {}) for b in backends]) for c in columns]
        print(f"| `{name}` |", " | ".join(told_of), "|")


if __name__ == "__main__":
    main(sys.argv[1:])
