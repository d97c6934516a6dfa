"""Whether a demo shows what it is to show: `keras-remos demo --json > demo.json`, then `check_demo.py demo.json`.

It takes a minute, so that it runs once: in the session `package`, as a user has it.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    result = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["result"]
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["teacher", "fine-tuned", "ReMoS", "from scratch"], rows
    assert {row["num_clean"] for row in rows.values()} == {517}, rows
    assert rows["teacher"]["attack_success"] > 0.9, rows
    assert rows["fine-tuned"]["attack_success"] > 0.5, rows
    assert rows["ReMoS"]["attack_success"] < 0.4 * rows["fine-tuned"]["attack_success"], rows
    assert rows["ReMoS"]["accuracy"] > rows["fine-tuned"]["accuracy"] - 0.06, rows
    assert (result["keep_ratio"], result["seed"]) == (0.9, 0), result
    print(f"The demo shows it: {result['seconds']:.0f} s.")


if __name__ == "__main__":
    main()
