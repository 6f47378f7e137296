"""What every client and server here shares: the command line, and the lines the tests read.

A server prints `READY <tcp-port>` and runs until its standard input closes, so that none outlives
the test that started it. A client prints `VALUE <name> <value>` for each name and exits with 0, or
says what went wrong and exits with 1.
"""

import argparse
import os
import sys


def client_arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="+", metavar="NAME", help="process variable to read")
    parser.add_argument("--addr-list", required=True, help="where to search, and nowhere else")
    parser.add_argument("--port", type=int, help="UDP port to search at (default: the protocol's)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for all names")
    return parser.parse_args()


def server_arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("pvs", nargs="+", metavar="NAME=VALUE", help="process variable to host")
    parser.add_argument("--port", type=int, required=True, help="TCP port")
    parser.add_argument("--interface", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--search-port", type=int, help="UDP port (default: as --port)")
    arguments = parser.parse_args()
    arguments.pvs = {name: float(value) for name, value in (pv.split("=") for pv in arguments.pvs)}
    arguments.search_port = arguments.search_port or arguments.port
    return arguments


def search_only_at(protocol, arguments):
    """Points the client library of `protocol` (CA or PVA) at the address list. Call this before
    importing that library: some read the environment only once."""
    os.environ[f"EPICS_{protocol}_ADDR_LIST"] = arguments.addr_list
    os.environ[f"EPICS_{protocol}_AUTO_ADDR_LIST"] = "NO"
    os.environ.pop(f"EPICS_{protocol}_NAME_SERVERS", None)
    if arguments.port:
        variable = {"CA": "EPICS_CA_SERVER_PORT", "PVA": "EPICS_PVA_BROADCAST_PORT"}[protocol]
        os.environ[variable] = str(arguments.port)


def value(name, read):
    print("VALUE", name, float(read), flush=True)


def fail(reason):
    print(reason, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)  # client libraries may wait for their threads; the test does not


def ready(tcp_port):
    print("READY", tcp_port, flush=True)


def wait_until_stdin_closes():
    sys.stdin.read()
