from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.config.operators import find_operator, operator_names
from layerfusion.errors import UserError
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.head import classifier_settings
from layerfusion.fusion.operators import FusionOperator, build_operator, operator_class
from layerfusion.fusion.operators.capacity import head_parameters
from layerfusion.fusion.operators.gated import GatedFusion
from tests.fusion.references import EXPERTS, HEADS, REFERENCES, SIDE, TEMPERATURE, gelu

WIDTHS = (3, 5, 6)
WIDTH = 8
CLASSES = 3
BATCH = 6
NAMES = operator_names()
RESIDUAL = [name for name in NAMES if name != "late"]


OWN = {"side": SIDE, "heads": HEADS, "experts": EXPERTS, "temperature": TEMPERATURE}


def _config(name: str, *, own: dict[str, float] = OWN, **head: Any) -> FusionConfig:
    entry = find_operator(name)
    assert entry is not None
    arguments = {key: value for key, value in own.items() if key in entry.arguments}
    return FusionConfig(name, arguments=arguments, **{"width": WIDTH, **head})


def _head(config: FusionConfig) -> FusionClassifier:
    return FusionClassifier(WIDTHS, CLASSES, **classifier_settings(config, TrainerConfig()))


def _sources(widths: Sequence[int] = WIDTHS, rows: int = BATCH) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rows, width, generator=generator) for width in widths]


def _trained(operator: FusionOperator) -> FusionOperator:
    """Random weights everywhere, as if trained: G starts at zero, which would hide its faults."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return operator.eval()


def _operator(name: str, widths: Sequence[int] = WIDTHS, **more: Any) -> FusionOperator:
    return _trained(build_operator(_config(name, **more), widths, CLASSES))


def _weights(operator: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in operator.state_dict().items()}


# -- one harness for all of them ----------------------------------------------------------------


def test_every_operator_has_an_oracle() -> None:
    assert set(NAMES) == set(REFERENCES)


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_says_its_formula(name: str) -> None:
    assert operator_class(FusionConfig(name)).formula


@pytest.mark.parametrize("widths", [(4, 4), WIDTHS, (7, 2, 3, 9, 5)])
@pytest.mark.parametrize("name", NAMES)
def test_operators_equal_the_reference(name: str, widths: tuple[int, ...]) -> None:
    operator = _operator(name, widths).double()
    sources = [source.double() for source in _sources(widths)]
    fused, gates = operator.fuse(sources)
    assert fused.shape == (BATCH, operator.width)
    w = _weights(operator)
    for row in range(BATCH):
        expected, weights = REFERENCES[name](w, [source[row].numpy() for source in sources])
        np.testing.assert_allclose(fused[row].detach().numpy(), expected, rtol=1e-7, atol=1e-9)
        assert (gates is None) == (weights is None)
        if gates is not None and weights is not None:
            np.testing.assert_allclose(gates[row].detach().numpy(), weights, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_gates_are_shares(name: str) -> None:
    gates = _operator(name).fuse(_sources())[1]
    if gates is not None:
        assert gates.shape == (BATCH, len(WIDTHS))
        torch.testing.assert_close(gates.sum(dim=1), torch.ones(BATCH))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_right(name: str, residual: bool) -> None:
    if residual and name not in RESIDUAL:
        return
    operator = _operator(name, residual=residual).double()
    sources = [source.double().requires_grad_() for source in _sources(rows=2)]
    parameters = tuple(operator.parameters())

    def fused(*arguments: Tensor) -> Tensor:
        return operator(list(arguments[: len(WIDTHS)]))

    assert torch.autograd.gradcheck(fused, (*sources, *parameters))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_sources_matters_where_the_table_says_so(name: str) -> None:
    """Sources change places together with the weights that belong to them."""
    widths = (4, 4, 4)
    order = [2, 0, 1]
    operator, moved = _operator(name, widths, width=16), _operator(name, widths, width=16)
    weights = dict(operator.state_dict())
    for key, value in operator.state_dict().items():
        parts = key.split(".")
        if parts[0] in ("projections", "heads"):
            place = next(n for n, part in enumerate(parts) if part.isdigit())
            source = ".".join([*parts[:place], str(order[int(parts[place])]), *parts[place + 1 :]])
            weights[key] = operator.state_dict()[source]
        elif key in ("projection.weight", "experts.weight", "gate.weight"):
            columns = value.unflatten(1, (3, -1))[:, order].flatten(1)
            gated = name == "gated"  # its gate also has a row for each source
            weights[key] = columns[order] if gated else columns
        elif key == "scores" or (key == "gate.bias" and name == "gated"):
            weights[key] = value[order]
    moved.load_state_dict(weights)
    sources = _sources(widths)
    fused, gates = operator.fuse(sources)
    again, again_gates = moved.fuse([sources[k] for k in order])
    same = torch.allclose(fused, again, rtol=1e-4, atol=1e-5)
    assert same != operator_class(FusionConfig(name)).ordered
    if gates is not None and again_gates is not None:
        torch.testing.assert_close(again_gates, gates[:, order])


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_see_each_other(name: str) -> None:
    operator = _operator(name)
    sources = _sources()
    alone = torch.cat([operator([x[row : row + 1] for x in sources]) for row in range(BATCH)])
    torch.testing.assert_close(operator(sources), alone)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_one_source_is_the_plain_head(name: str, residual: bool) -> None:
    torch.manual_seed(0)
    operator = build_operator(_config(name, residual=residual), [5], CLASSES)
    (x,) = _sources([5])
    fused, gates = operator.fuse([x])
    w = _weights(operator)
    expected = gelu(x.double().numpy() @ w["projection.weight"].T + w["projection.bias"])
    np.testing.assert_allclose(fused.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert gates is None
    assert not operator.classifies


@pytest.mark.parametrize("sources", [2, 5, 39])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_vanishes_or_explodes(name: str, sources: int) -> None:
    torch.manual_seed(0)
    widths = [(384, 576, 768)[k % 3] for k in range(sources)]
    config = _config(name, own={"side": 8}, width=64)
    operator = build_operator(config, widths, CLASSES)
    layer = nn.Identity() if operator.classifies else nn.Linear(operator.width, CLASSES)
    optimiser = torch.optim.AdamW([*operator.parameters(), *layer.parameters()], lr=1e-3)
    x, target = _sources(widths, rows=32), torch.arange(32) % CLASSES
    losses = []
    for _ in range(12):
        fused = operator(x)
        assert 1e-2 < float(fused.detach().std()) < 1e2
        loss = F.cross_entropy(layer(fused), target)
        extra = operator.source_losses(x, target)
        (loss if extra is None else loss + extra).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in operator.parameters())
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


# -- gates --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gated", "scalar_mix", "late"])
def test_gates_start_at_the_importance(name: str) -> None:
    importance = [2.0, 1.0, 5.0]
    config = _config(name, own={})
    _, gates = build_operator(config, WIDTHS, CLASSES, importance).fuse(_sources())
    torch.testing.assert_close(gates, torch.tensor([importance]).expand(BATCH, -1) / 8)
    _, even = build_operator(config, WIDTHS, CLASSES).fuse(_sources())
    torch.testing.assert_close(even, torch.full((BATCH, 3), 1 / 3))


def test_a_higher_temperature_makes_gates_more_even() -> None:
    spread = []
    for temperature in (0.5, 1.0, 4.0):
        operator = GatedFusion(WIDTHS, WIDTH, temperature, importance=[1, 2, 6])
        gates = operator.fuse(_sources())[1].detach()
        spread.append(float((gates.amax(1) - gates.amin(1)).max()))
    assert spread == sorted(spread, reverse=True)


def test_source_dropout_leaves_sources_out_but_never_all() -> None:
    torch.manual_seed(0)
    operator = GatedFusion(WIDTHS, WIDTH, source_dropout=0.5)
    sources = _sources(rows=2000)
    gates = operator.train().fuse(sources)[1].detach()
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(2000))
    # Each is left out half of the time, but for the one of the largest draw: 1/3 · (1/2)^3 less.
    assert float((gates == 0).double().mean()) == pytest.approx(0.5 - 0.125 / 3, abs=0.03)
    assert bool((operator.eval().fuse(sources)[1] > 0).all())


@pytest.mark.parametrize("source_dropout", [0.0, 0.3])
def test_an_entropy_penalty_sharpens_the_gates(source_dropout: float) -> None:
    sources, target = _sources(rows=64), torch.arange(64) % CLASSES

    def entropy(penalty: float) -> float:
        torch.manual_seed(0)
        own = {"source_dropout": source_dropout}
        head = _head(_config("gated", own=own, entropy_penalty=penalty, dropout=0.0))
        optimiser = torch.optim.Adam(head.parameters(), lr=0.01)
        for _ in range(60):
            head.loss((sources, target)).backward()
            optimiser.step()
            optimiser.zero_grad()
        gates = head.eval().operator.fuse(sources)[1]
        assert gates is not None
        return float(torch.special.entr(gates.detach()).sum(dim=1).mean())

    assert entropy(0.5) < 0.7 * entropy(0.0)


# -- late: heads of their own -------------------------------------------------------------------


def test_late_trains_every_head_for_itself() -> None:
    operator = _operator("late")
    sources, target = _sources(), torch.arange(BATCH) % CLASSES
    w = _weights(operator)
    expected = []
    for row in range(BATCH):
        for k, source in enumerate(sources):
            z = gelu(
                w[f"projections.linear.{k}.weight"] @ source[row].double().numpy()
                + w[f"projections.linear.{k}.bias"]
            )
            logits = w[f"heads.{k}.weight"] @ z + w[f"heads.{k}.bias"]
            expected.append(np.log(np.exp(logits).sum()) - logits[int(target[row])])
    loss = operator.source_losses(sources, target)
    assert loss is not None
    assert float(loss.detach()) == pytest.approx(np.mean(expected), rel=1e-5)


def test_late_trains_its_heads_by_the_weights_of_the_classes() -> None:
    """A row whose class weighs 2 counts as two rows, in the loss of the head and of the sources."""
    head = _head(_config("late")).eval()
    sources, target = _sources(rows=3), torch.tensor([0, 1, 2])
    twice = [0, 1, 1, 2]
    head.operator.class_weights = torch.tensor([1.0, 2.0, *[1.0] * (CLASSES - 2)])
    weighted = head.loss((sources, target))
    head.operator.class_weights = None
    repeated = head.loss(([source[twice] for source in sources], target[twice]))
    torch.testing.assert_close(weighted, repeated)


def test_late_ends_in_classes() -> None:
    head = _head(_config("late"))
    logits = head.eval()(_sources())
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(BATCH))
    with pytest.raises(UserError, match=r"fusion\.residual: late ends in classes"):
        build_operator(_config("late", residual=True), WIDTHS, CLASSES)


# -- residual -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_puts_the_projected_sources_first(name: str) -> None:
    operator = _operator(name, residual=True)
    sources = _sources()
    fused, gates = operator.fuse(sources)
    inner = operator.get_submodule("operator")
    assert isinstance(inner, FusionOperator)
    assert operator.width == len(WIDTHS) * WIDTH + inner.width == fused.shape[1]
    plain, plain_gates = inner.fuse(sources)
    torch.testing.assert_close(fused[:, len(WIDTHS) * WIDTH :], plain)
    assert (gates is None) == (plain_gates is None)
    w = _weights(operator)
    for k, source in enumerate(sources):
        expected = gelu(
            source.double().numpy() @ w[f"projections.linear.{k}.weight"].T
            + w[f"projections.linear.{k}.bias"]
        )
        part = fused[:, k * WIDTH : (k + 1) * WIDTH].detach().numpy()
        np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-5)


def test_residual_uses_the_projections_there_are() -> None:
    widths = (384, 576)
    for name in ("gated", "sum", "hadamard", "quaternion", "attention"):
        config = FusionConfig(name)
        more = head_parameters(replace(config, residual=True), widths, 2)
        # Nothing but the classification layer grows, by K · width columns.
        assert more - head_parameters(config, widths, 2) == 2 * 2 * config.width
    concat = FusionConfig("concat")
    more = head_parameters(replace(concat, residual=True), widths, 2)
    assert more - head_parameters(concat, widths, 2) == (960 + 2) * 256 + 2 * 2 * 256


# -- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("importance", [[1.0, 2.0], [1.0, 0.0, 2.0], [1.0, math.nan, 2.0]])
def test_importance_must_be_one_positive_number_a_source(importance: list[float]) -> None:
    with pytest.raises(UserError, match=r"importance: .* 3 sources, found \["):
        build_operator(FusionConfig(), WIDTHS, CLASSES, importance)


def test_an_unknown_operator_names_those_there_are() -> None:
    with pytest.raises(
        UserError, match=r"no 'add'; there are: attention, .*, gated_stack, late_stack, auto"
    ):
        build_operator(FusionConfig("add"), WIDTHS, CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_no_source_is_an_error(name: str) -> None:
    with pytest.raises(UserError, match="no source to fuse"):
        build_operator(FusionConfig(name), [], CLASSES)


@pytest.mark.parametrize(
    ("name", "width", "says"),
    [
        ("matmul", 100, r"fusion.width=100: matmul needs a multiple of 16 .* 96 or 112"),
        ("quaternion", 10, r"fusion.width=10: quaternion needs a multiple of 4 .* 8 or 12"),
        ("attention", 3, r"fusion.width=3: attention needs a multiple of 4 .* such as 4"),
    ],
)
def test_a_width_that_cannot_be_split_names_those_near_it(name: str, width: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_operator(FusionConfig(name, width=width), WIDTHS, CLASSES)


def test_every_pair_of_operators_differs() -> None:
    """A name that built another operator would pass all else."""
    torch.manual_seed(0)
    found = {}
    for name in NAMES:
        operator = _operator(name, (8, 8), width=16)
        found[name] = operator(_sources((8, 8)))
    for one, other in itertools.combinations(found, 2):
        assert found[one].shape != found[other].shape or not torch.allclose(
            found[one], found[other], atol=1e-3
        )


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("gated", {"temprature": 2.0}, "no 'temprature'; there are: .*temperature, source_dropout"),
        ("gated", {"temperature": 0}, r"fusion\.temperature=0\.0: it must be above 0"),
        ("gated", {"source_dropout": 1.0}, r"fusion\.source_dropout=1\.0: it must lie in \[0, 1\)"),
        ("matmul", {"side": 0}, r"fusion\.side=0: it must be at least 1"),
        ("moe", {"experts": 0}, r"fusion\.experts=0: it must be at least 1"),
        ("moe", {"experts": "many"}, r"fusion\.experts=many: a value like 4 is needed"),
        ("attention", {"heads": 0}, r"fusion\.heads=0: it must be at least 1"),
    ],
)
def test_an_argument_that_is_wrong_is_named(
    name: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        build_operator(FusionConfig(name, arguments=arguments), WIDTHS, CLASSES)
