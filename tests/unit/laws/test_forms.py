"""The published laws against the values that the paper's parameters give, and each formula written out."""

from __future__ import annotations

import numpy as np
import pytest

from keeptune.errors import ConfigError
from keeptune.laws.forms import LLAMA_2_7B_PARAMETERS_PER_RANK, InjectionLaw, JointLaw, LineLaw


@pytest.mark.parametrize(
    ("name", "rank", "steps", "L_ft", "L_f"),
    [
        ("openorca", 8, 50, 0.767, 0.711),
        ("openorca", 8, 260, 0.677, 0.873),
        ("openorca", 256, 50, 0.712, 0.810),
        ("openorca", 256, 260, 0.652, 0.918),
        ("news", 8, 50, 2.150, 0.845),
        ("news", 8, 260, 2.027, 0.973),
        ("news", 256, 50, 2.073, 0.933),
        ("news", 256, 260, 1.989, 1.017),
    ],
)
def test_published_laws_say_what_the_paper_shows(name: str, rank: int, steps: int, L_ft: float, L_f: float) -> None:
    said = JointLaw.published(f"llama2-7b-chat/{name}").predict(P=rank * LLAMA_2_7B_PARAMETERS_PER_RANK, N=steps)
    assert said.L_ft == pytest.approx(L_ft, abs=0.01)
    assert said.L_f == pytest.approx(L_f, abs=0.01)


def test_the_joint_law_is_equations_5_and_6_written_out() -> None:
    law = JointLaw(
        log_a_ft=np.log(50.0), log_b_ft=np.log(7.0), alpha_ft=0.4, beta_ft=0.7, log_a_f=np.log(90.0),
        log_b_f=np.log(3.0), alpha_f=0.3, beta_f=0.6, rho=1.7, c_ft=0.8, s_ft=0.5, c_f_ft=1.3, s_f_ft=2.9,
    )  # fmt: skip
    P, N = np.array([[10.0], [1000.0]]), np.array([[1.0, 20.0, 300.0]])
    L_ft = 0.8 * ((50 / P) ** 0.4 + (7 / N) ** 0.7) ** 1.7 + 0.5
    L_f = -1.3 * (0.8 * ((90 / P) ** 0.3 + (3 / N) ** 0.6) ** 1.7 + 0.5) + 2.9
    said = law.predict(P=P, N=N)
    np.testing.assert_allclose(said.L_ft, L_ft, rtol=1e-12)
    np.testing.assert_allclose(said.L_f, L_f, rtol=1e-12)
    assert law.line == LineLaw(c=1.3, s=2.9)
    np.testing.assert_allclose(law.line.predict(L_ft=[1.0, 2.0]), [1.6, 0.3], rtol=1e-12)


def test_the_injection_law_written_out_and_its_effective_size() -> None:
    law = InjectionLaw(L_pt0=2.5, A=30.0, B=829.0, alpha=0.35, beta=0.25)
    said = law.predict(N=[1e8, 1e9], D_ft=2e6, p=[0.0, 0.01])
    np.testing.assert_allclose(
        said, [2.5 + 30 * 2e6**0.25 / 1e8**0.35, 2.5 + 30 * 2e6**0.25 / (9.29 * 1e9) ** 0.35], rtol=1e-12
    )
    # p = 1 % multiplies the effective size 9 to 101 times (2502.06042).
    assert law.effective_size(0.01) == pytest.approx(9.29)
    assert InjectionLaw(L_pt0=0, A=1, B=1e4, alpha=1, beta=1).effective_size(0.01) == pytest.approx(101)


def test_where_no_law_has_a_value() -> None:
    law = JointLaw.published("llama2-7b-chat/news")
    for P, N in ((0, 10), (1e6, 0), (-1, 5), (1e6, np.nan), (np.inf, 5)):
        with pytest.raises(ConfigError, match="not defined"):
            law.predict(P=P, N=N)
    with pytest.raises(ConfigError, match="no published law") as caught:
        JointLaw.published("llama3")
    assert "llama2-7b-chat/openorca" in caught.value.fix
    with pytest.raises(ConfigError, match="fraction"):
        InjectionLaw(L_pt0=0, A=1, B=1, alpha=1, beta=1).effective_size(1.5)
