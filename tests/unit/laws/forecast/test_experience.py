"""A run's end from the law of earlier runs and its own readings."""

from __future__ import annotations

import numpy as np
import pytest

from keeptune.errors import ConfigError
from keeptune.laws.forecast.experience import forecast_with_law
from keeptune.laws.forms import LLAMA_2_7B_PARAMETERS_PER_RANK, Floats
from keeptune.laws.joint.fit import JointFit
from tests.helpers.laws import OPENORCA, readings

P = 64.0 * LLAMA_2_7B_PARAMETERS_PER_RANK
OTHERS = (8, 16, 32, 128, 256)
END = 260


@pytest.fixture(scope="module")
def law() -> JointFit:
    """Of ranks that do not include the run's."""
    return JointFit(bootstraps=40).fit(readings(seed=3, noise=0.01, apart=0.01, ranks=OTHERS, seeds=2))


def run(seed: int, apart: float, noise: float = 0.01) -> tuple[Floats, Floats, Floats]:
    """Steps and losses of one run that lies `apart` of the law, as a share of each loss."""
    generator = np.random.default_rng(seed)
    steps = np.arange(10.0, END + 1, 10)
    L_ft, L_f = (
        loss * (1 + apart + noise * generator.standard_normal(len(steps))) for loss in OPENORCA.predict(P=P, N=steps)
    )
    return steps, L_ft, L_f


def test_the_law_alone_speaks_before_its_first_step(law: JointFit) -> None:
    said = forecast_with_law(law, P=P, steps=[10, 20], L_ft=[9.0, 9.0], L_f=[9.0, 9.0], end=END)
    band = law.predict(P=P, N=END, interval=0.9)
    for one, of in zip(said, band, strict=True):
        assert one.value == pytest.approx(float(of.value))
        assert one.high - one.low > float(of.high - of.low)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_intervals_hold_the_last_reading(law: JointFit, share: float) -> None:
    held, errors = [], []
    for seed in range(60):
        steps, L_ft, L_f = run(seed, apart=0.01 * np.random.default_rng(1000 + seed).standard_normal())
        some = steps <= share * END
        said = forecast_with_law(law, P=P, steps=steps[some], L_ft=L_ft[some], L_f=L_f[some], end=END)
        for one, truth in zip(said, (L_ft[-1], L_f[-1]), strict=True):
            held.append(one.low <= truth <= one.high)
            errors.append(abs(one.value / truth - 1))
    assert np.mean(errors) < 0.02
    assert 0.8 <= np.mean(held) <= 1.0


def test_own_readings_move_the_forecast_towards_the_run(law: JointFit) -> None:
    steps, L_ft, L_f = run(0, apart=0.03, noise=0.0)
    none, half = (
        forecast_with_law(law, P=P, steps=steps[:last], L_ft=L_ft[:last], L_f=L_f[:last], end=END) for last in (0, 20)
    )
    for side, truth in enumerate((L_ft[-1], L_f[-1])):
        assert abs(half[side].value - truth) < 0.8 * abs(none[side].value - truth)
        assert half[side].high - half[side].low < none[side].high - none[side].low


def test_a_run_of_another_kind_is_refused(law: JointFit) -> None:
    steps, L_ft, L_f = run(0, apart=0.0)
    with pytest.raises(ConfigError, match="does not follow the law"):
        forecast_with_law(law, P=P, steps=steps, L_ft=L_ft, L_f=L_f / 2, end=END)


def test_missing_readings_are_left_out(law: JointFit) -> None:
    steps, L_ft, L_f = run(0, apart=0.0)
    whole = forecast_with_law(law, P=P, steps=steps[5:9], L_ft=L_ft[5:9], L_f=L_f[5:9], end=END)
    gone = np.append(L_f[5:9], np.nan)
    more = forecast_with_law(law, P=P, steps=steps[5:10], L_ft=L_ft[5:10], L_f=gone, end=END)
    assert more[1] == pytest.approx(whole[1])


def test_without_replicates_nothing_is_known_of_the_law() -> None:
    bare = JointFit(bootstraps=0).fit(readings(seed=0, seeds=1))
    with pytest.raises(ConfigError, match="no replicates"):
        forecast_with_law(bare, P=P, steps=[], L_ft=[], L_f=[], end=END)
