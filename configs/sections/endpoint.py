"""Section of one endpoint: a model that is asked over HTTP, by the OpenAI protocol."""

from typing import Annotated

from pydantic import Field

from dynalign.configs.section import Positive, Seconds, Section

Price = Annotated[float, Field(ge=0.0, le=1e6)]
"""Of a million tokens."""


class EndpointSettings(Section):
    """Which model is asked where, how fast, and what it may cost.

    Example: `{address: "http://judge:8000/v1", model: gpt-oss-20b, key_variable: JUDGE_KEY,
    budget_tokens: 2000000}`.
    """

    address: str
    """Base URL of an OpenAI-compatible server, usually with `/v1` at its end."""
    model: str
    """The name under which the server knows the model."""
    key_variable: str | None = None
    """Name of the environment variable that holds the key; null: the server wants none. The key itself never
    goes into settings."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 8
    """Most requests at once. Fewer are sent while the server asks for fewer (429, 503, time-outs)."""
    request_s: Seconds = 120.0
    """Longest wait for the answer to one request; after it the request is sent again."""
    deadline_s: Seconds = 600.0
    """Longest wait for the answer to one question, all tries included. A server that has died is waited for
    as long."""
    retries: Annotated[int, Field(ge=0, le=100)] = 5
    """Further tries of one question after failures that may pass. Busy (429, 503) and absent servers are not
    counted: the deadline bounds them."""
    budget_tokens: Positive | None = None
    """Tokens, read and written, that may be spent in all; null: no limit. Raising it continues."""
    budget_money: Annotated[float, Field(gt=0.0, le=1e9)] | None = None
    """Money that may be spent in all, in the currency of the prices; null: no limit. Raising it continues."""
    input_price: Price = 0.0
    """Price of a million tokens that are read."""
    output_price: Price = 0.0
    """Price of a million tokens that are written."""
