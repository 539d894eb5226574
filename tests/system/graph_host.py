"""A node that submits a graph and runs it until somebody kills it: `python graph_host.py HOME GRAPH_JSON`."""

import asyncio
import json
import sys
from pathlib import Path

from toft import open_node
from toft.kernel import settings


async def main(home: Path, graph: str) -> None:
    read = settings.read({}, directory=home.parent, home=home)
    async with open_node(settings=read) as node:
        stored = await node.jobs.submit_graph(json.loads(graph))
        sys.stdout.write(stored.id + "\n")
        sys.stdout.flush()
        async for event in node.jobs.watch(sequence=stored.id, after=0):
            if event.type == "state":
                step = (await node.jobs.get(str(event.job))).step
                sys.stdout.write(f"{step} {event.data['to']}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
