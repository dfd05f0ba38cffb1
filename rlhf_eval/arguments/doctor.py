"""Arguments of `rlhf-eval doctor`."""

from pathlib import Path
from typing import Any

from rlhf_eval.arguments.kit import offers_json, takes_overrides


def doctor(command: Any) -> None:
    doctor = command(
        "doctor",
        "Check this machine, alone or against what a configuration needs.",
        "rlhf-eval doctor",
        "rlhf-eval doctor experiment=lab reward_model=lab_clean",
        "rlhf-eval doctor reward_model=skywork_v2_llama_8b policy=tulu3_8b_sft accelerate=zero3",
        "rlhf-eval doctor --lock runs/lab/<run>/requirements.txt",
    )
    takes_overrides(doctor)
    doctor.add_argument(
        "--lock",
        type=Path,
        metavar="FILE",
        help="versions that packages should have, name==version, such as a run's requirements.txt "
        "(the constraints that come with rlhf-eval)",
    )
    offers_json(doctor)
