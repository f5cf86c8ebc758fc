"""A SLURM cluster of one node on the loopback interface, from Debian's packages, for as long as a test runs."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import find_program

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
JobRequeue=1
KillWait=20
MinJobAge=300
ReturnToService=2
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _program(name: str) -> str:
    path = find_program(name)
    assert path is not None, name
    return path


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start munged, slurmctld and slurmd below `folder`; yields the environment in which sbatch finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    host = socket.gethostname().split(".")[0]
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(host=host, folder=folder, user=user, controller_port=_free_port(), daemon_port=_free_port())
    )
    system_path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    environment = {**os.environ, "SLURM_CONF": str(config), "PATH": system_path}
    own_files = ("socket", "pid-file", "log-file", "seed-file")
    munge = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in own_files]
    daemons = []
    try:
        commands = (
            [_program("munged"), "--foreground", "--force", f"--key-file={key}", *munge],
            [_program("slurmctld"), "-D", "-f", str(config)],
            [_program("slurmd"), "-D", "-f", str(config)],
        )
        for command in commands:
            daemons.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            if command is commands[0]:
                _wait(lambda: (folder / "munge.socket").exists(), "munged", folder)
        _wait(lambda: "idle" in _output(["sinfo", "--noheader", "--format=%T"], environment), "the node", folder)
        yield environment
    finally:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["scancel", "--user", user], env=environment, timeout=20, check=False)
        for daemon in reversed(daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()
        shutil.rmtree(folder / "spool", ignore_errors=True)


def _output(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False).stdout


def _wait(ready: object, what: str, folder: Path) -> None:
    assert callable(ready)
    deadline = time.monotonic() + 60
    while not ready():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-1500:] for path in folder.glob("*.log"))
            raise RuntimeError(f"{what} did not come up within 60 s:\n{logs}")
        time.sleep(0.2)
