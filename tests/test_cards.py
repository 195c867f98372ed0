"""Model cards: front matter that Hugging Face reads, and numbers of the records and of the files."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from huggingface_hub import ModelCard

from amc_utils.results import named_run
from amc_utils.runtime.paths import REPOSITORY, Workspace
from amc_utils.studies import cards

FOLDERS = sorted(
    path.parent for path in REPOSITORY.glob("amc_utils/inference/shipped/*/model.safetensors")
)


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request):
    return request.param


def test_front_matter_is_read_and_has_the_accuracies_of_the_record(folder):
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.model_name) == ("bsd-3-clause", folder.name)
    assert card.data.library_name == "amc-utils"
    assert card.data.tags
    record = json.loads((folder / "model.json").read_text(encoding="utf8"))
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found == {
        "modulation and SNR label both right": round(record["test"]["joint_accuracy"]["value"], 4),
        "modulation right": round(record["test"]["modulation_accuracy"]["value"], 4),
        "SNR label right": round(record["test"]["snr_accuracy"]["value"], 4),
    }


def test_card_tells_of_the_file_beside_it_and_of_its_run(folder):
    text = (folder / "README.md").read_text(encoding="utf8")
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() in text
    run = named_run(Workspace(REPOSITORY), folder.name)
    seen = run.facts["data"]["counts"]["train"] * run.facts["epochs"]
    assert f"{seen:,} frames in {run.facts['epochs']} epochs" in " ".join(text.split())
    assert f"| `rolloff_range` | {run.channel.rolloff_range[0]:g}, " in text


def test_measured_numbers_are_generated_and_links_lead_somewhere(folder):
    """What is typed between the generated parts has no share and no decimal."""
    text = (folder / "README.md").read_text(encoding="utf8").split("---\n", 2)[2]
    typed = re.sub(r"<!-- ([\w-]+): begin -->.*?<!-- \1: end -->", "", text, flags=re.S)
    assert not re.search(r"\d\.\d", typed.replace("2018.01A", ""))
    for target in re.findall(r"\]\((?!http|#)([^)#]*)", text):
        assert (folder / target).is_file(), target


def test_card_without_front_matter_is_refused(folder):
    record = json.loads((folder / "model.json").read_text(encoding="utf8"))
    with pytest.raises(ValueError, match="must begin with front matter between two lines of ---"):
        cards.with_results("# A card\n", record)
    once = cards.with_results("---\nlicense: mit\n---\n# A card\n", record)
    assert cards.with_results(once, record) == once
    assert once.endswith("---\n# A card\n")
