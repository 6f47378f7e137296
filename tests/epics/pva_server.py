"""A PVAccess server by p4p (pvxs)."""

import common

arguments = common.server_arguments(__doc__)

from p4p.nt import NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV

pvs = {
    name: SharedPV(nt=NTScalar("d"), initial=initial) for name, initial in arguments.pvs.items()
}
configuration = {
    "EPICS_PVAS_INTF_ADDR_LIST": arguments.interface,
    "EPICS_PVAS_SERVER_PORT": str(arguments.port),
    "EPICS_PVAS_BROADCAST_PORT": str(arguments.search_port),
    "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
}
with Server(providers=[pvs], conf=configuration, useenv=False) as server:
    common.ready(server.conf()["EPICS_PVAS_SERVER_PORT"])
    common.wait_until_stdin_closes()
