"""Sentences of a noise study follow from its numbers."""

from __future__ import annotations

from typing import Any

import pytest

from mars_optim.experiment.report.noise_study import noise_figure, noise_sentences, noise_table


def estimate(value: float | None, half: float = 0.1) -> dict[str, float | None]:
    if value is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": value * (1 - half), "high": value * (1 + half)}


def study(
    scale: dict[str, float | None], ratios: list[float], half: float = 0.01, **options: Any
) -> dict[str, Any]:
    plain = dict(bias_squared=estimate(0.3), variance=estimate(0.1), error=estimate(0.4))
    points = [
        {
            "step": 10 * (i + 1),
            "noise": [{"kind": "total", "scale": scale}],
            "momentum": [
                {
                    "kind": "total",
                    "signal": estimate(1.0),
                    "estimators": {"m_plain": plain},
                    "ratios": {
                        "m_approx": estimate(ratio, half),
                        "m_exact": estimate(0.9, half),
                        "m_approx_clipped": estimate(ratio, half),
                    },
                    "best_gamma": estimate(0.05),
                }
            ],
        }
        for i, ratio in enumerate(ratios)
    ]
    arms = [{"name": name, "lr": 0.1, "clipped": 0.25, "points": points} for name in ("old", "new")]
    settings = dict(beta1=0.95, gamma=0.025, clip=None, grad_clip=None, confidence=0.95)
    return {"batch_tokens": 100, **settings, **options, "arms": arms}


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (estimate(20.0), "noise scale is 2 k [1.8 k, 2.2 k] tokens, 20 times the batch of 100"),
        (estimate(20.0), "noise-limited: 95 % of a batch's squared gradient is noise"),
        (estimate(20.0), "twice the batch would take 48 % fewer steps and 5 % more tokens"),
        (estimate(0.2), "signal dominates: only 17 %"),
        (estimate(1.05), "noise and signal are about equal: 51 %"),
        (estimate(None), "hides the signal"),
        ({"value": 30.0, "low": 5.0, "high": None}, "3 k [500, -] tokens"),
    ],
)
def test_the_batch_is_judged_by_the_interval_of_the_noise_scale(scale: Any, says: str):
    assert says in noise_sentences(study(scale, [0.9]))[0]


@pytest.mark.parametrize(
    ("ratios", "says"),
    [
        ([0.9, 0.95], "approx lowers it at every stop: -10.0 [-10.9, -9.1] % then -5.0"),
        ([1.1, 1.2], "approx raises it at every stop"),
        ([1.0, 1.0], "approx makes no visible difference to it"),
        ([0.9, 1.0, 1.1], "approx lowers it at 1 of 3 stops and raises it at 1 of 3 stops"),
    ],
)
def test_mars_is_judged_by_the_interval_of_the_ratio_of_errors(ratios: list[float], says: str):
    sentence = noise_sentences(study(estimate(20.0), ratios))[2]
    assert "75 % of the error of AdamW's momentum (beta1 0.95) is lag" in sentence
    assert says in sentence
    assert "clip" not in sentence


def test_clips_are_spoken_of_where_there_are_any():
    text = " ".join(noise_sentences(study(estimate(20.0), [0.9], clip=1.0, grad_clip=2.0)))
    assert "approx with its clip at 1 per tensor lowers it" in text
    assert "gradient at 2 acted in 25 % of old's steps and 25 % of new's steps" in text


def test_exact_is_weighed_against_its_second_pass():
    sentences = noise_sentences(study(estimate(20.0), [0.95, 1.0]))
    (form,) = [s for s in sentences if s.startswith("Approx or exact")]
    assert "lower by 5.0 to 10.0 % of AdamW's, for a second pass per step" in form
    assert "least at gamma 0.05" in form


def test_exact_is_not_called_better_where_intervals_overlap():
    sentences = noise_sentences(study(estimate(20.0), [0.95, 0.9], half=0.5))
    (form,) = [s for s in sentences if s.startswith("Approx or exact")]
    assert "the intervals show no difference" in form


def test_one_stop_has_one_number_for_exact():
    sentences = noise_sentences(study(estimate(20.0), [0.95]))
    (form,) = [s for s in sentences if s.startswith("Approx or exact")]
    assert "lower by 5.0 % of AdamW's" in form


@pytest.mark.slow_but_one
@pytest.mark.parametrize("scale", [estimate(20.0), estimate(None)])
def test_noise_table_and_figure_show_the_study_repeatably(scale: Any):
    found = study(scale, [0.9, 1.1])
    table = noise_table(found)
    assert "On old's path, lr 0.1" in table
    assert max(map(len, table.splitlines())) <= 110
    picture = noise_figure(found)
    assert picture == noise_figure(found)
    assert "batch trained on" in picture
