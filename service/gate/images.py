"""`/v1/images/generations`: the prompt is judged as a prompt, each image before it leaves.

An image is whole or not at all, and its answer has no place for words: so nothing is streamed, and
a prompt that does not pass is an error. The server never sees it, because images are dear.
"""

import asyncio
import base64
import binascii
from collections.abc import Sequence

from moderation.content import Content, ImagePart
from moderation.errors import UnreadableImage
from policies import Surface
from service.background import all_of
from service.downloads import Downloader
from service.errors import (
    BadRequest,
    ContentBlocked,
    DownloadFailed,
    UnsupportedInput,
    UpstreamBroke,
    UpstreamRefused,
)
from service.gate.checks import CHECKS_AT_ONCE, Check, Checker, part_of_answer
from service.gate.dialects.dialect import Item, Json, parts_of
from service.gate.dialects.other_fields import item_of_other_fields
from service.gate.gate import vetted
from service.gate.pre_filter import PromptCheck, check_prompt
from service.gate.report import Outcome, check_report, gate_report, prompt_report
from service.gate.strings import strings
from service.metrics import Metrics
from service.moderation_input import is_remote
from service.remote_files import Allowance
from service.upstreams.upstream import Call, Upstream

MAX_FETCHED_BYTES = 48 * 1024 * 1024
"""Of all images of one answer; with them in base64 it is as long as any may be."""

_NAMES = frozenset({"background", "output_format", "quality", "size"})


class ImageGate:
    """Upstreams that make images, behind a classifier."""

    def __init__(
        self,
        checker: Checker,
        metrics: Metrics,
        downloader: Downloader | None,
        *,
        reports_in_body: bool,
    ) -> None:
        """Without `downloader`, images by URL are refused."""
        self._checker = checker
        self._metrics = metrics
        self._downloader = downloader
        self._reports_in_body = reports_in_body

    async def answer(self, call: Call, upstream: Upstream, outcome: Outcome) -> Json:
        """The answer with the images that passed; the others' entries say `content_filter`.

        Args:
            call: of the caller.
            upstream: what answers.
            outcome: filled in as the exchange goes on.

        Raises:
            BadRequest, UnsupportedInput: the request has another form, or asks for what cannot be
                checked.
            ContentBlocked: the prompt did not pass.
            ModerationError: there is no verdict on the prompt, and the policy set closes.
            ServiceError: the upstream failed, or answered with what cannot be checked.
        """
        begin = await upstream.prepare(call)
        items = _items(call.body, may_fetch=self._downloader is not None)
        prompt = await check_prompt(self._checker, items, key=call.key)
        outcome.prompt = prompt
        if not prompt.passed:
            assert prompt.decisive is not None, "nothing to check passes"
            self._count("prompt_failed" if prompt.decisive.error else "prompt_blocked")
            raise prompt.decisive.error or ContentBlocked(
                "the prompt was blocked by the content policy",
                report=prompt_report(prompt),
                param=prompt.items[len(prompt.checks) - 1].where,
            )
        try:
            reply = await begin()
        except UpstreamRefused as exc:
            raise await vetted(self._checker, exc, call.key) from exc
        try:
            return await self._checked(call, prompt, await reply.whole(), outcome)
        finally:
            await reply.close()

    async def _checked(
        self, call: Call, prompt: PromptCheck, answer: Json, outcome: Outcome
    ) -> Json:
        entries = answer.get("data")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UpstreamBroke("the upstream did not answer with a list of images")
        beside = {name: value for name, value in answer.items() if name != "data"}
        asked = call.body["prompt"]
        room = asyncio.Semaphore(CHECKS_AT_ONCE)
        allowance = Allowance(MAX_FETCHED_BYTES)

        async def check(entry: Json, where: str) -> tuple[Json, Check | None]:
            async with room:
                try:
                    entry = await self._with_its_bytes(entry, allowance)
                except DownloadFailed as exc:
                    return entry, self._checker.failed(UnreadableImage(f"{where}.url: {exc}"))
                content = _content(entry, asked, where)
                if content is None:
                    return entry, None
                return entry, await self._checker.check_answer(content, key=call.key)

        named = [(beside, ""), *((entry, f"data[{i}]") for i, entry in enumerate(entries))]
        (beside, rest), *checked = await all_of(check(*each) for each in named)
        if rest is not None and not rest.passed:  # what stands beside the images goes with them
            beside, checked = {}, [(entry, rest) for entry, _ in checked]
        made = [
            entry if check is None or check.passed else self._filtered(check)
            for entry, check in checked
        ]
        every = [check for check in (*(check for _, check in checked), rest) if check is not None]
        outcome.response = every
        decisive = _worst(every)
        self._count_answer(prompt, decisive)
        report = {"wardgate": gate_report(prompt, decisive)} if self._reports_in_body else {}
        return {**beside, "data": made, **report}

    async def _with_its_bytes(self, entry: Json, allowance: Allowance) -> Json:
        """An entry with the image itself where it names one by a URL, which may show another image
        to whoever opens it next. Raises `DownloadFailed`."""
        url = entry.get("url")
        if self._downloader is None or not isinstance(url, str) or not is_remote(url):
            return entry
        data = await self._downloader.fetch(url, allowance.take)
        rest = {name: value for name, value in entry.items() if name != "url"}
        return {**rest, "b64_json": base64.b64encode(data).decode()}

    def _filtered(self, check: Check) -> Json:
        report = {"wardgate": check_report(check)} if self._reports_in_body else {}
        return {"b64_json": None, "finish_reason": "content_filter", **report}

    def _count_answer(self, prompt: PromptCheck, worst: Check | None) -> None:
        if worst is not None and not worst.passed:
            self._count("response_failed" if worst.error else "response_blocked")
        elif any(check.error for check in (*prompt.checks, *([worst] if worst else []))):
            self._count("passed_unchecked")
        else:
            self._count("passed")

    def _count(self, outcome: str) -> None:
        self._metrics.gate_outcomes.labels(outcome).inc()


def _items(body: Json, *, may_fetch: bool) -> list[Item]:
    text = body.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise BadRequest("prompt has to be a text that says something", param="prompt")
    if body.get("stream"):
        raise UnsupportedInput(
            "images that are not finished cannot be checked; leave stream out", param="stream"
        )
    if body.get("response_format") == "url" and not may_fetch:
        raise UnsupportedInput(
            "images are not fetched from URLs to be checked (download_hosts); ask for b64_json",
            param="response_format",
        )
    others = item_of_other_fields(body, known=("prompt",))
    return [Item("prompt", Content.prompt(text)), *([others] if others else [])]


def _content(entry: Json, asked: str, where: str) -> Content | None:
    """An image with the words beside it; None where there is neither."""
    files = []
    url = entry.get("url")
    if isinstance(url, str) and isinstance(image := part_of_answer(url), ImagePart):
        files.append(image)
        entry = {name: value for name, value in entry.items() if name != "url"}
    elif url is not None:
        raise UnsupportedInput(
            "the upstream answered with the URL of an image, which is not fetched to be checked;"
            " ask for response_format b64_json",
            param="response_format",
        )
    if isinstance(data := entry.get("b64_json"), str):
        try:
            files.append(ImagePart(base64.b64decode(data, validate=True)))
        except (binascii.Error, ValueError) as exc:
            raise UpstreamBroke(f"the upstream sent no valid base64 in {where}.b64_json") from exc
    rest = {k: v for k, v in entry.items() if k != "b64_json" or not isinstance(v, str)}
    texts = [leaf.text for leaf in strings(rest, names=_NAMES)]
    parts = (*parts_of("\n".join(texts)), *files)
    return Content(surface=Surface.RESPONSE, parts=parts, context=asked) if parts else None


def _worst(checks: Sequence[Check]) -> Check | None:
    """The check that did not pass, else one without a verdict, else the last."""
    ordered = sorted(checks, key=lambda check: (not check.passed, check.error is not None))
    return ordered[-1] if ordered else None
