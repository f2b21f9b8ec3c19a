"""The table of options is what everything else says of them."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

import pytest

from mars_optim import MARS, param_groups
from mars_optim.experiment.plan.arms import Arm
from mars_optim.optim.groups.keys import OPTIONS
from mars_optim.optim.hyperparameters import Settings
from mars_optim.optim.values import check_option
from mars_optim.optimizer_options import CLASHES, IN_GROUPS, NS_SETS, TABLE
from tests.support.cases import make_params

ZERO_FOR_NONE = ("lr_1d", "lr_1d_ratio", "clip", "correction", "rule", "weight_decay_1d")


def defaults_of(function: Any) -> dict[str, Any]:
    return {k: p.default for k, p in inspect.signature(function).parameters.items()}


def test_constructor_has_the_tables_options_and_defaults() -> None:
    given = defaults_of(MARS)
    assert given.pop("params") is inspect.Parameter.empty
    assert given == {name: option.default for name, option in TABLE.items()}
    assert list(given) == list(TABLE)


def test_param_groups_differs_from_the_table_in_two_defaults() -> None:
    given = defaults_of(param_groups)
    differing = {n for n in given if n in TABLE and given[n] != TABLE[n].default}
    assert differing == {"rule", "weight_decay_1d"}  # adamw; vectors are not decayed


def test_settings_have_what_groups_keep_with_its_defaults() -> None:
    assert {f.name for f in fields(Settings)} == set(IN_GROUPS) - {"optimize_1d"}
    for field in fields(Settings):
        if field.default is not MISSING:
            assert field.default == IN_GROUPS[field.name].default, field.name


def test_every_group_has_what_groups_keep() -> None:
    for group in MARS(make_params()).param_groups:
        assert set(IN_GROUPS) <= set(group)


def test_group_keys_are_the_constructors_arguments() -> None:
    assert set(TABLE) == OPTIONS


def test_arm_allows_the_tables_words_and_defaults() -> None:
    hints, arm = get_type_hints(Arm), Arm()
    for name in set(hints) & set(TABLE):
        option, value = TABLE[name], getattr(arm, name)
        assert set(get_args(hints[name])) == set(option.choices) or not option.choices
        if name == "ns_coefficients":
            assert NS_SETS[value] == (option.default,)
        elif name not in ZERO_FOR_NONE:
            assert value == option.default, name
        check_option(name, value, option)


def test_every_word_of_a_choice_is_documented() -> None:
    doc = inspect.getdoc(MARS) or ""
    for name, option in TABLE.items():
        assert all(f'"{word}"' in doc for word in option.choices), name
        assert option.text
        assert "\n" not in option.text


@pytest.mark.parametrize("clash", CLASHES, ids=lambda c: f"{c[0]}-{c[2]}")
def test_clash_of_the_table_is_refused_in_its_words(clash: Any) -> None:
    name, values, of, others = clash
    value, other = (values or (1.0,))[-1], others[0]
    options = {"clip": None, "rule": "adamw", name: value, of: other}
    message = CLASHES[clash].format(value=value, other=other)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MARS(make_params(), **options)


def test_the_table_does_not_load_torch() -> None:
    code = "import sys, mars_optim.optimizer_options; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
