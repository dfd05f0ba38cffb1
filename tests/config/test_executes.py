"""What a configuration has a machine execute is listed, whoever wrote it."""

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.config.executes import executes, sends


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["reward_model=lab_clean"], {}),
        (
            [
                "reward_model=lab_clean",
                "judge.serve=[python,-m,http.server]",
                "+judge@second_judges.two=lab",
                "second_judges.two.serve=[bash,-c,x]",
                "generation.python=/opt/theirs/python",
            ],
            {
                "judge.serve": "python -m http.server",
                "second_judges.two.serve": "bash -c x",
                "generation.python": "/opt/theirs/python",
            },
        ),
        (
            ["reward_model=rule", "reward_model.name=rule", "reward_model.function=os:system"],
            {"reward_model.function": "os:system"},
        ),
        (
            ["reward_model=internlm2_7b", f"reward_model.revision={'0' * 40}"],
            {"reward_model.remote_code": f"internlm/internlm2-7b-reward@{'0' * 40}"},
        ),
        (
            ["reward_model=skywork_critic_70b"],
            {"reward_model.pickle": "Skywork/Skywork-Critic-Llama-3.1-70B@main"},
        ),
    ],
)
def test_commands_interpreters_functions_and_foreign_code(
    overrides: list[str], expected: dict[str, str]
) -> None:
    assert executes(compose(["experiment=lab", *overrides])) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["reward_model=lab_clean"], {}),
        (
            ["reward_model=random", "judge=openai_gpt41", "judge.api_key_variable=AWS_SECRET_ACCESS_KEY"],
            {"judge.base_url": "the OpenAI API, with the value of AWS_SECRET_ACCESS_KEY"},
        ),
        (
            [
                "reward_model=served",
                "reward_model.endpoint.base_url=http://theirs/",
                "judge.base_url=http://a/v1",
            ],
            {"judge.base_url": "http://a/v1", "reward_model.endpoint.base_url": "http://theirs/"},
        ),
        (
            ["reward_model=random", "generation=openai", "generation.base_url=http://b/v1"],
            {"generation.base_url": "http://b/v1"},
        ),
    ],
)
def test_servers_and_the_keys_that_they_are_sent(overrides: list[str], expected: dict[str, str]) -> None:
    assert sends(compose(["experiment=lab", *overrides])) == expected
