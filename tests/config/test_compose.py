"""Configurations compose, survive a file, and every mistake is named before anything is loaded."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.config.compose import (
    compose,
    compose_cluster,
    conf_folder,
    freeze,
    groups,
    hash8,
    load,
    run_name,
)
from rlhf_eval.config.inputs import inputs, require_inputs
from rlhf_eval.config.plain import fingerprint, flat
from rlhf_eval.errors import ConfigError
from rlhf_eval.rewards.kinds import check_kinds

LAB = ["experiment=lab", "reward_model=lab_clean"]
CHOICES = [(group, choice) for group, choices in groups().items() for choice in choices if group != "cluster"]


SCALED = ["offset=-3.5", "scale=7"]
READ = "0123456789abcdef0123456789abcdef01234567"
ASKED_OF_THE_USER = {
    "bradley_terry_70b": ["reward_model.model=organisation/name"],
    "rule": ["reward_model.function=rules.py:rule"],
    "internlm2_1800m": [f"reward_model.revision={READ}"],
    "internlm2_7b": [f"reward_model.revision={READ}"],
    "internlm2_20b": [f"reward_model.revision={READ}"],
    "metametrics": [
        *(
            f"reward_model.ensemble.members.{member}.reward_model.revision={READ}"
            for member in ("internlm2_7b", "internlm2_1800m")
        ),
        *(
            f"reward_model.ensemble.members.{member}.{value}"
            for member in ("skywork", "internlm2_7b", "internlm2_1800m", "grm_llama", "grm_gemma")
            for value in SCALED
        ),
    ],
    "ensemble_minimum": [
        f"reward_model.ensemble.members.{member}.{value}"
        for member in ("skywork", "grm_llama")
        for value in SCALED
    ],
}


@pytest.mark.parametrize("choice", ASKED_OF_THE_USER)
def test_what_only_the_user_can_know_is_asked_for(choice: str) -> None:
    with pytest.raises(ConfigError, match=r"reward_model\..* is missing"):
        compose(["experiment=lab", f"reward_model={choice}"])


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes(group: str, choice: str) -> None:
    override = {
        "experiment": f"experiment={choice}",
        "benchmark": f"+benchmark@benchmarks.{choice}={choice}",
    }.get(group, f"{group}={choice}")
    config = compose(["reward_model=random", "policy=lab", override, *ASKED_OF_THE_USER.get(choice, [])])
    check_kinds(config)
    missing = [item.value for item in inputs(config) if item.state == "missing"]
    assert missing == (["private.jsonl"] if choice == "private" else [])  # which only the user has


@pytest.mark.parametrize("choice", groups()["cluster"])
def test_every_cluster_composes(choice: str) -> None:
    cluster = compose_cluster([f"cluster={choice}", "cluster.jobs.train.partition=h100"])
    assert cluster.jobs["train"].partition == "h100"
    assert set(cluster.jobs) >= {"shared", "train", "generate", "judge"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster=slrum", "Did you mean 'slurm'"),
        ("cluster.throtle=3", "Did you mean 'throttle'"),
        ("cluster.jobs.train.gpus=-1", r"cluster\.jobs\.train\.gpus: -1 does not fit"),
        ("cluster.jobs.trian.gpus=1", r"cluster\.jobs\.trian"),
    ],
)
def test_a_mistake_in_the_cluster_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_cluster([override])


def test_a_configuration_edited_after_freezing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    text = freeze(compose(LAB))
    for edited in (text.replace("seed: 0", "seed: 1"), text.replace("threads: 1", "threads: 2"), text + "\n"):
        assert edited != text
        file.write_text(edited)
        with pytest.raises(ConfigError, match="edited after it was frozen"):
            load(file)
    file.write_text(re.sub("# sha256.*\n", "", text.replace("seed: 0", "seed: 1")))  # one's own again
    assert load(file).seed == 1


@pytest.mark.parametrize("file", sorted(conf_folder().rglob("*.yaml")), ids=lambda file: file.stem)
def test_a_comment_stands_above_every_field(file: Path) -> None:
    lines = file.read_text().splitlines()
    fields = [number for number, line in enumerate(lines) if re.match(r"\s*[a-z_0-9]+:", line)]
    assert fields
    for number in fields:
        assert lines[number - 1].lstrip().startswith("# "), f"{file.name}: no comment above {lines[number]}"
        indent = [len(line) - len(line.lstrip()) for line in lines[number - 1 : number + 1]]
        assert indent[0] == indent[1], f"{file.name}: the comment above {lines[number]} is shifted"


def test_the_readme_command_composes() -> None:
    config = compose([*LAB, "seed=3"])
    assert (config.experiment, config.seed, config.policy.name) == ("lab", 3, "lab")
    assert list(config.benchmarks) == ["lab_public", "lab_private"]
    assert config.gold_reward_model is not None
    assert config.lab is not None
    assert re.fullmatch(r"lab_clean--lab--grpo_lab--s3--[0-9a-f]{8}", run_name(config))


def test_a_field_that_yaml_leaves_out_can_be_set() -> None:
    config = compose([*LAB, "judge.max_failed_share=0.5", "lab.policy_steps=7", "generation.top_p=0.9"])
    assert config.judge.max_failed_share == 0.5
    assert config.lab is not None
    assert config.lab.policy_steps == 7


def test_freezing_loses_nothing(tmp_path: Path) -> None:
    config = compose([*LAB, "algorithm.learning_rate=3e-7", "judge.serve=[python, -m, x]"])
    (tmp_path / "config.yaml").write_text(freeze(config))
    assert load(tmp_path / "config.yaml") == config
    assert freeze(config).startswith("# ")


def test_the_fingerprint_holds_what_changes_results_and_nothing_else() -> None:
    config = compose(LAB)
    elsewhere = replace(config, output="/scratch", experiment="other", threads=8)
    elsewhere = replace(elsewhere, judge=replace(config.judge, concurrency=1, base_url="http://host/v1"))
    assert hash8(elsewhere) == hash8(config)
    names = flat(fingerprint(config))
    assert "algorithm.learning_rate" in names
    assert not {"output", "experiment", "threads", "judge.concurrency", "lab.cache"} & names.keys()
    for change in ("seed=1", "algorithm.steps=41", "lab.seed=1", "judge.temperature=0.5"):
        assert hash8(compose([*LAB, change])) != hash8(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=lab", "reward_model=lab_claen"], r"reward_model: .*'lab_claen'[\s\S]*mean 'lab_clean'"),
        (["experiment=lab"], r"reward_model is missing[\s\S]*lab_clean"),
        (["reward_model=random"], r"policy is missing[\s\S]*tulu3"),
        ([*LAB, "algorithm.lerning_rate=1"], r"algorithm\.lerning_rate: [\s\S]*mean 'learning_rate'"),
        ([*LAB, "+algorithm.lerning_rate=1"], r"algorithm\.lerning_rate: [\s\S]*mean 'learning_rate'"),
        ([*LAB, "algoritm=grpo"], r"algoritm: [\s\S]*mean 'algorithm'"),
        ([*LAB, "seed=abc"], r"seed: 'abc'.*integer"),
        ([*LAB, "seed=1,2"], r"seed: 'seed=1,2' gives several"),
        ([*LAB, "seed"], "'seed' is no override"),
        ([*LAB, "algorithm.steps=[1"], "is no override"),
        ([*LAB, "algorithm.steps=0"], r"algorithm\.steps: 0.*greater than 0"),
        ([*LAB, "algorithm.steps=???"], r"algorithm\.steps is missing"),
        ([*LAB, "algorithm.kind=dpo"], r"algorithm\.kind: 'dpo' is none of 'grpo'"),
        ([*LAB, "algorithm=rloo_lab", "algorithm.loss_type=dapo"], r"loss_type: .*kind rloo has no such"),
        ([*LAB, "algorithm=best_of_n_lab", "generation.temperature=0"], r"temperature=0 gives the same"),
        ([*LAB, "algorithm.lora={rnk: 4}"], r"algorithm\.lora\.rnk: [\s\S]*mean 'rank'"),
        ([*LAB, "algorithm=ppo_lab", "algorithm.critic=classifier"], r"critic=classifier does not fit"),
        (
            [*LAB, "algorithm.rollout.engine=vllm_colocate", "algorithm.top_p=0.9"],
            r"algorithm\.top_p=0\.9: vLLM reports[\s\S]*importance_correction=none",
        ),
        (
            [
                *LAB,
                "accelerate=ddp",
                "algorithm.completions_per_device_batch=16",
                "algorithm.rollout.engine=vllm_colocate",
                "algorithm.rollout.tensor_parallel=3",
            ],
            r"tensor_parallel: 3 does not divide the 8 training processes[\s\S]*=1",
        ),
        ([*LAB, "accelerate.processes=2"], r"strategy=single is one process"),
        ([*LAB, "accelerate=ddp", "accelerate.machines=3"], r"8 cannot be shared out evenly over 3"),
        ([*LAB, "accelerate=ddp", "accelerate.processes=3"], r"16 prompts .* over 3 processes"),
        ([*LAB, "algorithm.minibatches=3"], r"minibatches: 3 does not divide the 128 completions"),
        ([*LAB, "algorithm=null"], r"algorithm: .*Known|algorithm: there is no"),
        ([*LAB, "seed.more=1"], r"seed\.more: seed has no fields"),
        ([*LAB, "benchmarks.mine.dota.all=x"], r"benchmarks\.mine\.dota[\s\S]*mean 'data'"),
        ([*LAB, "benchmarks.mine.data.all=x"], r"benchmarks\.mine\.name is missing"),
        ([*LAB, "policy.name=a/b"], r"policy\.name: 'a/b'"),
        ([*LAB, "policy.name=a--b"], r"policy\.name: 'a--b'"),
        ([*LAB, "policy.model=${oc.env:RLHF_EVAL_NO_SUCH_VARIABLE}"], r"policy\.model.*NO_SUCH_VARIABLE"),
        ([*LAB, "algorithm.group_size=6"], r"completions_per_device_batch: 128[\s\S]*=32"),
    ],
)
def test_a_mistake_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        compose(overrides)
    assert re.search(message, str(refusal.value)), str(refusal.value)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nkind: classifier\ndtyp: float32\n", r"reward_model\.dtyp: [\s\S]*mean 'dtype'"),
        ("name: x\n", r"reward_model\.kind is missing"),
        ("name: x\nkind: [\n", "not YAML"),
        ("name: x\nkind: random\nmax_length: many\n", r"reward_model\.max_length: 'many'"),
        ("name: x\nkind: random\ninner: {name: y, kind: random, modl: z}\n", r"reward_model\.inner\.modl: "),
    ],
)
def test_a_mistake_in_yaml_is_named(tmp_path: Path, text: str, message: str) -> None:
    for file in conf_folder().rglob("*.yaml"):
        copy = tmp_path / file.relative_to(conf_folder())
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(file.read_text())
    (tmp_path / "reward_model" / "x.yaml").write_text(text)
    with pytest.raises(ConfigError) as refusal:
        compose(["experiment=lab", "reward_model=x"], tmp_path)
    assert re.search(message, str(refusal.value)), str(refusal.value)


@pytest.mark.parametrize("where", ["reward_model.kind", "gold_reward_model.kind", "reward_model.inner.kind"])
def test_an_unknown_kind_is_named_with_its_field(where: str) -> None:
    config = compose(["experiment=lab", "reward_model=lab_flipped", f"{where}=clasifier"])
    with pytest.raises(ConfigError, match=re.escape(where)) as refusal:
        check_kinds(config)
    assert "Did you mean 'classifier'" in str(refusal.value)


def test_an_engine_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_eval.config.inputs.find_spec", lambda name: None)
    (engine,) = (
        item for item in inputs(compose([*LAB, "generation=vllm"])) if item.field == "generation.engine"
    )
    assert (engine.value, engine.state) == ("vllm", "not installed here")
    named = inputs(compose([*LAB, "generation=vllm", "generation.python=/opt/vllm/bin/python"]))
    assert "generation.engine" not in {item.field for item in named}


def test_missing_files_are_named_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").touch()
    there = compose([*LAB, f"prompts.train={tmp_path}/there.jsonl", f"policy.model={tmp_path}"])
    require_inputs(there)
    missing = compose([*LAB, "prompts.train=/no/such.jsonl", "policy.model=./no_such_policy"])
    with pytest.raises(ConfigError, match=r"prompts\.train: '/no/such\.jsonl'; policy\.model"):
        require_inputs(missing)
    with pytest.raises(ConfigError, match=r"prompts\.train: 'lab:.*lab"):
        require_inputs(replace(there, prompts=compose(LAB).prompts, lab=None))


@pytest.mark.parametrize("content", [None, "reward_model: [", "- a list\n", "seed: 1\n", "\x00"])
def test_a_damaged_frozen_configuration_is_a_config_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError):
        load(path)
