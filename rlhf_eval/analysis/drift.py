"""What two runs do not have in common: configuration, code, packages, machine, data, templates, judges."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlhf_eval.analysis.manifest import environment_of
from rlhf_eval.config.plain import flat, plain, result_fields
from rlhf_eval.config.schema import RunConfig

STAGES = ("benchmark", "train", "generate", "judge", "score")
MACHINE = ("system", "cpu", "cpus")
ORDER = {
    "threads",
    "deterministic",
    "device",
    "machines",
    "offload_optimizer",
    "tensor_parallel",
    "enforce_eager",
    "device_map",
    "batch_tokens",
    "completions_per_device_batch",
}
"""Names of fields that change nothing but the last digits."""
MADE_FROM = {"sha256": "data", "revisions": "revision", "templates": "template", "engine": "package"}
"""Parts of a manifest, and what a difference in one is called. Seeds stand in the configuration."""


@dataclass(frozen=True)
class Drift:
    """One difference between two runs.

    Attributes:
        kind: "configuration", "seed", "data", "revision", "template", "judge", "environment" (not recorded),
            "code", "package", "machine", "variable".
        name: of the field, file, package …
        first, second: the two values; None where there is none.
        stages: those that were executed with these; empty for what concerns the whole run.
    """

    kind: str
    name: str
    first: Any
    second: Any
    stages: tuple[str, ...] = ()


def configuration_drift(
    first: RunConfig, second: RunConfig, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> list[Drift]:
    """The fields that differ and change results, or in which order numbers are added. Another name for a file
    of the same content is none.

    Args:
        ours, theirs: the two manifests.
    """
    here, there = (flat(result_fields(config)) | _order(config) for config in (first, second))
    return [
        replace(found, kind="seed" if found.name == "seed" else "configuration")
        for found in _differences("configuration", here, there)
        if not _same_content(found, ours.get("sha256", {}), theirs.get("sha256", {}))
    ]


def manifest_drift(
    first: dict[str, Any], second: dict[str, Any], stages: Collection[str] = STAGES
) -> list[Drift]:
    """What two manifests say differently, each stage's environment compared with that of the same stage.

    A run that has no stages yet is compared by the environment that it is about to be executed in.

    Args:
        first, second: nothing is compared where one is empty.
        stages: those whose environments matter.
    """
    if not first or not second:
        return []
    found: list[Drift] = []
    hashes = {part: (first.get(part, {}), second.get(part, {})) for part in MADE_FROM}
    for part, (ours, theirs) in hashes.items():
        kind = MADE_FROM[part]
        # A name that only one of them has is a difference of the configurations.
        found += [
            one
            for one in _differences(kind, ours, theirs)
            if one.first is not None and one.second is not None
        ]
    found += _judge_drift(first.get("judges", {}), second.get("judges", {}))
    by_stage: dict[Drift, list[str]] = {}
    for stage in [name for name in first.get("stages", {}) or STAGES if name in stages]:
        for one in environment_drift(environment_of(first, stage), environment_of(second, stage)):
            by_stage.setdefault(one, []).append(stage)
    return found + [replace(one, stages=tuple(stages)) for one, stages in by_stage.items()]


def environment_drift(first: dict[str, Any], second: dict[str, Any]) -> list[Drift]:
    """What two environments say differently; that one was not recorded is a difference too."""
    if not first or not second:
        told = ["recorded" if environment else "not recorded" for environment in (first, second)]
        return [Drift("environment", "environment", told[0], told[1])]
    code = [{"rlhf_eval": env.get("rlhf_eval"), **env.get("code", {})} for env in (first, second)]
    machine = [{name: env.get(name) for name in MACHINE} | _gpus(env) for env in (first, second)]
    return [
        *(one for one in _differences("code", *code) if one.name != "dirty"),
        *_differences("package", {"python": first.get("python")}, {"python": second.get("python")}),
        *_differences("package", first.get("packages", {}), second.get("packages", {})),
        *_differences("machine", *machine),
        *_differences("variable", first.get("variables", {}), second.get("variables", {})),
    ]


def _order(config: RunConfig) -> dict[str, Any]:
    fields = flat(plain(config))
    return {name: value for name, value in fields.items() if name.rpartition(".")[2] in ORDER}


def _judge_drift(first: dict[str, Any], second: dict[str, Any]) -> Iterator[Drift]:
    """Which models said that they answered, of judges that both runs had and that answered in both."""
    for name in first.keys() & second.keys():
        ours, theirs = sorted(first[name]["answered"]), sorted(second[name]["answered"])
        if ours and theirs and ours != theirs:
            yield Drift("judge", name, ", ".join(ours), ", ".join(theirs))


def _gpus(environment: dict[str, Any]) -> dict[str, Any]:
    found = environment.get("accelerators", {})
    return {name: ", ".join(value) if isinstance(value, list) else value for name, value in found.items()}


def _differences(kind: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Drift]:
    return [
        Drift(kind, name, _text(first.get(name)), _text(second.get(name)))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]


def _text(value: Any) -> Any:
    """Lists and empty dictionaries, which a set of differences cannot hold, in words."""
    return str(value) if isinstance(value, list | dict) else value


def _same_content(drift: Drift, ours: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    return drift.first in ours and ours[drift.first] == theirs.get(drift.second)
