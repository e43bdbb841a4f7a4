from __future__ import annotations

import json
from pathlib import Path

from layerfusion.records.profile import PROFILE, ScoreFacts, read_profile, write_profile
from tests.report.fabricate_profiles import profile


def test_a_profile_from_before_score_facts_reads_as_its_scores_always_did(tmp_path: Path) -> None:
    write_profile(profile(), tmp_path)
    raw = json.loads((tmp_path / PROFILE).read_text())
    del raw["score_facts"], raw["checksum"]
    (tmp_path / PROFILE).write_text(json.dumps(raw))
    facts = read_profile(tmp_path).score_facts
    assert set(facts) == {score for layer in raw["layers"] for score in layer["scores"]}
    assert facts["log_loss"] == ScoreFacts(low_is_good=True, within_model=False)
    assert facts["logme"] == ScoreFacts(low_is_good=False, within_model=False)
