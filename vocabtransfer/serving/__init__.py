"""A server for Hydras: OpenAI's HTTP interface, and requests in different languages generated together.

`Engine` needs nothing that the library does not need anyway; `create_app` and `Server` come with the extra ``serve``.

    jobs      what is asked of the engine, and what it tells       rows      a batch of rows with different heads
    sampling  the next token of a row                              engine    the thread that generates
    text      whole characters and stop texts                      protocol  requests and errors as OpenAI's
    asking    from a request to its jobs                           answers   the shape of answers as OpenAI's
    exchange  from jobs to an answer                               service   who may ask, and the way of a request
    visitors  names of hosts and pages that are let in             app       the routes
    server    starting and stopping
"""

from vocabtransfer.serving.engine import Engine
from vocabtransfer.serving.jobs import Event, Job, Limits, Sampling

__all__ = ["Engine", "Event", "Job", "Limits", "Sampling"]
