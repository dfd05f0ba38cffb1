"""What a run asks over the network: the hub, judges, servers. Keys and tokens are used, never shown."""

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlhf_eval.addresses import on_this_machine
from rlhf_eval.config.executes import executes
from rlhf_eval.config.inputs import MISSING, UNSET, inputs, nested
from rlhf_eval.config.inputs import judges as every_judge
from rlhf_eval.config.schema import JudgeConfig, RunConfig
from rlhf_eval.doctor.checks import Finding, failure, passed, probe, skipped, warning
from rlhf_eval.errors import RlhfEvalError
from rlhf_eval.judging.client import OPENAI
from rlhf_eval.keys import key_in
from rlhf_eval.runs.revisions import hub_names

SECONDS = 4.0
VLLM = "import json; from vllm import LLM; import vllm; print(json.dumps(vllm.__version__))"
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def proxies() -> Iterator[Finding]:
    """Proxies of the environment, without user and password."""
    found = {name: os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES}
    told = " ".join(f"{name}={_address(value)}" for name, value in found.items() if value)
    yield passed("proxies", told or "none")


def files_and_keys(config: RunConfig) -> Iterator[Finding]:
    """Local files, and the environment variables with keys, that the configuration names."""
    found = inputs(config)
    missing = [item for item in found if item.state == MISSING]
    for item in missing:
        yield failure(item.field, f"'{item.value}' does not exist", f"Correct {item.field}.")
    if not missing:
        yield passed("files", "all local ones that the configuration names are there")
    for item in found:
        if item.field.endswith("api_key_variable") and item.state == UNSET:
            cure = f"export {item.value}=..."
            yield failure(item.field, f"the environment variable {item.value} is not set", cure)
        elif item.field.endswith("api_key_variable"):
            yield passed(item.field, f"{item.value} is set")


def judges(config: RunConfig) -> Iterator[Finding]:
    """Whether each judge answers and takes the key."""
    for field, judge in every_judge(config).items():
        yield _judge(field, judge)


def servers(config: RunConfig) -> Iterator[Finding]:
    """Whether the servers of reward models, answers and rollouts can be reached."""
    addresses = {}
    for root in ("reward_model", "gold_reward_model"):
        for field, reward_model in nested(root, getattr(config, root)):
            if reward_model.endpoint and reward_model.endpoint.base_url:
                addresses[f"{field}.endpoint.base_url"] = reward_model.endpoint.base_url
    if config.generation.base_url:
        addresses["generation.base_url"] = config.generation.base_url
    rollout = getattr(config.algorithm, "rollout", None)
    if rollout and rollout.server_url:
        addresses["algorithm.rollout.server_url"] = rollout.server_url
    for field, address in addresses.items():
        status = _status(address, None)
        if isinstance(status, int):
            yield passed(field, f"{_address(address)} answers")
        else:
            yield failure(field, f"{_address(address)}: {status}", f"Start that server, or correct {field}.")


def vllm(config: RunConfig) -> Iterator[Finding]:
    """vLLM where the configuration uses it."""
    generation, rollout = config.generation, getattr(config.algorithm, "rollout", None)
    used = {}
    if generation.engine == "vllm" or (generation.engine == "openai" and generation.base_url is None):
        used[generation.python or sys.executable] = "generation.python"
    if rollout and rollout.engine == "vllm_colocate":
        used[sys.executable] = "algorithm.rollout.engine"
    for python, field in used.items():
        try:
            yield passed("vLLM", f"{probe(VLLM, python=python)} by {python}")
        except (RlhfEvalError, OSError) as error:
            said = error.what if isinstance(error, RlhfEvalError) else str(error)
            cure = "pip install vllm==0.31.0 there, or name in generation.python an interpreter that has it."
            yield failure("vLLM", f"{field}: {python}: {said}", cure)


def foreign_code(config: RunConfig) -> Iterator[Finding]:
    """Reward models whose repositories run code of their own here."""
    for field, repository in executes(config).items():
        if field.endswith((".remote_code", ".pickle")):
            seen = f"{repository} may run code of its own here"
            yield warning(field, seen, "Read that code at that commit before you run it.")


def hub(config: RunConfig | None) -> Iterator[Finding]:
    """The hub's token, and access to what the configuration loads from it."""
    from huggingface_hub import constants, get_token

    names = sorted(set(hub_names(config))) if config is not None else []
    if config is not None and not names:
        yield skipped("hub", "the configuration loads nothing from it")
        return
    if get_token():
        yield passed("token", "set" if any(map(os.environ.get, TOKENS)) else "stored by `hf auth login`")
    else:
        yield warning("token", "none: gated models cannot be had", "hf auth login, or export HF_TOKEN=...")
    if constants.HF_HUB_OFFLINE:
        yield warning(
            "hub", "HF_HUB_OFFLINE is set: only what is in the cache can be had", "unset HF_HUB_OFFLINE"
        )
        yield from (_offline(name) for name in names)
        return
    status = _status(constants.ENDPOINT, None)
    if not isinstance(status, int):
        cure = "Check network and proxy. Without them: hf download <name> elsewhere, with the same HF_HOME."
        absent = [name.partition("/")[2] for name in names if not _in_cache(name)]
        lacking = f"; not in the cache: {', '.join(absent)}" if absent else ""
        yield warning("hub", f"{_address(constants.ENDPOINT)}: {status}{lacking}", cure)
        return
    yield passed("hub", f"{_address(constants.ENDPOINT)} answers")
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(_access, names)


def _access(name: str) -> Finding:
    """Whether this token may load a name of `hub_names`."""
    import httpx
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    kind, _, rest = name.partition("/")
    repository = rest.partition("@")[0]
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'datasets' else ''}{repository}"
    address = f"{constants.ENDPOINT}/api/{kind}/{repository}/auth-check"
    try:
        # HfApi.auth_check asks the same, and waits for ever.
        hf_raise_for_status(httpx.get(address, headers=build_hf_headers(), timeout=SECONDS))
    except GatedRepoError:
        cure = f"Ask for access at {page}, and set HF_TOKEN to a token of that account."
        return failure(repository, "gated, and this token has no access", cure)
    except RepositoryNotFoundError:
        return failure(repository, "not found, or private", f"Check the name and HF_TOKEN ({page}).")
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            return failure(repository, "the hub refuses the token", "hf auth login, or set another HF_TOKEN.")
        return warning(repository, f"HTTP {error.response.status_code}", "Try again later.")
    except httpx.TransportError as error:
        return warning(repository, type(error).__name__, "Check network and proxy.")
    return passed(repository, "accessible")


def _offline(name: str) -> Finding:
    repository = name.partition("/")[2].partition("@")[0]
    if _in_cache(name):
        return passed(repository, "in the cache")
    kind = " --repo-type dataset" if name.startswith("datasets/") else ""
    return failure(repository, "not in the cache", f"HF_HUB_OFFLINE=0 hf download {repository}{kind}")


def _in_cache(name: str) -> bool:
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    kind, _, rest = name.partition("/")
    folder = repo_folder_name(repo_id=rest.partition("@")[0], repo_type=kind.removesuffix("s"))
    return any(Path(HF_HUB_CACHE, folder).glob("snapshots/*/*"))


def _judge(field: str, judge: JudgeConfig) -> Finding:
    if judge.base_url is None and judge.serve:
        program = sys.executable if judge.serve[0] == "python" else judge.serve[0]
        if shutil.which(program) is None:
            return failure(field, f"the command {program} is not found", f"Correct {field}.serve.")
        return passed(field, f"the run starts {judge.serve[0]} itself")
    key = key_in(judge.api_key_variable) if judge.api_key_variable else ""
    if judge.base_url is None and not key:
        return skipped(field, "the OpenAI API is not asked without a key")
    address = judge.base_url or OPENAI
    status = _status(f"{address.rstrip('/')}/models", key or None)
    seen = f"{_address(address)} ({judge.model})"
    if not isinstance(status, int):
        return failure(
            field,
            f"{seen}: {status}",
            f"Start the judge, or correct {field}.base_url; check network and proxy.",
        )
    if status in (401, 403):
        return failure(
            field, f"{seen} refuses the key (HTTP {status})", f"Check the key in {judge.api_key_variable}."
        )
    if status >= 500:
        return warning(field, f"{seen}: HTTP {status}", "Try again later.")
    return passed(field, f"{seen} answers")


def _status(address: str, key: str | None) -> int | str:
    """The HTTP status of an address, or why there is none."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(timeout=SECONDS, trust_env=not on_this_machine(address)) as client:
            return client.get(address, headers=headers).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"cannot be reached ({str(error) or type(error).__name__})"


def _address(address: str) -> str:
    """Without user, password and what stands after a question mark."""
    head, mark, rest = address.partition("?")[0].rpartition("://")
    return f"{head}{mark}{rest.rpartition('@')[2]}"
