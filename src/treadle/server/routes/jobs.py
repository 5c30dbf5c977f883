"""Jobs of a thread."""

from typing import Any

from treadle.domain.state import OpenJob
from treadle.server.api_request import ApiRequest
from treadle.server.operation import Answer, NoFields, Operations, Page

JOBS = Operations("Jobs")


@JOBS.add("GET", "/threads/{thread_id}/jobs", scope="read", answers={200: OpenJob}, is_page=True)
async def list_jobs(request: ApiRequest[Any, None]) -> Page:
    """Lists the jobs that have not settled, in the order in which they were started."""
    thread = await request.runtime.connect(request.path["thread_id"])
    return Page(list(await thread.jobs()))


@JOBS.add(
    "POST",
    "/threads/{thread_id}/jobs/{job_id}/cancel",
    scope="write",
    body=NoFields,
    answers={202: None},
)
async def cancel_job(request: ApiRequest[Any, None]) -> Answer:
    """Cancels a job with all that it started; has no effect on one that has settled."""
    thread = await request.runtime.connect(request.path["thread_id"])
    await thread.cancel_job(request.path["job_id"])
    return Answer(202, {})
