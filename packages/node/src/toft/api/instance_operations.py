"""Everything one can ask of plugins that are loaded; a part of the list in `operations.py`."""

from __future__ import annotations

from toft.api import asked, frames, schemas
from toft.api.asked import Operation

INSTANCES = (
    Operation(
        "instance.list", "GET /v1/instances", "toft status", "instances", "/plugins", gives="Instances"
    ),
    Operation(
        "instance.load",
        "POST /v1/instances",
        "toft run",
        "load",
        "- a job loads what it needs",
        takes=schemas.LOAD,
        gives="Instance",
        fails=(404, *asked.RUNS),
    ),
    Operation(
        "instance.show",
        "GET /v1/instances/{name}",
        "toft status",
        "instance",
        "/plugins/{name}",
        gives="Instance",
    ),
    Operation(
        "instance.unload",
        "DELETE /v1/instances/{name}",
        asked.NO_PAGE,
        "unload",
        "- it ends unused by itself",
        fails=asked.RUNS,
    ),
    Operation(
        "instance.reconfigure",
        "POST /v1/instances/{name}/reconfigure",
        "toft plugin config",
        "instance.reconfigure",
        "/plugins/{name}",
        takes=schemas.RECONFIGURE,
        gives="Instance",
        fails=asked.RUNS,
    ),
    Operation(
        "instance.act",
        "POST /v1/instances/{name}/{step}",
        "toft plugin enable",
        "instance.reload",
        "/plugins/{name}",
        gives="Instance",
        fails=asked.RUNS,
    ),
    Operation(
        "instance.stats",
        "GET /v1/instances/{name}/stats",
        "toft top",
        "instance.stats",
        "/plugins/{name}",
        gives="Stats",
    ),
    Operation(
        "instance.logs",
        "GET /v1/instances/{name}/logs",
        "toft plugin logs",
        "instance.logs",
        "/plugins/{name}",
        gives="Lines",
    ),
    Operation(
        "instance.config_options",
        "GET /v1/instances/{name}/config_options",
        "toft plugin config",
        "instance.config_options",
        "/plugins/{name}",
        gives="Options",
        fails=asked.RUNS,
    ),
    Operation(
        "call.begin",
        "POST /v1/instances/{name}/calls",
        "toft run",
        "instance.call",
        "- a job is kept, a call is not",
        takes=schemas.CALL,
        media=(frames.MEDIA_TYPE,),
        fails=asked.RUNS,
    ),
    Operation(
        "call.cancel",
        "POST /v1/instances/{name}/calls/{number}/cancel",
        "- Ctrl-C",
        "call.cancel",
        "- a job is kept, a call is not",
        takes=schemas.CANCEL_CALL,
        gives="Cancelled",
    ),
)
