"""Writing a job's script from the templates in `launch/`."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from rlhf_eval.config.cluster_schema import ClusterConfig, Resources
from rlhf_eval.errors import ConfigError
from rlhf_eval.files import write_text
from rlhf_eval.sweep import judge_server
from rlhf_eval.sweep.graph import Job

CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def launch_folder() -> Path:
    """The templates: top-level `launch/` in a checkout, `rlhf_eval/launch/` in an installed wheel."""
    package = Path(__file__).parents[1]
    beside = package.parent / "launch"
    return beside if (beside / "tasks.sbatch.j2").exists() else package / "launch"


def render(job: Job, cluster: ClusterConfig, folder: Path) -> Path:
    """Write `<job>.sbatch` and what it reads: `<job>.runs`, its tasks' run directories, one a line, or
    `<job>.json`, the judge that it serves.

    Args:
        folder: of the sweep, below the experiment's.

    Returns:
        The script.

    Raises:
        ConfigError: a path has a line feed or another control character.
    """
    for path in (Path.cwd(), folder, *(point.path for point in job.points)):
        # A line of SBATCH's, a comment and a line of the runs' file all end there.
        if CONTROL.search(str(path)):
            raise ConfigError(
                f"{str(path)!r} has a control character and cannot stand in a job's script.",
                "Give the folder another name.",
            )
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(launch_folder()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    script, runs_file, judge_file = (folder / f"{job.name}.{suffix}" for suffix in ("sbatch", "runs", "json"))
    if job.judge:
        judge_server.write(judge_file, job.judge)
    else:
        write_text(runs_file, "".join(f"{point.path}\n" for point in job.points))
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    container = _container_options(cluster)
    text = environment.get_template("judge_server.sbatch.j2" if job.judge else "tasks.sbatch.j2").render(
        job=job,
        cluster=cluster,
        script=script,
        runs_file=runs_file,
        judge_file=judge_file,
        more="".join(_more(job, folder)),
        experiment=folder.parents[1],
        workdir=Path.cwd(),
        log=Path.cwd() / folder / "logs" / (f"{job.name}-%a.log" if job.points else f"{job.name}.log"),
        options=list(_options(job.resources, cluster.gres)),
        python=shlex.quote(cluster.python or sys.executable),
        launcher=_launcher(cluster),
        container=f" {container}" if container else "",
        srun_options=container,
    )
    write_text(script, text)
    return script


def _more(job: Job, folder: Path) -> Iterator[str]:
    """What only some jobs' runs are told."""
    if job.rollout_server:
        yield ' "algorithm.rollout.server_url=http://$server:$port"'
    for field, server in job.asks:
        address = judge_server.address_file(folder / f"{server}.json")
        yield f" \\\n        --address {shlex.quote(f'{field}={address}')}"


def _options(resources: Resources, gres: str) -> Iterator[str]:
    """What a task asks for, as options of sbatch."""
    yield f"--nodes={resources.nodes or 1}"
    yield "--ntasks-per-node=1"
    if resources.gpus:
        yield f"--gres={gres}:{resources.gpus}"
    named = {
        "cpus-per-task": resources.cpus,
        "mem": resources.memory,
        "time": resources.time,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
    }
    yield from (f"--{name}={shlex.quote(str(value))}" for name, value in named.items() if value is not None)
    yield from resources.options


def _launcher(cluster: ClusterConfig) -> str:
    """What stands before the run's command to have it executed in the cluster's image."""
    if cluster.container is None:
        return ""
    if cluster.container.runtime == "pyxis":
        return f"srun --nodes=1 --ntasks=1 --mpi=none {_container_options(cluster)} \\\n    "
    mounts = "".join(f" --bind={shlex.quote(mount)}" for mount in cluster.container.mounts)
    image = shlex.quote(cluster.container.image)
    return f'apptainer exec --nv --bind="$PWD" --pwd="$PWD"{mounts} {image} \\\n    '


def _container_options(cluster: ClusterConfig) -> str:
    """Options of srun for the image; empty unless pyxis starts it."""
    container = cluster.container
    if container is None or container.runtime != "pyxis":
        return ""
    workdir = str(Path.cwd())
    mounts = ",".join((f"{workdir}:{workdir}", *container.mounts))
    return shlex.join(
        [
            f"--container-image={container.image}",
            f"--container-mounts={mounts}",
            f"--container-workdir={workdir}",
        ]
    )
