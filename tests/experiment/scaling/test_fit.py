from __future__ import annotations

import numpy as np
import pytest

from mars_optim.experiment.scaling.fit import Noises, Spread, grid, held_out, laplace
from mars_optim.experiment.scaling.law import FORMS, Form, Knots, Law
from mars_optim.experiment.scaling.table import table
from tests.support.scaling_worlds import rows

DATA = table(rows({"arm": 0.2}), "base").data
SPREAD = Spread(1.0, 1.0, 0.04, 0.03)


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_the_evidence_is_that_of_the_law_made_linear_at_its_best(form: Form) -> None:
    law = Law(form, 2, Knots.of(DATA.at))
    noises = Noises(DATA, np.ones(len(DATA.loss)))
    fit = laplace(DATA, law, noises, 12, SPREAD, None)
    precision, _ = noises(12, 1.0, 1.0)
    mean, sd = law.prior(0.04, 0.03, float(DATA.loss.min()) - 8.0)
    slope = law.jacobian(fit.theta, DATA.at)
    expected = law.losses(fit.theta, DATA.at) + slope @ (mean - fit.theta)
    covariance = np.linalg.inv(precision) + slope * sd**2 @ slope.T
    rest = DATA.loss - expected
    density = -(
        rest @ np.linalg.solve(covariance, rest)
        + np.linalg.slogdet(covariance)[1]
        + len(rest) * np.log(2 * np.pi)
    ) / 2  # fmt: skip
    assert fit.evidence == pytest.approx(density, abs=0.2)


def test_cells_share_common_noise_and_seeds_shrink_own() -> None:
    data = table(rows({"arm": 0.2}, seeds=4, noise=0.01), "base").data
    precision, log_det = Noises(data, np.ones(len(data.loss)))(5, 0.0, 3.0)
    covariance = np.linalg.inv(precision)
    own = covariance[0, 0] - covariance[0, data.place == data.place[0]].min()
    assert data.seed_sd is not None
    assert own == pytest.approx(np.exp(-6.5 + 0.3 * 5) ** 2 + data.seed_sd**2 / 4)
    assert covariance[0, data.place == data.place[0]].min() == pytest.approx(9 * own)
    assert log_det == pytest.approx(np.linalg.slogdet(covariance)[1])


def test_a_form_that_is_right_foretells_what_was_left_out_better() -> None:
    kept = DATA.at.n < DATA.at.n.max() - 0.01
    told = []
    for form in (FORMS[0], FORMS[2]):  # the world is a sum
        law = Law(form, 2, Knots.of(DATA.at))
        told.append(held_out(DATA, kept, grid(DATA, law)))
    assert told[0] > told[1]
