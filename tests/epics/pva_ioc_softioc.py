"""A PVAccess IOC by softioc, which is EPICS Base's IOC with pvxs's server for records (QSRV2)."""

import os

import common

arguments = common.server_arguments(__doc__)
os.environ.update({
    "EPICS_PVAS_SERVER_PORT": str(arguments.port),
    "EPICS_PVAS_BROADCAST_PORT": str(arguments.search_port),
    "EPICS_PVAS_INTF_ADDR_LIST": arguments.interface,
    "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
    "PVXS_QSRV_ENABLE": "YES",
    # The Channel Access server, which starts all the same and is not asked.
    "EPICS_CAS_SERVER_PORT": str(arguments.port + 1),
    "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
    "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
    "EPICS_CAS_BEACON_ADDR_LIST": "127.255.255.255",
})

from softioc import asyncio_dispatcher, builder, softioc

for name, initial in arguments.pvs.items():
    builder.aOut(name, initial_value=initial)
builder.LoadDatabase()
softioc.iocInit(asyncio_dispatcher.AsyncioDispatcher(), enable_pva=True)
common.ready(arguments.port)
common.wait_until_stdin_closes()
