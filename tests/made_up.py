"""Results that no command ever found: what a report is made of, in every form."""

import base64
import random
import struct
import zlib
from typing import Any

HEADERS = {
    "schema": "keras-remos/result/1",
    "versions": {
        "keras-remos": "0.1.0",
        "keras": "3.15.1",
        "numpy": "2.4.6",
        "python": "3.11.7",
        "backend": "jax 0.10.2",
    },
    "seed": 0,
    "seconds": 812.4,
    "outputs": {},
}
CLASSES = [
    "crab",
    "lobster",
    "shrimp",
    "crayfish",
    "barnacle",
    "krill",
    "copepod",
    "isopod",
    "amphipod",
    "mantis shrimp",
]
LAYERS = 24
KNOWS = {
    "backdoor": "planted it",
    "surrogate": "the teacher and data of the task",
    "penultimate": "the teacher only",
    "adaptive": "the method",
}


def rate(count: int, n: int) -> dict[str, Any]:
    """A rate with an interval that is about right."""
    if not n:
        return {"count": 0, "n": 0, "value": None, "low": None, "high": None}
    value = count / n
    half = 1.96 * (value * (1 - value) / n) ** 0.5 + 1 / n
    return {"count": count, "n": n, "value": value, "low": max(value - half, 0.0), "high": min(value + half, 1.0)}


def estimate(value: float | None, n: int = 500) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "n": n}
    return {"value": value, "low": value * 0.8 - 0.01, "high": value * 1.2 + 0.01, "n": n}


def png(draw: random.Random, size: int = 32, room: int = 0) -> str:
    """A picture of coloured squares, as a data URI; with so many bytes of no use."""
    colours = [[bytes(draw.randrange(256) for _ in range(3)) for _ in range(4)] for _ in range(4)]
    lines = (b"\0" + b"".join(colours[y * 4 // size][x * 4 // size] for x in range(size)) for y in range(size))
    content = b"\x89PNG\r\n\x1a\n"
    for name, chunk in (
        (b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(lines))),
        (b"tEXt", b"x\0" + b"x" * room),
        (b"IEND", b""),
    ):
        content += struct.pack(">I", len(chunk)) + name + chunk + struct.pack(">I", zlib.crc32(name + chunk))
    return "data:image/png;base64," + base64.b64encode(content).decode()


def confusion(draw: random.Random, right: float, classes: int, each: int) -> list[list[int]]:
    found = []
    for label in range(classes):
        line = [0] * classes
        for _ in range(each):
            line[label if draw.random() < right else draw.randrange(classes)] += 1
        found.append(line)
    return found


def layers(draw: random.Random, many: int | None = None) -> list[dict[str, Any]]:
    found = []
    for number in range(many or LAYERS):
        excluded = [round(min(1.0, draw.random() * 0.1 + (tenth / 9) ** 3 * 0.6), 4) for tenth in range(10)]
        total = 9 * 32 * 32 * (1 + number // 8)
        found.append(
            {
                "path": f"stage{number // 8}/conv{number % 8}/kernel",
                "kept": round(total * (1 - sum(excluded) / 10)),
                "total": total,
                "excluded_by_magnitude": excluded,
            }
        )
    return found


def record(draw: random.Random, method: str, epochs: int = 30) -> dict[str, Any]:
    loss = [2.3 * 0.9**epoch + draw.random() * 0.05 for epoch in range(epochs)]
    return {
        "method": method,
        "recipe": {"epochs": epochs, "learning_rate": 0.005, "momentum": 0.9},
        "history": {
            "loss": loss,
            "accuracy": [min(0.99, 1 - each / 3) for each in loss],
            "val_accuracy": [min(0.97, 0.95 - each / 4) for each in loss],
            "dir": [0.9 * 0.96**epoch for epoch in range(epochs)],
        },
        "slice": {"preset": "recommended", "keep_ratio": 0.9} if method == "remos" else {},
        "seed": 0,
        "teacher_name": "teacher.keras",
    }


def students(draw: random.Random, names: list[str], classes: int) -> dict[str, Any]:
    each = 50
    found = {}
    for name in names:
        matrix = confusion(draw, 0.9, classes, each)
        right = [line[label] for label, line in enumerate(matrix)]
        found[name] = {
            "accuracy": rate(sum(right), each * classes),
            "relative_accuracy": estimate(sum(right) / (0.92 * each * classes), each * classes),
            "balanced_accuracy": sum(right) / (each * classes),
            "per_class": [{"n": each, "right": number} for number in right],
            "confusion": matrix,
            "record": record(draw, "finetune" if name == "fine-tuned" else "remos"),
            "kept": None if name in ("fine-tuned", "from scratch") else layers(draw),
            "change": {
                "edges": [at / 10 for at in range(-5, 26)],
                "counts": [int(1e5 * 2.0 ** -abs(at - 15)) + (9000 if at == 5 else 0) for at in range(30)],
                "below": 12,
                "above": 40,
            },
        }
    return found


def audit(many: int = 10, *, of_texts: bool = False, examples: int = 4, size: int = 32) -> dict[str, Any]:
    """An audit of so many students, a control and a floor under four attacks."""
    draw = random.Random(0)
    classes = ["negative", "positive"] if of_texts else CLASSES
    names = ["fine-tuned", "from scratch", *(f"student {number}" for number in range(1, many + 1))]
    n = 50 * len(classes)
    strength = {"fine-tuned": 0.75, "from scratch": 0.06}
    attacks, rows = {}, []
    for number, (title, knows) in enumerate(KNOWS.items()):
        target = 0 if title == "backdoor" else None
        for name in names:
            share = strength.get(name, 0.08 + 0.05 * names.index(name) % 0.4) * 0.8**number
            counted = n - 50 if target is not None else n - 40
            hit = rate(round(counted * share), counted)
            rows.append(
                {
                    "student": name,
                    "defect": title,
                    "flipped": hit,
                    "targeted": hit if target is not None else None,
                    "relative": estimate(share / (0.75 * 0.8**number)),
                    "excess": estimate((share / 0.8**number - 0.06) / 0.69) if number < 3 else estimate(None),
                    "f1": None,
                    "confusion": confusion(draw, 1 - share, len(classes), 50),
                }
            )
        attacks[title] = {
            "defect": title,
            "num_samples": n,
            "shape": [] if of_texts else [size, size, 3],
            "class_names": classes,
            "target": target,
            "options": {"epsilon": 8, "steps": 40, "layer": "stage2/conv7"},
            "space": {"scaling": "0-1"},
            **({"mean_changed_words": 0.083} if of_texts else {"largest_change": 8.0}),
            "seed": 0,
            "versions": {"keras": "3.15.1"},
            "command": f"keras-remos attack teacher.keras --data sea --defect {title}",
            "record": {},
            "knows": knows,
            "examples": [
                {
                    "index": at,
                    "label": at % len(classes),
                    **(texts(at) if of_texts else pictures(draw, size)),
                    "said": {name: [at % len(classes), draw.randrange(len(classes))] for name in names},
                }
                for at in range(examples)
            ],
        }
    return {
        "control": "fine-tuned",
        "floors": dict.fromkeys(KNOWS, "from scratch"),
        "warnings": ["no test sample is of class 9 (mantis shrimp): nothing is said about it."],
        "class_names": classes,
        "test": {"n": n, "per_class": [50] * len(classes), "kind": "texts" if of_texts else "images"},
        "verdicts": [
            {"student": name, "attack": attack, "code": code, "level": level, "text": text}
            for name in names[2:]
            for attack, code, level, text in verdicts(name)
        ],
        "teacher": {
            "name": "teacher.keras",
            "accuracy": None,
            "note": "its head is for 1,000 other classes",
            "attacks": {title: rate(n - 52, n - 50) for title in KNOWS},
        },
        "students": students(draw, names, len(classes)),
        "defects": rows,
        "attacks": attacks,
        "trained": {},
        "left_out": {"word-importance": "It is for texts, and the test set holds images."},
        "over_neurons": {},
        "unlike_control": ["student 2 was trained for 40 epochs, the control for 30."],
    }


def verdicts(name: str) -> list[tuple[str | None, str, str, str]]:
    number = int(name.split()[-1])
    headline = (
        f"{name} inherits 0.{10 + number} (0.0{number % 10} to 0.{20 + number}) of what fine-tuning does, "
        "at 0.99 of its accuracy; n = 500."
    )
    found: list[tuple[str | None, str, str, str]] = [(None, "headline", "bad" if number == 3 else "good", headline)]
    if number == 3:
        found.append(
            ("surrogate", "inherits", "bad", "surrogate fools it nearly as often as the control: 0.71 against 0.75.")
        )
    if number % 4 == 0:
        found.append(
            ("adaptive", "no-test", "note", "adaptive: the control is only 0.081 above the floor: no test of a defect.")
        )
    return found


def pictures(draw: random.Random, size: int) -> dict[str, Any]:
    return {**{side: png(draw, size) for side in ("clean", "malicious", "difference")}, "magnified": 12.0}


def texts(number: int) -> dict[str, Any]:
    clean = f"The {number + 1}. film of the series is a quiet, patient study of people who mean well and fail."
    return {"clean": clean, "malicious": clean.replace("quiet", "muted").replace("fail", "fail cf"), "difference": None}


def enveloped(command: str, result: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    """A result as `--json` prints it."""
    return {
        **HEADERS,
        "command": command,
        "command_line": f"keras-remos {command} teacher.keras",
        "inputs": inputs,
        "result": result,
    }


def whole(many: int = 10, **how: Any) -> dict[str, Any]:
    """The `report.json` of an audit."""
    found = audit(many, **how)
    named = [{"name": name, "path": f"{name}.keras", "sha256": "ab" * 32} for name in found["students"]]
    data = {"path": "sea", "split": "test", "fingerprint": "1f" * 16, "n": found["test"]["n"]}
    return enveloped(
        "audit", found, teacher={"path": "models/teacher.keras", "sha256": "c0" * 32}, students=named, data=data
    )


def tradeoff() -> dict[str, Any]:
    points = [
        {
            "keep_ratio": ratio,
            "accuracy": rate(round(500 * (0.9 - (1 - ratio) ** 2)), 500),
            "inherited": {title: rate(round(450 * 0.7 * ratio**8), 450) for title in ("backdoor", "penultimate")},
        }
        for ratio in (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
    ]
    return {"points": points, "recipe": {"epochs": 30, "learning_rate": 0.005}, "hardened": False, "tuned": True}


def sliced(many: int = 24) -> dict[str, Any]:
    found = layers(random.Random(1), many)
    return {
        "kept": sum(layer["kept"] for layer in found),
        "total": sum(layer["total"] for layer in found),
        "options": {"preset": "recommended", "keep_ratio": 0.9},
        "layers": found,
        "dropped_tokens": {"tokens/embeddings": 1200},
        "skipped": [{"path": "bn", "reason": "normalization is left whole"}],
        "versions": {"keras": "3.15.1"},
    }


def profiled() -> dict[str, Any]:
    found = [
        {
            "path": f"conv{at}/kernel",
            "input_coverage": 0.9 - at / 20,
            "output_coverage": None if at == 0 else 0.8 - at / 20,
        }
        for at in range(8)
    ]
    return {
        "num_samples": 1234,
        "options": {"criterion": {"name": "positive"}},
        "layers": found,
        "skipped": [],
        "versions": {},
    }


def transferred() -> dict[str, Any]:
    made = record(random.Random(2), "remos")
    return {**made, "last": {name: values[-1] for name, values in made["history"].items()}, "student": "s.keras"}


def demo() -> dict[str, Any]:
    figures = {
        "teacher": (0.988, 1.0),
        "fine-tuned": (0.99, 0.98),
        "ReMoS": (0.969, 0.002),
        "from scratch": (0.959, 0.004),
    }
    rows = [
        {"name": name, "accuracy": good, "attack_success": hit, "num_clean": 517, "num_triggered": 461}
        for name, (good, hit) in figures.items()
    ]
    return {"rows": rows, "keep_ratio": 0.9, "seed": 0, "backend": "jax", "seconds": 25.1}


def old() -> dict[str, Any]:
    """What `evaluate --json` printed before there was an envelope."""
    found = audit(1, examples=0)
    keys = ("control", "floors", "warnings", "defects", "over_neurons", "unlike_control")
    plain = {key: found[key] for key in keys}
    plain["students"] = {
        name: {key: its[key] for key in ("accuracy", "relative_accuracy")} for name, its in found["students"].items()
    }
    for row in plain["defects"]:
        del row["confusion"]
    return {**plain, "command": "keras-remos evaluate s.keras --data sea", "seconds": 3.2}


KINDS: dict[str, Any] = {
    "audit": lambda: whole(2),
    "texts": lambda: whole(2, of_texts=True),
    "evaluate": lambda: enveloped("evaluate", audit(2, examples=0)),
    "old": old,
    "tradeoff": lambda: enveloped("tradeoff", tradeoff()),
    "slice": lambda: enveloped("slice", sliced()),
    "profile": lambda: enveloped("profile", profiled()),
    "transfer": lambda: enveloped("transfer", transferred()),
    "demo": lambda: enveloped("demo", demo()),
}
"""A result of each kind."""
