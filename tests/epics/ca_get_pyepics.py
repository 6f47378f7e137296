"""Reads process variables by Channel Access with pyepics, which is EPICS Base's libca."""

import time

import common

arguments = common.client_arguments(__doc__)
common.search_only_at("CA", arguments)

import epics

deadline = time.monotonic() + arguments.timeout
pvs = [epics.PV(name, auto_monitor=False) for name in arguments.names]
for pv in pvs:
    if not pv.wait_for_connection(timeout=max(0.1, deadline - time.monotonic())):
        common.fail(f"{pv.pvname}: not connected")
    answer = pv.get(timeout=max(0.1, deadline - time.monotonic()))
    if answer is None:
        common.fail(f"{pv.pvname}: connected to {pv.host}, which gave no value")
    common.value(pv.pvname, answer)
