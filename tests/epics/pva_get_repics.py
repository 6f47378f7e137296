"""Reads process variables by PVAccess with repics (epics-rs)."""

import time

import common

arguments = common.client_arguments(__doc__)
common.search_only_at("PVA", arguments)

from repics.pva import Context

deadline = time.monotonic() + arguments.timeout
with Context("pva") as context:
    for name in arguments.names:
        try:
            answer = context.get(name, timeout=max(0.1, deadline - time.monotonic()))
        except Exception as error:
            common.fail(f"{name}: {type(error).__name__} {error}")
        common.value(name, answer)
