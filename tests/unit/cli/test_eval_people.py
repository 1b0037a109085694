"""`pgenrm eval people`: one command for all sets, with a model and without, resumed at any point."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from command_line import pgenrm

from pgenrm_agent.evaluation.people import PEOPLE_BASELINES

PROSE = "P-GenRM-seeded"
"""A name by which the model is asked for chains in prose, as the seeded one writes them."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sets: of many people, whose statements tell what they choose; and of few."""
    draw = random.Random(3)
    data = tmp_path / "data"
    data.mkdir()
    for name, users in (("polarized", 40), ("lamp", 4)):
        rows = []
        for user in range(users):
            liked, disliked = ("good", "bad") if user % 2 else ("bad", "good")
            for prompt in range(8):
                number = draw.randrange(3)
                row = {
                    "user_id": f"{name}-{user}",
                    "query": f"Prompt {prompt}?",
                    "chosen": f"A {liked} answer, {number}.",
                    "rejected": f"A {disliked} answer, longer, {number}.",
                }
                if name == "polarized":
                    wrote = f'Asked "Prompt 0?", this person wrote: "{liked}"'
                    row |= {"stated": ["Age: 30-39.", wrote]}
                rows.append(row)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (data / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return data


def lines_of(out: Path) -> dict[str, int]:
    return {
        str(file.parent.relative_to(out)): len(file.read_bytes().splitlines())
        for file in sorted(out.rglob("records.jsonl"))
    }


def test_baselines_alone_then_a_model_then_the_same_again(
    folder: Path, seeded_model: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    common = ("eval", "people", folder, "--out", out, "--past", 0, "--history", 2, "--json")
    done = pgenrm(*common, "--baselines-only")
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    shown = {(row["data"], row["held_out"]) for row in table["rows"]}
    assert shown == {(d, h) for d in ("polarized", "lamp") for h in ("users", "prompts")}
    polarized = {
        row["judge"]: row
        for row in table["rows"]
        if (row["data"], row["held_out"]) == ("polarized", "users")
    }
    assert tuple(polarized) == PEOPLE_BASELINES
    # The statements say all there is to know, and so do past choices.
    assert polarized["own-words"]["every"]["right"] == 1
    personal = polarized["bradley-terry-personal"]
    assert personal["every"]["right"] > 0.9
    assert set(personal["by_past"]) == {"0", "2"}
    assert personal["unstated"] <= personal["every"]["right"]
    assert "own-words" not in {row["judge"] for row in table["rows"] if row["data"] == "lamp"}
    page = (out / "people.md").read_text(encoding="utf-8")
    assert "### polarized" in page
    baselines = lines_of(out)

    asked = (
        *("--engine", "openai", "--model", PROSE, "--individual", 1, "--limit", 3),
        *("--set", "polarized", "--held-out", "users"),
    )
    done = pgenrm(*common, *asked)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["rows"]) == len(table["rows"]) + 1
    (judged,) = (row for row in json.loads(done.stdout)["rows"] if row["model"])
    assert (judged["judge"], judged["model"]) == ("p-genrm", PROSE)
    assert judged["every"]["comparisons"] == judged["users"] == 3
    assert set(judged["by_past"]) == {"0", "2"}
    assert judged["unstated"] is not None
    assert judged["gains"]["crowd"]["comparisons"] == 3
    with_model = lines_of(out)
    # Three questions, shown two past choices, none, and nothing stated.
    assert with_model == {**baselines, f"polarized/{PROSE}": 9}

    done = pgenrm(*common, *asked)
    assert judged in json.loads(done.stdout)["rows"]
    done = pgenrm(*common, "--baselines-only")
    assert lines_of(out) == with_model
    rows = json.loads(done.stdout)["rows"]
    assert [row["model"] for row in rows if row["model"]] == [PROSE]  # it stays in the table


def test_what_a_model_would_cost_is_told_for_all_sets_together(
    folder: Path, tmp_path: Path
) -> None:
    command = (
        *("eval", "people", folder, "--out", tmp_path / "out", "--dry-run", "--json"),
        *("--engine", "openai", "--model", PROSE, "--limit", 2, "--held-out", "users"),
    )
    estimate = json.loads(pgenrm(*command).stdout)["estimate"]
    # Two questions of each set with 3, 0, 1 and 8 past choices; of polarized with nothing stated, too.
    assert estimate["pieces"] == 2 * 4 + 2 * 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "status", "complaint"),
    [
        (("--set", "prism"), 2, "--set prism: use llmfao, mtbench"),
        (("--set", "llmfao"), 1, "has no set llmfao"),
        (("--held-out", "topics"), 2, "--held-out topics: use users, prompts"),
        (("--judge", "crowd"), 2, "the baselines are always there"),
        (("--judge", "static-persona"), 2, "the judges that ask a model are p-genrm"),
        (("--judge", "nobody"), 1, "judge 'nobody' is unknown"),
        (("--baselines-only", "--dry-run"), 2, "there is nothing to estimate"),
    ],
)
def test_what_cannot_be_asked_is_told(
    folder: Path, tmp_path: Path, options: tuple[str, ...], status: int, complaint: str
) -> None:
    done = pgenrm("eval", "people", folder, "--out", tmp_path / "out", *options)
    assert done.returncode == status
    assert complaint in done.complaint


def test_a_folder_without_any_set_is_told(tmp_path: Path) -> None:
    done = pgenrm("eval", "people", tmp_path, "--out", tmp_path / "out", "--baselines-only")
    assert done.returncode == 1
    assert "has no set at all" in done.complaint
