"""scikit-learn's own checks of an estimator.

They pass tables of numbers, and run none of the checks for estimators that read texts. So they are
pointed at adapters that write each row of numbers as a text, and differ in nothing else. None is
expected to fail; the one on array API inputs skips itself, as it needs SCIPY_ARRAY_API=1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import SkipTestWarning
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data

from layerfusion import LayerFusionClassifier, TextEmbedder
from tests.tiny import WORDS, tiny_folder


def written(X: Any) -> list[str]:
    """Write rows of numbers as texts: the larger a number, the more often its word.

    The numbers themselves follow, so that different rows are different texts.
    """
    texts = []
    for row in np.asarray(X, float):
        words = [
            WORDS[(2 * column + int(value < 0)) % len(WORDS)]
            for column, value in enumerate(row)
            for _ in range(min(12, round(4 * abs(value))))
        ]
        texts.append(" ".join([*words, *(f"{value:.4f}" for value in row)]))
    return texts


def _of_numbers(tags: Any) -> Any:
    tags.input_tags.two_d_array = True
    tags.input_tags.one_d_array = tags.input_tags.string = False
    return tags


class ClassifierOfNumbers(LayerFusionClassifier):
    def __init__(
        self,
        models: str = "./tiny",
        *,
        layers: str = "last",
        fusion: str = "stacked",
        pooling: str = "mean",
        lexical: tuple[str, ...] = (),
        seeds: int = 1,
        budget: None = None,
        validation_size: float = 0.1,
        random_state: int = 0,
        device: str = "cpu",
        cache: str = "cache",
        settings: None = None,
    ) -> None:
        super().__init__(
            models,
            layers=layers,
            fusion=fusion,
            pooling=pooling,
            lexical=lexical,
            seeds=seeds,
            budget=budget,
            validation_size=validation_size,
            random_state=random_state,
            device=device,
            cache=cache,
            settings=settings,
        )

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Any:
        return super().fit(written(validate_data(self, X)), y, sample_weight, groups)

    def predict_proba(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict_proba(written(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        return _of_numbers(super().__sklearn_tags__())


class EmbedderOfNumbers(TextEmbedder):
    def __init__(
        self,
        model: str = "./tiny",
        layer: int = -1,
        pooling: str = "mean",
        *,
        device: str = "cpu",
        cache: str = "cache",
        settings: None = None,
    ) -> None:
        super().__init__(model, layer, pooling, device=device, cache=cache, settings=settings)

    def fit(self, X: Any, y: Any = None) -> Any:
        return super().fit(written(validate_data(self, X)), y)

    def transform(self, X: Any) -> np.ndarray:
        return super().transform(written(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        return _of_numbers(super().__sklearn_tags__())


def _checks(estimator: Any) -> list[Any]:
    found = []
    pairs: Any = estimator_checks_generator(estimator)
    for instance, check in pairs:
        function = getattr(check, "func", check)
        name = getattr(function, "__name__", str(function))
        found.append(pytest.param(instance, check, id=name))
    return found


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checks")
    tiny_folder("bert", folder / "tiny", num_hidden_layers=1)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "check"), [*_checks(ClassifierOfNumbers()), *_checks(EmbedderOfNumbers())]
)
def test_a_check_of_scikit_learn_holds(
    estimator: Any, check: Any, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared)
    check(estimator)


@pytest.mark.parametrize("estimator", [LayerFusionClassifier(), TextEmbedder()])
def test_the_tags_say_that_texts_are_read(estimator: Any) -> None:
    whole = get_tags(estimator)
    if whole.classifier_tags is not None:
        assert whole.classifier_tags.multi_label
    tags = whole.input_tags
    assert (tags.string, tags.one_d_array, tags.two_d_array) == (True, True, False)
    with pytest.warns(SkipTestWarning):  # scikit-learn has no more checks for such estimators
        checks: Any = list(estimator_checks_generator(estimator))
    assert checks
    for instance, check in checks:
        check(instance)
