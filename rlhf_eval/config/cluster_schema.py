"""Every field of the group `cluster`: what the jobs of a sweep ask SLURM for. None of it changes results.

A field that is null is left to SLURM, or follows from the run: GPUs and nodes of a training from
`accelerate.processes` and `accelerate.machines`, GPUs of generation from `generation.tensor_parallel`.
"""

from dataclasses import field
from typing import Literal

from pydantic.dataclasses import dataclass

from rlhf_eval.config.fields import STRICT, NonNegative, Positive

JobKind = Literal["shared", "train", "generate", "judge", "judge_server"]
"""What a job does: work that several runs share (the lab's world, a reward model's benchmarks, the policy
base's answers), a training, the answers of trained policies, judging and scoring, a judge's server."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Resources:
    """What one task of a job asks for."""

    partition: str | None = None
    """Partition, or several separated by commas."""
    account: str | None = None
    """Account that is charged."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that its nodes must have."""
    nodes: Positive | None = None
    """Nodes."""
    gpus: NonNegative | None = None
    """GPUs on each node."""
    cpus: Positive | None = None
    """CPUs on each node."""
    memory: str | None = None
    """Memory on each node, such as 64G; 0 is all of it."""
    time: str | None = None
    """Time limit as `--time` takes it, such as 1-12:00:00."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, such as --exclude=n7 or --reservation=mine."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ContainerConfig:
    """The image that jobs run in; rlhf_eval and what it needs are installed in it."""

    image: str
    """Image as the runtime names it: a registry's address or a .sqsh file for pyxis, a .sif file for
    Apptainer."""
    runtime: Literal["pyxis", "apptainer"] = "pyxis"
    """`pyxis` (srun --container-image) or `apptainer` (apptainer exec)."""
    mounts: tuple[str, ...] = ()
    """Folders of the nodes inside it, such as /data:/data; the working directory is always there."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ClusterConfig:
    """Group `cluster`: where and with what a sweep's jobs run."""

    name: str
    """Name of the setting."""
    jobs: dict[JobKind, Resources]
    """What each kind of job asks for."""
    sizes: dict[str, dict[JobKind, Resources]] = field(default_factory=dict)
    """What differs for models of a size: that of the policy (`policy.size`) counts for training and answers,
    that of the reward model (`reward_model.size`) for shared work."""
    setup: tuple[str, ...] = ()
    """Lines of shell that every job executes first, such as `module load cuda/13.0`."""
    python: str | None = None
    """Interpreter that runs rlhf_eval on the nodes; null is the one that submits."""
    container: ContainerConfig | None = None
    """Image that jobs run in; null for none."""
    gres: str = "gpu"
    """How the cluster calls its GPUs in --gres, such as gpu or gpu:h100."""
    throttle: Positive | None = None
    """Tasks of one array that run at once; null for no limit."""
    signal_seconds: Positive = 180
    """A job is told so long before its time limit to save and end."""
    max_attempts: Positive = 20
    """A task is started so often at most: after preemption, time limit and node failure it continues. After
    an error of its own it is not started again."""
