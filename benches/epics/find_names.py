"""How long clients take to find many names at once through `nicring serve`.

    sudo ip netns exec NAMESPACE .cache/venv/bin/python benches/epics/find_names.py NICRING COUNT

starts EPICS Base's IOC with COUNT records and NICRING (the program) with their names, on loopback,
and then pyepics (libca) and caproto, one after the other. Each creates all channels at once and
waits until all are connected. caproto counts its channels in 16 bits and hangs at more, whoever
answers: it runs as one process for each 50,000 names, all at once.
"""

import os
import subprocess
import sys
import tempfile
import time

PORT, IOC_PORT = 5064, 5066
NAMES_PER_CLIENT = {"pyepics": 1_000_000, "caproto": 50_000}
PATIENCE_S = 600

IOC = """
import os, sys
os.environ.update(
    EPICS_CAS_SERVER_PORT="{port}",
    EPICS_CAS_INTF_ADDR_LIST="127.0.0.1",
    EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO",
    EPICS_CAS_BEACON_ADDR_LIST="127.255.255.255",
)
from softioc import asyncio_dispatcher, softioc
softioc.dbLoadDatabase(sys.argv[1])
softioc.iocInit(asyncio_dispatcher.AsyncioDispatcher(), enable_pva=False)
print("READY", flush=True)
sys.stdin.read()
"""

PYEPICS = """
import sys, time
import epics
names = open(sys.argv[1]).read().split()
start = time.monotonic()
pvs = [epics.ca.create_channel(name, connect=False) for name in names]
left = set(range(len(pvs)))
while left and time.monotonic() - start < 600:
    epics.ca.poll(evt=1e-3, iot=0.1)
    left = {at for at in left if epics.ca.state(pvs[at]) != 2}
took = time.monotonic() - start
print(f"{len(names) - len(left)} of {len(names)} after {took:.1f} s", flush=True)
"""

CAPROTO = """
import sys, time
from caproto.threading.client import Context
names = open(sys.argv[1]).read().split()
start = time.monotonic()
pvs = Context().get_pvs(*names, timeout=600)
left = list(pvs)
while left and time.monotonic() - start < 600:
    time.sleep(0.1)
    while left and left[-1].connected:
        left.pop()
left = [pv for pv in left if not pv.connected]
took = time.monotonic() - start
print(f"{len(names) - len(left)} of {len(names)} after {took:.1f} s", flush=True)
"""


def find(client, shares, path):
    """Runs a client for each share of the names, all at once, and says what each found."""
    environment = os.environ | {
        "EPICS_CA_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": str(PORT),
    }
    start, running = time.monotonic(), []
    for number, share in enumerate(shares):
        names = path(f"names-{number}")
        with open(names, "w") as file:
            file.write("\n".join(share))
        command = [sys.executable, path(f"by_{client}.py"), names]
        piped = {"stdout": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, env=environment, **piped))
    for process in running:
        told, _ = process.communicate(timeout=2 * PATIENCE_S)
        print(f"{client}: {told.strip() or 'failed'}", flush=True)
    print(f"{client}: {time.monotonic() - start:.1f} s in all", flush=True)


def main() -> None:
    nicring, count = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as directory:
        names = [f"bench:device{number:06}" for number in range(count)]
        files = {
            "records.db": "".join(f'record(ao, "{name}") {{}}\n' for name in names),
            "pvs.txt": "".join(f"ca {name} 127.0.0.1:{IOC_PORT}\n" for name in names),
            "ioc.py": IOC.format(port=IOC_PORT),
            "by_pyepics.py": PYEPICS,
            "by_caproto.py": CAPROTO,
        }
        for name, text in files.items():
            with open(os.path.join(directory, name), "w") as file:
                file.write(text)
        path = lambda name: os.path.join(directory, name)  # noqa: E731
        piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        ioc = subprocess.Popen([sys.executable, path("ioc.py"), path("records.db")], **piped)
        serve = [nicring, "serve", "--pvs", path("pvs.txt"), "--interface", "127.0.0.1"]
        server = subprocess.Popen([*serve, "--pva-port", "0"], **piped)
        try:
            for process in (ioc, server):
                while not process.stdout.readline().lower().startswith("ready"):
                    if process.poll() is not None:
                        sys.exit("a server did not start")
            for client, share in NAMES_PER_CLIENT.items():
                find(client, [names[at : at + share] for at in range(0, count, share)], path)
        finally:
            for process in (ioc, server):
                process.terminate()


main()
