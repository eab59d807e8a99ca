"""Forecasts of runs whose end is known: exact laws, noisy ones by the hundred, schedules, and what is refused."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from keeptune.errors import ConfigError
from keeptune.laws.forecast.forecast import Prediction, forecast, forecast_with_law
from keeptune.laws.forms import LLAMA_2_7B_PARAMETERS_PER_RANK, Floats, JointLaw
from keeptune.laws.joint.fit import JointFit
from tests.helpers.laws import OPENORCA, readings

EARLY = [1, 2, 4, 6, 8]


def read_at(end: int, share: float) -> Floats:
    every = max(end // 20, 1)
    steps = sorted({*EARLY, -(-end // 10), *range(every, end, every)})
    return np.array([step for step in steps if step <= share * end], dtype=float)


def power(steps: Floats, level: float, start: float, beta: float) -> Floats:
    """A change that begins at 0 and saturates at `level`, the shifted power of eqs. 5 and 6 along one run."""
    return level * (1 - (1 + steps / start) ** -beta)


@pytest.mark.parametrize("start", [2.0, 7.0, 30.0])
@pytest.mark.parametrize("beta", [0.3, 0.6, 1.0])
@pytest.mark.parametrize(("base", "level"), [(0.0, 0.4), (2.7, -0.8)])
def test_a_noiseless_power_is_found(start: float, beta: float, base: float, level: float) -> None:
    truth = base + power(np.array(200.0), level, start, beta)
    for share, tolerance in ((0.25, 0.06), (0.5, 0.03)):
        steps = read_at(200, share)
        found = forecast("l_ft" if base else "kl", steps, base + power(steps, level, start, beta), end=200, base=base)
        assert abs(found.value - truth) <= tolerance * abs(truth - base)
        assert found.low <= truth <= found.high


@pytest.mark.parametrize("name", ["llama2-7b-chat/openorca", "llama2-7b-chat/news"])
@pytest.mark.parametrize("rank", [8, 256])
def test_the_published_laws_are_found_without_the_bases_loss(name: str, rank: int) -> None:
    law, P = JointLaw.published(name), rank * 2_498_560.0
    steps = np.array([5.0, 10.0, 20.0, 26.0, 50.0, 75.0])
    seen, truth = law.predict(P=P, N=steps), law.predict(P=P, N=260.0)
    task = forecast("l_ft", steps, seen.L_ft, end=260)
    assert task.value == pytest.approx(float(truth.L_ft), rel=0.04)
    assert task.low <= truth.L_ft <= task.high


def drawn(seed: int) -> tuple[int, Floats]:
    """A plausible curve: a power that saturates, a logarithm or a power that goes on, and 1 or 2 % of noise."""
    generator = np.random.default_rng(seed)
    end = int(generator.choice([100, 300, 1000]))
    steps, start = np.arange(end + 1.0), math.exp(generator.uniform(math.log(0.5), math.log(60)))
    curves = (
        lambda: power(steps, 1.0, start, generator.uniform(0.2, 1.0)),
        lambda: np.log1p(steps / start),
        lambda: (1 + steps / start) ** generator.uniform(0.1, 0.5) - 1,
        lambda: 1 - (1 + (steps / start) ** generator.uniform(1, 1.8)) ** -generator.uniform(0.15, 0.7),
    )
    curve = curves[generator.integers(4)]()
    scale = math.exp(generator.uniform(math.log(0.02), 0.0)) / curve[-1]
    return end, scale * curve * (1 + generator.choice([0.01, 0.02]) * generator.standard_normal(end + 1))


@pytest.mark.parametrize(("share", "most"), [(0.1, 0.25), (0.25, 0.12), (0.5, 0.06)])
def test_intervals_hold_what_they_say_on_many_runs(share: float, most: float) -> None:
    errors, held = [], 0
    for seed in range(80):
        end, curve = drawn(seed)
        steps = read_at(end, share)
        found = forecast("l_f_rise", steps, curve[steps.astype(int)], end=end)
        errors.append(abs(found.value / curve[-1] - 1))
        held += found.low <= curve[-1] <= found.high
    assert np.mean(errors) <= most
    # These curves have less noise than the runs that the prior was made for: intervals may hold a little too often.
    assert 0.80 <= held / 80 < 1.0


def test_it_narrows_as_the_run_goes_on() -> None:
    widths: list[float] = []
    for share in (0.1, 0.2, 0.4, 0.6, 0.8, 0.95):
        steps = read_at(400, share)
        found = forecast("l_f_rise", steps, power(steps, 0.5, 12.0, 0.5), end=400)
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.2 * widths[0]


def test_it_widens_with_the_run_and_with_the_share_asked_for() -> None:
    steps = np.array([2.0, 4, 8, 16, 32, 64])
    values = power(steps, 0.5, 12.0, 0.5)

    def width(end: int, interval: float = 0.9) -> float:
        found = forecast("l_f_rise", steps, values, end=end, interval=interval)
        return found.high - found.low

    assert width(100) < width(200) < width(640)
    assert width(200, 0.5) < width(200) < width(200, 0.99)


def cosine(end: int, warmup: int = 10) -> Floats:
    steps = np.arange(end)
    falling = 0.5 * (1 + np.cos(np.pi * (steps - warmup) / (end - warmup)))
    return np.where(steps < warmup, steps / warmup, falling)


def test_steps_count_by_their_learning_rate() -> None:
    rates = np.repeat([0.5, 1.0], 100)
    values = power(np.array([10.0, 20, 30, 40]), 0.4, 30.0, 0.5)
    found = forecast("kl", [20, 40, 60, 80], values, end=200, rates=rates)
    assert found == forecast("kl", [10, 20, 30, 40], values, end=150)
    assert forecast("kl", [20, 40, 60, 80], values, end=200, rates=3e-4 * rates) == pytest.approx(found)


@pytest.mark.parametrize("gain", [0.0, 0.1, 0.2])
def test_a_rate_that_falls_may_take_something_off(gain: float) -> None:
    rates = cosine(200)
    area = np.cumsum(1 - rates) * (np.arange(200) >= 10)
    curve = 0.4 * np.log1p(np.cumsum(rates) / 5) * (1 - gain * area / area[-1])
    for last in (20, 50, 100, 150):
        steps = np.array([step for step in (4, 8, 16, 20, 30, 40, 50, 60, 80, 100, 120, 150) if step <= last])
        found = forecast("l_f_rise", steps, curve[steps - 1], end=200, rates=rates)
        assert found.low <= curve[-1] <= found.high


def test_readings_in_any_unit_and_missing_ones() -> None:
    steps, values = np.array([0.0, 1, 2, 4, 8, 16]), power(np.array([0.0, 1, 2, 4, 8, 16]), 0.3, 6.0, 0.5)
    found = forecast("l_f_rise", steps, values, end=100)
    assert forecast("l_f_rise", steps, 1000 * values, end=100) == pytest.approx(tuple(1000 * x for x in found))
    missing = np.insert(values, 3, math.nan)
    assert forecast("l_f_rise", np.insert(steps, 3, 3.0), missing, end=100) == found


def test_a_kl_does_not_fall_below_zero() -> None:
    steps = np.array([1, 2, 4, 8, 10])
    values = np.array([0.001, 0.05, 0.002, 0.04, 0.003])
    free, bounded = forecast("l_f_rise", steps, values, end=100), forecast("kl", steps, values, end=100)
    assert free.low < 0 < bounded.low < bounded.value < bounded.high


def test_it_is_quick_and_the_same_every_time() -> None:
    steps = np.arange(10.0, 1000.0, 10.0)
    values = power(steps, 0.4, 9.0, 0.5) * (1 + 0.02 * np.random.default_rng(0).standard_normal(len(steps)))
    found: set[Prediction] = set()
    seconds = []
    for _ in range(7):
        start = time.thread_time()
        found.add(forecast("l_f_rise", steps, values, end=2000, rates=cosine(2000)))
        seconds.append(time.thread_time() - start)
    # The best of them: a machine that others use takes cache and clock away from some.
    assert min(seconds) < 0.1
    assert len(found) == 1


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], "needs 3 readings after step 0, and the run has 0"),
        ([0, 4, 10], "the run has 2"),
        ([1, 2, 4, 8], "needs a tenth of the run, and step 8 of 100"),
        ([10, 50, 100], "the run is over"),
    ],
)
def test_too_little_is_said_to_be_too_little(steps: list[int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        forecast("l_f_rise", steps, [0.01 * step for step in steps], end=100)


def test_what_no_forecast_can_be_made_from_is_refused() -> None:
    with pytest.raises(ConfigError, match="no reading differs"):
        forecast("l_f_rise", [5, 10, 20], [0.0, 0.0, 0.0], end=100)
    with pytest.raises(ConfigError, match="no reading differs"):
        forecast("l_f_rise", [5, 10, 20], [0.1, 0.2, 0.1], end=100, rates=[0.0] * 50 + [1.0] * 50)
    with pytest.raises(ConfigError, match="99 rates for 100 steps"):
        forecast("l_f_rise", [5, 10, 20], [0.1, 0.2, 0.3], end=100, rates=[1.0] * 99)
    with pytest.raises(ConfigError, match="coverage of the interval"):
        forecast("l_f_rise", [5, 10, 20], [0.1, 0.2, 0.3], end=100, interval=1.0)


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
