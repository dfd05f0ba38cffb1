"""The configuration files of the tests' own SLURM cluster (`cluster.py`), for SLURM 22.05.

Nothing in them is shared with another cluster on this machine: every path lies in the cluster's folder, every
port was free.
"""

import os
import random
import secrets
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CPUS_PER_NODE = 4
MEGABYTES_PER_NODE = 32_000
NULL_DEVICE = os.makedev(1, 3)
CREDENTIAL_SECONDS = 5
"""How long a job's credential is good for; a requeued job waits a second more before it starts again.
SLURM takes anything below 5 for its default, 120."""

SLURM_CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[slurmctld]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={credential}
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
PlugStackConfig={folder}/plugstack.conf
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,bf_interval=2
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=5
CompleteWait=0
KillOnBadExit=1
MaxArraySize=2001
MinJobAge=7200
ReturnToService=1
SlurmctldTimeout=30
SlurmdTimeout=60
InactiveLimit=0
MailProg=/bin/true
{accounting}
{nodes}
PartitionName=DEFAULT Nodes=ALL MaxTime=1-00:00:00 DefaultTime=10
PartitionName=main Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=high PriorityTier=10 PreemptMode=OFF
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[slurmdbd]}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux"""

NO_ACCOUNTING = """\
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={ports[slurmdbd]}
CommunicationParameters=NoInAddrAny
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""

DATABASE_SETUP = """\
create database slurm_acct_db;
create database mysql;
use mysql;
"""
SYSTEM_TABLES = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")

SLURMD = """\
# What `unshare` runs for one node: a machine of its own as far as host name, processes and mounts go.
# Usage: slurmd.sh NODE [FOLDER-TO-HIDE]
hostname "$1"
mount --bind {folder}/hosts /etc/hosts
[ -z "$2" ] || mount -t tmpfs tmpfs "$2" || exit 1
slurmd -D -N "$1"
exit $?  # not the last command: the shell must stay, because the first process of a namespace reaps orphans
"""


@dataclass(frozen=True)
class Layout:
    """What the files of one cluster are made from."""

    folder: Path
    nodes: Sequence[str]
    gpus: int
    accounting: bool
    ports: Mapping[str, int]  # by daemon; slurmd's by node

    def write(self) -> None:
        """Write every file that the daemons read, and make the folders that they write to."""
        for name in ("state", "sql", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        values = {
            "folder": self.folder,
            "host": socket.gethostname().split(".")[0],
            "ports": self.ports,
            "credential": CREDENTIAL_SECONDS,
        }
        accounting = ACCOUNTING.format(**values) if self.accounting else NO_ACCOUNTING
        nodes = "\n".join(map(self._node_line, self.nodes))
        self._write("slurm.conf", SLURM_CONF.format(**values, accounting=accounting, nodes=nodes))
        self._write("slurmdbd.conf", SLURMDBD_CONF.format(**values))
        self._write("slurmd.sh", SLURMD.format(**values))
        self._write("gres.conf", self._gres_lines())
        self._write("cgroup.conf", "CgroupAutomount=no\n")
        self._write("plugstack.conf", "")
        self._write("hosts", Path("/etc/hosts").read_text() + f"127.0.0.1 {' '.join(self.nodes)}\n")
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)

    def _node_line(self, node: str) -> str:
        gres = f" Gres=gpu:fake:{self.gpus}" if self.gpus else ""
        return (
            f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={self.ports[node]}"
            f" CPUs={CPUS_PER_NODE} Boards=1 SocketsPerBoard=1 CoresPerSocket={CPUS_PER_NODE}"
            f" ThreadsPerCore=1 RealMemory={MEGABYTES_PER_NODE}{gres} State=UNKNOWN"
        )

    def _gres_lines(self) -> str:
        """GPUs are copies of /dev/null; the flag makes SLURM set CUDA_VISIBLE_DEVICES for them."""
        lines = ""
        for index in range(self.gpus):
            device = self.folder / f"gpu{index}"
            os.mknod(device, 0o666 | stat.S_IFCHR, NULL_DEVICE)
            lines += f"Name=gpu Type=fake File={device} Flags=nvidia_gpu_env\n"
        return lines


def database_script(system_tables: Path = Path("/usr/share/mysql")) -> str:
    """SQL for `mariadbd --bootstrap`: the system tables and slurmdbd's empty database.

    A second's work less than `mariadb-install-db`, which adds help texts and performance views.
    """
    return DATABASE_SETUP + "".join((system_tables / name).read_text() for name in SYSTEM_TABLES)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, below those that the kernel gives to connections."""
    ports: list[int] = []
    with_luck = random.SystemRandom()
    while len(ports) < count:
        port = with_luck.randrange(15_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports
