"""Every mistake in a plan gives one line: where, what, what is allowed, what was meant."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.arms import ARMS
from mars_optim.experiment.plan.plan_file import load_plan, make_plan, plan_toml
from mars_optim.experiment.plan.table import from_dict

MISTAKES: list[tuple[str, tuple[str, ...]]] = [
    # unknown keys, at every level
    ("trainin = 1", ("unknown key 'trainin'", "did you mean 'training'?")),
    ("xyzzy = 1", ("unknown key 'xyzzy'", "allowed: arms, task, training, tuning")),
    ("[task]\nwidht = 8", ("unknown key 'task.widht'", "did you mean 'task.width'?")),
    ("[training]\nstesp = 8", ("unknown key 'training.stesp'", "'training.steps'?")),
    ("[tuning]\ntrails = 8", ("unknown key 'tuning.trails'", "'tuning.trials'?")),
    ("[comparison]\nsedes = [1]", ("unknown key 'comparison.sedes'", "'comparison.seeds'?")),
    ("[decision]\nmin_savin = 1", ("unknown key 'decision.min_savin'", "'decision.min_saving'?")),
    ("[cost]\ncurency = 'x'", ("unknown key 'cost.curency'", "'cost.currency'?")),
    (
        "[arm.nadamw]\nweight_decya = 1",
        ("unknown key 'arm.nadamw.weight_decya'", "did you mean 'arm.nadamw.weight_decay'?"),
    ),
    ("[training]\nxyzzy = 1", ("unknown key 'training.xyzzy'", "allowed: steps, warmup, decay")),
    ("[arm.nadamw]\nxyzzy = 1", ("unknown key 'arm.nadamw.xyzzy'", "allowed: optimizer, rule")),
    # wrong types
    ("training = 3", ("training must be a table, not 3",)),
    ("arm = 3", ("arm must be a table, not 3",)),
    ("[arm]\nadamw = 3", ("arm.adamw must be a table, not 3",)),
    ("arms = 'adamw'", ("arms = 'adamw' must be a list",)),
    ("arms = [1]", ("arms[0] = 1 must be a text",)),
    ("[task]\ncorpus = 3", ("task.corpus = 3 must be a text",)),
    ("[training]\nsteps = 'many'", ("training.steps = 'many' must be a whole number",)),
    ("[training]\nsteps = 400.0", ("training.steps = 400.0 must be a whole number",)),
    ("[training]\nsteps = true", ("training.steps = True must be a whole number",)),
    ("[training]\nsteps = 1979-05-27", ("training.steps = ", "must be a whole number")),
    ("[training]\nwarmup = 'x'", ("training.warmup = 'x' must be a number",)),
    ("[training]\nwarmup = nan", ("training.warmup = nan must be a number",)),
    ("[training]\ngrad_clip = inf", ("training.grad_clip = inf must be a number",)),
    ("[comparison]\nseeds = 3", ("comparison.seeds = 3 must be a list",)),
    ("[comparison]\nseeds = [1, 'b']", ("comparison.seeds[1] = 'b' must be a whole number",)),
    ("[comparison]\nladder = [[1]]", ("comparison.ladder[0] = [1] must be a number",)),
    ("[arm.nadamw]\nbetas = [0.9]", ("arm.nadamw.betas = [0.9] must have 2 entries",)),
    # words
    (
        "[training]\ndecay = 'cosin'",
        ("training.decay = 'cosin' must be", "'linear'", "did you mean 'cosine'?"),
    ),
    ("[training]\nprecision = 'fp8'", ("training.precision = 'fp8' must be", "'no'", "'bf16'")),
    (
        "[arm.nadamw]\nrule = 'moun'",
        ("arm.nadamw.rule = 'moun'", "'adamw'", "did you mean 'muon'?"),
    ),
    ("[arm.nadamw]\noptimizer = 1", ("arm.nadamw.optimizer = 1", "'torch-adamw'", "'mars'")),
    ("[arm.nadamw]\ncorrection = 'exakt'", ("arm.nadamw.correction = 'exakt'", "'approx'")),
    # out of range
    ("[task]\ncontext = 1", ("task.context = 1 must be at least 2",)),
    ("[task]\ncontext = 65537", ("task.context = 65537 must be at most 65536",)),
    ("[task]\nheads = 0", ("task.heads = 0 must be at least 1",)),
    ("[task]\nlayers = -1", ("task.layers = -1 must be at least 1",)),
    ("[task]\nbatch = 0", ("task.batch = 0 must be at least 1",)),
    ("[training]\nsteps = 9", ("training.steps = 9 must be at least 10",)),
    ("[training]\nwarmup = 0.91", ("training.warmup = 0.91 must be at most 0.9",)),
    ("[training]\naccumulation = 0", ("training.accumulation = 0 must be at least 1",)),
    ("[training]\ngrad_clip = -1", ("training.grad_clip = -1.0 must be at least 0",)),
    ("[training]\nevaluations = 0", ("training.evaluations = 0 must be at least 1",)),
    ("[tuning]\ntrials = 0", ("tuning.trials = 0 must be at least 1",)),
    ("[tuning]\ntrials = 99", ("tuning.trials = 99 must be at most",)),
    ("[tuning]\nfactor = 1", ("tuning.factor = 1.0 must be at least 1.25",)),
    ("[tuning]\nseed = -1", ("tuning.seed = -1 must be at least 0",)),
    ("[comparison]\nseeds = [1, -2]", ("comparison.seeds[1] = -2 must be at least 0",)),
    ("[comparison]\nladder = [0, 2]", ("comparison.ladder[0] = 0.0 must be above 0",)),
    ("[comparison]\nladder = [0.5, 1e300]", ("comparison.ladder[1] = 1e+300 must be at most",)),
    ("[comparison]\nladder = [0.5, 2, 2]", ("comparison.ladder = [0.5, 2.0, 2.0]", "different")),
    ("[comparison]\nladder = [0.5, 1, 2]", ("comparison.ladder = [0.5, 1.0, 2.0]", "different")),
    ("[decision]\nmin_saving = 1", ("decision.min_saving = 1.0 must be at most 0.99",)),
    ("[decision]\nconfidence = 0.5", ("decision.confidence = 0.5 must be above 0.5",)),
    ("[decision]\nmetric = 'bits_per_byte'", ("decision.direction must be given", "'up'")),
    ("[decision]\ndirection = 'up'", ("decision.direction = 'up'", "less is better")),
    ("[decision]\ndirection = 'dwon'", ("decision.direction = 'dwon'", "mean 'down'?")),
    (
        "[decision]\nmetric = 'valid_loss'",
        ("decision.metric = 'valid_loss'", "validation loss is 'loss'"),
    ),
    (
        "[decision]\ndirection = 'down'\nmetric = 'bits_per_bite'",
        ("decision.metric = 'bits_per_bite'", "loss, bits_per_byte", "mean 'bits_per_byte'?"),
    ),
    ("[decision]\ntarget = nan", ("decision.target = nan must be a number",)),
    ("[decision]\ntarget = 2.5", ("training.evaluations = 3 must be at least 10",)),
    (
        "[task]\nkind = 'images'\ncorpus = 'x'\n"
        "[decision]\nmetric = 'accuracy'\ndirection = 'up'\ntarget = 75",
        ("decision.target = 75 must be above 0 and at most 1 for accuracy", "75 % is 0.75"),
    ),
    ("[decision]\nconfidence = 95", ("decision.confidence = 95.0 must be at most 0.999",)),
    ("[cost]\nprice_per_hour = -1", ("cost.price_per_hour = -1.0 must be at least 0",)),
    ("[cost]\nplanned_hours = 0", ("cost.planned_hours = 0.0 must be above 0",)),
    ("[arm.adamw]\nlr = 0", ("arm.adamw.lr = 0.0 must be above 0",)),
    ("[arm.adamw]\nbetas = [0.9, 1]", ("arm.adamw.betas[1] = 1.0 must be at most 0.999999",)),
    # what no single key can tell
    ("arms = ['adamw', 'mars-adamm']", ("unknown arm 'mars-adamm'", "did you mean 'mars-adamw'?")),
    ("arms = ['adamw', 'xyzzy']", ("unknown arm 'xyzzy'", "mars-adamw")),
    ("arms = ['adamw', 'mars-adamw', 'adamw']", ("arms = ", "'adamw'", "twice")),
    ("arms = ['adamw', 'a/b']\n[arm.'a/b']", ("arm name 'a/b' must be", "letters, digits")),
    ("arms = []", ("comparison.baseline = 'adamw' is not among arms = []",)),
    ("[arm.lion]\nlr = 1", ("arm.lion is not among arms = ['adamw', 'nadamw', 'mars-adamw']",)),
    ("[comparison]\nbaseline = 'lion'", ("comparison.baseline = 'lion' is not among arms = ['ad",)),
    ("[comparison]\ncandidate = 'nadam'", ("comparison.candidate = 'nadam'", "mean 'nadamw'?")),
    ("[comparison]\ncandidate = 'adamw'", ("comparison.baseline", "comparison.candidate", "same")),
    ("[comparison]\nseeds = [0, 1]", ("tuning.seed = 0 is among comparison.seeds",)),
    ("[comparison]\nseeds = [4]", ("comparison.seeds = [4] must be two or more different",)),
    ("[comparison]\nseeds = []", ("comparison.seeds = [] must be two or more different",)),
    ("[comparison]\nseeds = [4, 4, 5]", ("comparison.seeds = [4, 4, 5] must be two or more",)),
    ("[comparison]\nladder = [0.5]", ("comparison.ladder = [0.5] needs a budget below 1", "above")),
    ("[comparison]\nladder = [1.5]", ("comparison.ladder = [1.5] needs a budget below 1",)),
    ("[comparison]\nladder = [1.0, 2.0]", ("comparison.ladder = [1.0, 2.0] needs a budget below",)),
    ("[comparison]\nladder = []", ("comparison.ladder = [] needs a budget below 1",)),
    (
        "[arm.nadamw]\nclip = 1",
        ("arm.nadamw.clip = 1.0 cannot be combined with correction = 'folded'", "clip = 0"),
    ),
    ("[task]\nwidth = 63", ("task.width = 63 must be a multiple of task.heads = 2",)),
    ("[tuning]\nmax_trials = 3", ("tuning.max_trials = 3 must be at least tuning.trials = 5",)),
    # no TOML at all
    ("training.steps 400", ("is no valid TOML", "line 1")),
    ("[training]\nsteps = 1\nsteps = 2", ("is no valid TOML", "overwrite a value")),
]


def message_of(path: Path, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as error:
        load_plan(path, overrides)
    return str(error.value)


@pytest.mark.parametrize(("toml", "parts"), MISTAKES, ids=[t.splitlines()[-1] for t, _ in MISTAKES])
def test_plan_mistake_gives_one_line_with_file_and_key(
    tmp_path: Path, toml: str, parts: tuple[str, ...]
):
    path = tmp_path / "plan.toml"
    path.write_text(toml, encoding="utf-8")
    message = message_of(path)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in parts:
        assert part in message


AT_THE_BOUNDS = [
    "task.context=2",
    "task.context=65536",
    "task.heads=1",
    "training.steps=10",
    "training.warmup=0",
    "training.warmup=0.9",
    "training.grad_clip=0",
    "tuning.factor=1.5",
    "decision.min_saving=-1",
    "decision.min_saving=0.99",
    "decision.confidence=0.501",
    "decision.confidence=0.999",
    "cost.price_per_hour=0",
    "arm.adamw.betas=[0, 0.999999]",
    "arm.adamw.weight_decay=0",
    "arm.mars-adamw.gamma=0",
]


@pytest.mark.parametrize("text", AT_THE_BOUNDS)
def test_values_at_their_bounds_are_allowed(text: str):
    *tables, key = text.partition("=")[0].split(".")
    value: Any = make_plan({}, (text,))
    for table in tables:
        value = value[table] if isinstance(value, dict) else getattr(value, table)
    given = tomllib.loads(text.replace(".".join([*tables, key]), "key", 1))["key"]
    assert getattr(value, key) == (tuple(given) if isinstance(given, list) else given)


@pytest.mark.parametrize("key", ["clip", "lr_1d"])
def test_nothing_is_written_as_zero(key: str):
    plan = make_plan({}, (f"arm.mars-adamw.{key}=0",))
    assert getattr(plan.arm["mars-adamw"], key) is None
    assert tomllib.loads(plan_toml(plan))["arm"]["mars-adamw"][key] == 0.0


OVERRIDE_MISTAKES = [
    ("training.steps", ("--set 'training.steps' must be KEY=VALUE",)),
    ("=3", ("--set '=3' must be KEY=VALUE",)),
    ("", ("must be KEY=VALUE",)),
    ("training.steps=many", ("training.steps = 'many' must be a whole number",)),
    ("training.steps=", ("training.steps = '' must be a whole number",)),
    ("training.steps=1e3", ("training.steps = 1000.0 must be a whole number",)),
    ("training.stesp=100", ("unknown key 'training.stesp'", "did you mean 'training.steps'?")),
    ("trainin.steps=100", ("unknown key 'trainin'", "did you mean 'training'?")),
    ("training.steps.deep=1", ("training.steps", "must be a whole number")),
    ("training=3", ("training must be a table, not 3",)),
    ("arms=adamw", ("arms = 'adamw' must be a list",)),
    ("comparison.candidate=mars-adam", ("'mars-adam' is not among", "mean 'mars-adamw'?")),
    ("arm.nadamw.gama=1", ("unknown key 'arm.nadamw.gama'", "'arm.nadamw.gamma'?")),
    ("decision.confidence=95", ("decision.confidence = 95.0 must be at most 0.999",)),
    ("task.heads=3", ("task.width = 64 must be a multiple of task.heads = 3",)),
]


@pytest.mark.parametrize(
    ("text", "parts"), OVERRIDE_MISTAKES, ids=[t for t, _ in OVERRIDE_MISTAKES]
)
def test_a_mistake_in_an_override_gives_one_line_with_the_key(text: str, parts: tuple[str, ...]):
    with pytest.raises(UserError) as error:
        make_plan({}, (text,))
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_an_override_into_a_value_of_the_file_is_refused(tmp_path: Path):
    path = tmp_path / "plan.toml"
    path.write_text("[training]\nsteps = 400")
    message = message_of(path, ("training.steps.deep=1",))
    assert "--set 'training.steps.deep=1': 'steps' is a value, not a table" in message


def test_a_missing_file_says_what_writes_one(tmp_path: Path):
    message = message_of(tmp_path / "plan.toml")
    assert message == f"{tmp_path / 'plan.toml'} does not exist; `mars pilot --init` writes one"


def test_a_folder_in_place_of_the_file_is_called_a_folder(tmp_path: Path):
    assert message_of(tmp_path) == f"{tmp_path} is a folder; give the plan's TOML file"


@pytest.mark.parametrize("content", [bytes(range(256)), b"\x80\x81", b"\0\0"])
def test_a_binary_file_is_refused_by_name(tmp_path: Path, content: bytes):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    message = message_of(path)
    assert message.startswith(f"{path} is no valid TOML: ")
    assert "\n" not in message


@pytest.mark.parametrize("arm", ARMS)
def test_folded_arms_refuse_a_clip_and_other_mars_arms_take_one(arm: str):
    baseline = "adamw" if arm != "adamw" else "nadamw"
    data = {
        "arms": [baseline, arm],
        "comparison": {"baseline": baseline, "candidate": arm},
        "arm": {arm: {"clip": 0.5}},
    }
    if ARMS[arm].correction == "folded":
        with pytest.raises(
            UserError,
            match=rf"arm\.{arm}\.clip = 0\.5 cannot be combined with correction = 'folded'",
        ):
            make_plan(data)
    elif ARMS[arm].optimizer != "mars":
        with pytest.raises(UserError, match=rf"arm\.{arm}: optimizer = .* takes no rule"):
            make_plan(data)
    else:
        assert make_plan(data).arm[arm].clip == 0.5


@pytest.mark.parametrize(
    "key", [{"cautious": True}, {"clip_over": "global"}, {"gamma_schedule": "lr"}], ids=str
)
def test_what_only_our_optimizers_know_is_refused_for_others(key: dict[str, Any]):
    with pytest.raises(UserError, match=r"arm\.adamw: optimizer = 'torch-adamw' takes no"):
        make_plan({"arm": {"adamw": {**key}}})


@pytest.mark.parametrize(
    ("arm", "keys", "message"),
    [
        (
            "nadamw-auto",
            {"split": "fused"},
            r"arm\.nadamw-auto\.split = 'fused' belongs to Newton-Schulz",
        ),
        ("mars-lion", {"ns_steps": 8}, r"arm\.mars-lion\.ns_steps = 8 belongs to Newton-Schulz"),
        ("muon", {"split": "qkv"}, r"arm\.muon\.split.*'qkv'.*'fused'"),
        ("muon", {"ns_coefficients": "polar"}, r"arm\.muon\.ns_coefficients.*'polar'"),
        ("muon", {"ns_coefficients": "deepseek_v4"}, r"all of its 10 steps: set ns_steps = 10"),
        (
            "muon",
            {"lr_1d": 0.1, "lr_1d_ratio": 0.5},
            r"lr_1d = 0\.1 and lr_1d_ratio = 0\.5 ex",
        ),
    ],
    ids=str,
)
def test_settings_of_newton_schulz_that_cannot_be_are_named(
    arm: str, keys: dict[str, Any], message: str
):
    with pytest.raises(UserError, match=message):
        make_plan({"arms": ["adamw", "mars-adamw", "nadamw", arm], "arm": {arm: keys}})


@pytest.mark.parametrize("data", [[], "text", 3, None])
def test_data_that_is_no_table_is_refused(data: object):
    with pytest.raises(UserError, match="plan must be a table, not "):
        from_dict(Plan, data)


@pytest.mark.parametrize("corpus", ["", " "])
def test_an_empty_corpus_is_not_the_folder_that_one_stands_in(corpus: str):
    with pytest.raises(UserError, match=r"task\.corpus is empty"):
        make_plan({"task": {"corpus": corpus}})
