#!/usr/bin/env python3
"""Makes model/pairs.json (the cost of each letter pair, from names in domains.txt) and names.jsonl, the input of the job.

The same domains.txt gives the same bytes.
"""

import collections
import json
import math
import os
import random

HERE = os.path.dirname(os.path.abspath(__file__))


def generated(count):
    """Names as malware makes them: letters drawn with a fixed seed."""
    draw = random.Random(7)
    for _ in range(count):
        letters = "".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(draw.randint(10, 18)))
        yield letters + draw.choice([".com", ".net", ".org", ".ru", ".info"])


def main():
    with open(os.path.join(HERE, "domains.txt"), encoding="utf-8") as file:
        names = [line.strip() for line in file if line.strip()]
    counts = collections.Counter()
    for name in names:
        label = name.split(".")[0]
        counts.update(label[i : i + 2] for i in range(len(label) - 1))
    total = sum(counts.values())
    cost = {pair: round(-math.log(count / total), 4) for pair, count in sorted(counts.items())}
    model = {"cost": cost, "unseen": 9.0, "middle": 7.1, "slope": 2.0, "length": 0.15}
    os.makedirs(os.path.join(HERE, "model"), exist_ok=True)
    with open(os.path.join(HERE, "model", "pairs.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(model, separators=(",", ":")) + "\n")
    mixed = [name for pair in zip(names, generated(len(names))) for name in pair]
    with open(os.path.join(HERE, "names.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(name) + "\n" for name in mixed)


if __name__ == "__main__":
    main()
