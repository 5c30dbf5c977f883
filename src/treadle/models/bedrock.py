"""Amazon Bedrock's Converse API as a model."""

import re
from collections.abc import Mapping

from treadle.domain.events import FinishReason
from treadle.domain.schema import OutputMode
from treadle.errors import ConfigurationError
from treadle.models.api_key import ApiKey
from treadle.models.aws_signature import AwsSession, AwsSigner
from treadle.models.http import HttpModel, Timeouts
from treadle.models.transport import HttpRequest, Transport
from treadle.models.wire.chat_dialects import host_of
from treadle.models.wire.converse import ConverseWire
from treadle.models.wire.converse_families import family_of, maker_of
from treadle.models.wire.converse_request import CachePoints, ConverseOptions

KEY = "AWS_BEARER_TOKEN_BEDROCK"
_REGION = re.compile(r"[a-z]{2,5}(?:-[a-z]+)+-\d{1,2}")
_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:([a-z0-9-]+):")
_SUFFIXES = {"cn-": "amazonaws.com.cn", "eusc-": "amazonaws.eu"}


class Bedrock(HttpModel):
    """A model behind the Converse API of Amazon Bedrock (`ConverseStream`).

    - `name`: the id of a model, `amazon.nova-lite-v1:0`, of an inference profile,
      `eu.anthropic.claude-sonnet-5`, or the ARN of either, of a deployment or of an imported model.
    - `region`: such as `eu-west-1`; by default that of the ARN.
    - `api_key`: a Bedrock API key, or a function that returns one for a while; "" for a server that
      needs none. Without it, requests are signed with credentials of AWS, which the extra
      `bedrock` finds: environment, profiles, single sign-on, container, instance.
    - `session`: a session of botocore or boto3 with the credentials, instead of the default one.
    - `base_url`: the root of another server or endpoint.
    - `base_model`: the id of the model that an ARN stands for. What the model accepts depends on
      its maker, and such an ARN does not contain it.
    - `provider`, with the maker of the model, marks the signed reasoning and the items of hosted
      tools, which are sent back only to models with the same mark.
    - `prompt_cache` marks tools, system and the last turns for the prompt cache of models of
      Anthropic, and is the time they are kept; None: no mark.
    - `strict` refuses a request with `ItemRefused` if an item of the history cannot be sent as it
      is, instead of leaving parts of it out.
    - `ends` maps more values of `stopReason` to what they mean: `ends={"my_stop": "stop"}`. A
      response that ends with an unknown word fails with `ServerFailed`.
    - `output_mode`: how agents ask for structured output; by default `"tool"`, because few models
      take a schema.

    `ModelSettings.extra_body` adds fields to the request, such as `guardrailConfig` or
    `additionalModelRequestFields`.

    https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference.html
    """

    def __init__(
        self,
        name: str,
        *,
        region: str | None = None,
        api_key: ApiKey | None = None,
        session: AwsSession | None = None,
        base_url: str | None = None,
        base_model: str | None = None,
        provider: str = "bedrock",
        prompt_cache: CachePoints | None = "5m",
        strict: bool = False,
        ends: Mapping[str, FinishReason] | None = None,
        output_mode: OutputMode | None = None,
        timeouts: Timeouts | None = None,
        proxy: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        arn = _ARN.match(name)
        place = region or (arn[1] if arn else "")
        is_needed = api_key is None or base_url is None
        if not _REGION.fullmatch(place) and (place or is_needed):
            given = f"{place[:100]!r} is not the name of one" if place else "none is given"
            raise ConfigurationError(
                f"The model {name} of Bedrock needs a region, such as us-east-1, and {given}: pass "
                "region=…, or set AWS_REGION."
            )
        model = base_model or name
        maker = maker_of(model)
        options = ConverseOptions(
            provider=f"{provider}:{maker}" if maker else provider,
            model=model,
            family=family_of(model),
            prompt_cache=prompt_cache,
            strict=strict,
        )
        super().__init__(
            name,
            ConverseWire(name, options, ends),
            base_url=base_url or _url(place),
            api_key=api_key or "",
            output_mode=output_mode or "tool",
            timeouts=timeouts,
            proxy=proxy,
            transport=transport,
        )
        self._signer = AwsSigner(place, session) if api_key is None else None

    async def _authorized(self, call: HttpRequest) -> HttpRequest:
        if self._signer is None:
            return call
        return await self._signer.signed(call, self._host, self._timeouts.first_byte)


def _url(region: str) -> str:
    suffix = next((s for start, s in _SUFFIXES.items() if region.startswith(start)), None)
    return f"https://bedrock-runtime.{region}.{suffix or 'amazonaws.com'}"


def bedrock(
    name: str, url: str, environ: Mapping[str, str], transport: Transport | None
) -> Bedrock:
    """Returns the model `bedrock:name[@url]`; raises `ConfigurationError` without a region."""
    if url:
        return Bedrock(
            name,
            api_key=environ.get("TREADLE_API_KEY", ""),
            base_url=url,
            provider=f"bedrock:{host_of(url)}",
            transport=transport,
        )

    def setting(*names: str) -> str | None:
        return next((found for one in names if (found := environ.get(one, "").strip())), None)

    return Bedrock(
        name,
        region=setting("AWS_REGION", "AWS_DEFAULT_REGION"),
        api_key=setting(KEY),
        base_url=setting("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"),
        transport=transport,
    )
