"""Heads that were kept: those of schema 1 still read, and no foreign code runs unasked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.head_files import head_from, head_state
from layerfusion.fusion.operator_head import OperatorHead

FORMER = json.loads((Path(__file__).parent / "head_of_schema_1.json").read_text())


def test_a_head_of_schema_1_reads_and_says_the_same() -> None:
    tensors = {name: torch.tensor(values) for name, values in FORMER["tensors"].items()}
    head = head_from(tensors, FORMER["facts"])
    log_probs = head.log_probs([torch.tensor(source) for source in FORMER["features"]])
    torch.testing.assert_close(log_probs, torch.tensor(FORMER["log_probs"]))
    assert isinstance(head, OperatorHead)
    assert head.classifier.settings["arguments"] == {"side": 2}


def test_an_operator_from_elsewhere_is_imported_only_where_its_module_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "from_elsewhere.py").write_text(
        "from layerfusion.fusion.operators.sums import SumFusion\n"
        "class Mine(SumFusion):\n    pass\n"
    )
    classifier = FusionClassifier([2, 3], 2, operator="from_elsewhere.Mine", width=4).eval()
    scale = Standardiser((torch.zeros(2), torch.zeros(3)), (torch.ones(2), torch.ones(3)))
    tensors, facts = head_state(OperatorHead(classifier, scale))
    sys.modules.pop("from_elsewhere")
    with pytest.raises(UserError, match=r"from_elsewhere\.Mine: it is not part of LayerFusion"):
        head_from(tensors, json.loads(json.dumps(facts)))
    with pytest.raises(UserError, match=r"modules=\['from_elsewhere'\]"):
        head_from(tensors, facts, modules=["from_else"])
    assert "from_elsewhere" not in sys.modules
    head = head_from(tensors, facts, modules=["from_elsewhere"])
    rows = [torch.randn(5, 2), torch.randn(5, 3)]
    torch.testing.assert_close(head.log_probs(rows), classifier(rows).log_softmax(dim=1))
