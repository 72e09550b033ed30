"""The table of oracles holds every attack, and names tests that exist."""

import re
from pathlib import Path

from edgeprivacy.attacks import attacks

HERE = Path(__file__).parent


def test_every_attack_has_an_oracle_and_every_test_exists():
    lines = [line for line in (HERE / "ORACLES.md").read_text().splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {row[0].strip("`") for row in rows} == set(attacks.names())
    assert len(rows) == len(attacks.names())
    for name, paper, oracle, test in rows:
        file, _, function = test.strip("`").partition("::")
        assert paper and oracle, name
        assert re.search(rf"^def {function}\(", (HERE / file).read_text(), re.MULTILINE), test
