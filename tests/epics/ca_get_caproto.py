"""Reads process variables by Channel Access with caproto, which is written in Python alone."""

import time

import common

arguments = common.client_arguments(__doc__)
common.search_only_at("CA", arguments)

from caproto.threading.client import Context

deadline = time.monotonic() + arguments.timeout
pvs = Context().get_pvs(*arguments.names)
for pv in pvs:
    try:
        pv.wait_for_connection(timeout=max(0.1, deadline - time.monotonic()))
        answer = pv.read(timeout=max(0.1, deadline - time.monotonic()))
    except Exception as error:
        common.fail(f"{pv.name}: {type(error).__name__} {error}")
    common.value(pv.name, answer.data[0])
