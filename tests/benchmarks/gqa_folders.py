"""A small GQA for tests: its questions as the official file has them, and windows of photographs."""

import json
from pathlib import Path

from llava_folders import windows

from leakgauge.benchmarks.tasks.public_questions.gqa import QUESTIONS, Gqa
from leakgauge.harness.values.images import SPLITS
from leakgauge.harness.values.questions import Question

COUNT = 30
ASKED = (
    ("Is the sky dark?", "yes", "verify"),
    ("What colour is the cat?", "Blue", "query"),
    ("Is the dog left of the cat?", "no", "verify"),
    ("Is the sky blue or dark?", "dark", "choose"),
)


def content() -> dict:
    """Questions as GQA writes them: one to four an image, their identifiers out of order."""
    found = {}
    for image in range(COUNT):
        for k in range(image % 4 + 1):
            text, answer, kind = ASKED[k]
            types = {"structural": kind, "semantic": "attr", "detailed": "x"}
            row = {"question": text, "answer": answer, "imageId": f"n{image}", "types": types, "fullAnswer": "It is."}
            found[f"{(9 - k) * 10 + image}{image:02}"] = row
    return found


def save_gqa(root: Path) -> Path:
    (root / "images").mkdir()
    for i, data in enumerate(windows(COUNT)):
        (root / "images" / f"n{i}.jpg").write_bytes(data)
    (root / QUESTIONS).write_text(json.dumps(content()))
    return root


def every_question(task: Gqa) -> list[Question]:
    return [one for name in SPLITS for image_id in task.split(name).ids for one in task.asked(image_id)]
