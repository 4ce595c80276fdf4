"""The settings of the service: read once, from the command line, the environment and one file.

Precedence: what the command line says, then `WARDGATE_*` variables, then the YAML file, then the
defaults. A name that is no setting is an error, in the environment as in the file.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from moderation.embedded.base import EmbeddedBase

PREFIX = "WARDGATE_"
CONFIG_VARIABLE = "WARDGATE_CONFIG"
"""Names the YAML file where the command line does not."""

FaceName = Literal["azure", "litellm", "llama-stack", "llm-guard", "nemo", "perspective"]
"""The packages and services whose clients can be served."""

DownloadHost = Annotated[
    str,
    Field(pattern=r"^(\*|\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(:[0-9]{1,5})?$"),
]
"""A host without `http://`, in small letters; one with others as `xn--...`."""


class SettingsError(Exception):
    """A setting that is unknown or cannot be used; the message names it and where it stands."""


class UpstreamSettings(BaseModel):
    """A server that speaks OpenAI's API and answers behind the gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(
        pattern=r"^https?://", description="Up to and including `/v1`: http://127.0.0.1:8000/v1."
    )
    models: tuple[str, ...] = Field(
        (), description="Models that it answers; none named: all that no other upstream does."
    )
    api_key: SecretStr | None = Field(
        None,
        description="Sent as a bearer token. Without one the caller's own `Authorization` is"
        " passed on.",
    )
    connect_s: float = Field(10.0, gt=0, description="Seconds that connecting may take.")
    silence_s: float = Field(
        120.0, gt=0, description="Seconds that may pass without a byte of an answer."
    )
    max_connections: int = Field(256, ge=1, description="At a time; more calls wait.")


class Settings(BaseSettings):
    """Everything that can be set; the defaults are the safe ones."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on. The default is loopback.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    model: str = Field(
        "embedded",
        description="The classifier for text: a name of `wardgate models list`, a directory, a hub"
        " id, or the YAML file of a model on a server (docs/remote.md).",
    )
    calibration: Path | None = Field(
        None,
        description="A file of `wardgate eval calibrate` for `model` (docs/calibration.md). The"
        " embedded model has its own, which this one replaces.",
    )
    image_model: str | None = Field(
        None,
        description="The classifier for what images show, such as `shieldgemma-2-4b`. Without"
        " one, images are judged by the text in them and by `evidence`, and verdicts say so.",
    )
    ocr: bool | Literal["auto"] = Field(
        "auto",
        description="Whether text in images is read and judged (extra `images`). `auto`: where"
        " the extra is installed.",
    )
    evidence: bool | Literal["auto"] = Field(
        "auto",
        description="Whether `model` judges what recognisers find in images (tags and a score of"
        " nudity, extra `evidence`) where no `image_model` sees them. `auto`: where the extra is"
        " installed and the model was made for it.",
    )
    frames_per_second: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="Frames of a video or animation that are judged for each second of it, besides"
        " the first, the last and the first after a cut.",
    )
    max_frames: int = Field(
        32,
        ge=2,
        description="Most frames of one video or animation that are judged. Where more differ, so"
        " many are spread evenly, and the verdict says how many were left out.",
    )
    max_image_bytes: int = Field(
        20 * 1024 * 1024,
        ge=1,
        description="Larger image files, still or animated, are refused as unreadable.",
    )
    max_video_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1,
        description="Larger video files are refused as unreadable; `max_body_bytes` bounds them"
        " too, at three quarters of it.",
    )
    max_decode_s: float = Field(
        30.0,
        gt=0,
        description="Seconds that decoding one video or animation may take; past it, it is"
        " refused as too long.",
    )
    image_cache_bytes: int = Field(
        256 * 1024 * 1024,
        ge=0,
        description="Memory for what the vision tower of the image model, and that of the"
        " generator, made of images, so that the same image goes through it once; 0 turns it off.",
    )
    score_cache_entries: int = Field(
        200_000,
        ge=0,
        description="Texts and pictures whose scores are remembered, by hashes, so that the same"
        " content is scored once; 0 turns it off.",
    )
    score_cache_bytes: int = Field(
        128 * 1024 * 1024,
        ge=0,
        description="Memory for them; 0 turns it off.",
    )
    generator: str = Field(
        "embedded",
        description="The model behind the gate in this process: `embedded` (Gemma 3 270M base), a"
        " directory or hub id of a Gemma 3, or `none`. The URL of a server (up to `/v1`) is an"
        " upstream for all models.",
    )
    upstreams: dict[str, UpstreamSettings] = Field(
        {},
        description="Servers behind the gate, by a name for the log (docs/gate.md). In the"
        " environment as JSON.",
    )
    pre_filter: Literal["hidden", "first"] = Field(
        "hidden",
        description="`hidden`: the generator begins while the prompt is checked, and is stopped"
        " where it does not pass; nothing of its answer leaves before. `first`: it begins after"
        " the check, so that no upstream reads a prompt that is blocked.",
    )
    check_system_prompts: bool = Field(
        True,
        description="Whether the gate checks system prompts: messages of the roles `system` and"
        " `developer`, and `instructions`. Turn it off only where the application writes them and"
        " none of its users can; answers then list them as not checked.",
    )
    stream_mode: Literal["hold", "window", "final"] = Field(
        "hold",
        description="What of a streamed answer leaves before it is checked. `hold`: nothing."
        " `window`: at most `window_chars` characters. `final`: everything; the check comes at"
        " the end.",
    )
    window_chars: int = Field(
        200, ge=1, description="Unchecked characters that may be out in the mode `window`."
    )
    hold_back_chars: int = Field(
        64,
        ge=0,
        description="In the mode `hold`, characters before the end of what was checked that wait"
        " for the next check: a violation of this length never leaves in part.",
    )
    idle_check_s: float = Field(
        0.5,
        gt=0,
        description="Seconds without news of an answer after which all of it so far is checked.",
    )
    download_hosts: Annotated[tuple[DownloadHost, ...], NoDecode] = Field(
        (),
        description="Hosts from which images and videos that are named by a URL are fetched to be"
        " judged (docs/gate.md); in the environment separated by commas. `images.example.com`,"
        " `.example.com` for all below it, `*` for any; with a port where it is not the usual one."
        " Without any, such URLs are refused.",
    )
    download_networks: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = Field(
        (),
        description="Networks (`10.1.0.0/16`) whose addresses these hosts may have although they"
        " are not public; in the environment separated by commas.",
    )
    download_deadline_s: float = Field(
        10.0, gt=0, description="Seconds that fetching one file may take in all."
    )
    policy_set: str = Field("default", description="The policy set that always applies.")
    policy_dirs: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="Folders of policies and policy sets laid over the built-in ones; in the"
        " environment separated like PATH.",
    )
    policy_reload_s: float = Field(
        0.0,
        ge=0,
        description="Seconds between two looks at the files in `policy_dirs`; what was changed is"
        " loaded once it is the same at two of them. 0 turns it off. SIGHUP loads them at any"
        " time.",
    )
    faces: Annotated[tuple[FaceName, ...] | None, NoDecode] = Field(
        None,
        description="Whose clients are served besides OpenAI's (docs/faces.md): names, in the"
        " environment separated by commas. All by default, none where it is empty.",
    )
    cache_dir: Path = Field(
        Path("~/.cache/wardgate"),
        description="Where converted models live; about 600 MB.",
    )
    embedded_base: str | None = Field(
        None,
        description="A directory or hub id of Gemma 3 270M, used for the embedded models instead of"
        " the packaged weights.",
    )
    remote_api_key: SecretStr | None = Field(
        None,
        description="Sent to the model server as a bearer token, where `model` is on one.",
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        None,
        description="What the models compute in; what this machine does fastest by default.",
    )
    device: str = Field("cpu", description="The torch device of all models, such as `cuda`.")
    threads: int | None = Field(
        None,
        ge=1,
        description="Threads that one model computes with. By default half of the cores that this"
        " process may use, because classifier and generator compute at the same time; all of them"
        " without a generator.",
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Larger request bodies are refused with 413."
    )
    max_bodies_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        description="Bytes of the bodies of all unanswered requests together, the first 64 KiB of"
        " each not counted; past it, 429.",
    )
    body_deadline_s: float = Field(
        60.0, gt=0, description="Seconds that a request body may take to come; then 408."
    )
    client_stall_s: float = Field(
        60.0,
        gt=0,
        description="Seconds that a client may take to send the head of a request, or to read what"
        " waits for it; then its connection is cut.",
    )
    queue_capacity: int = Field(
        64,
        ge=1,
        description="Requests that the classifier may have before it at a time; past it, 429.",
    )
    max_batch_tokens: int = Field(
        1024,
        ge=1,
        description="Tokens that the classifier computes together, of as many requests as there"
        " are. Whoever comes next waits for them.",
    )
    generation_queue_capacity: int = Field(
        8, ge=1, description="Chats that may wait for the generator; past it, 429."
    )
    deadline_s: float = Field(
        60.0,
        gt=0,
        description="Seconds that a moderation request, or one check of the gate, may take in"
        " all; then 504, or the policy set's `on_error` at the gate.",
    )
    generation_deadline_s: float = Field(
        600.0, gt=0, description="Seconds that one chat completion may take in all."
    )
    hung_after_s: float = Field(
        300.0,
        gt=0,
        description="Seconds past `deadline_s` that a forward of the classifier may take, and past"
        " `generation_deadline_s` a generation; then it is taken for hung, and `/healthz` turns 503"
        " until it ends. A content of more than `max_batch_tokens` may take as many times longer.",
    )
    stop_grace_s: float = Field(
        3.0,
        ge=0,
        description="Seconds that what runs has to end when the service is told to stop; then its"
        " callers get 503.",
    )
    max_new_tokens: int = Field(
        1024, ge=1, description="Most tokens of one completion; also the default of `max_tokens`."
    )
    unseen_history: Literal["refuse", "pass"] = Field(
        "refuse",
        description="What becomes of a request to `/v1/responses` that names content by an id"
        " (`previous_response_id`, `conversation`, `prompt`, `item_reference`). `refuse`: only"
        " answers that passed this process are known, all else is refused. `pass`: it reaches the"
        " upstream unseen.",
    )
    blocked_prompt: Literal["refusal", "error"] = Field(
        "refusal",
        description="How a blocked prompt is answered: a normal completion with `refusal_text`"
        " and finish_reason `content_filter`, or HTTP 400 with code `content_filter`.",
    )
    refusal_text: str = Field(
        "I can't answer this: the request was blocked by the content policy.",
        min_length=1,
        description="What a blocked prompt is answered with, and what stands in place of a blocked"
        " answer that is not streamed, where the policy set has no `refusal` (docs/policies.md).",
    )
    unchecked_text: str = Field(
        "I can't answer this: it could not be checked against the content policy. Try again later.",
        min_length=1,
        description="What a prompt is answered with that could not be checked, where the policy"
        " set's `on_error` is `block`.",
    )
    redacted_text: str = Field(
        "[removed by the content policy]",
        min_length=1,
        description="What stands, in prompts and answers, in place of what a policy's action"
        " `redact` removes.",
    )
    report: Literal["body", "headers", "both", "none"] = Field(
        "body",
        description="Where an answer of the gate says what its checks came to: in the field"
        " `wardgate`, in the headers `Wardgate-Prompt`, `Wardgate-Response` and their `-Scores`,"
        " in both, or not at all.",
    )
    check_every_chars: int = Field(
        160,
        ge=1,
        description="A growing response is checked at a sentence end after half as many new"
        " characters, and anywhere after this many.",
    )
    keep_alive_s: float = Field(
        10.0, gt=0, description="Seconds of silence after which a stream gets an SSE comment."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe entry of the JSON log on standard error."
    )

    @property
    def reports_in_body(self) -> bool:
        """See `report`."""
        return self.report in ("body", "both")

    @property
    def reports_in_headers(self) -> bool:
        """See `report`."""
        return self.report in ("headers", "both")

    @property
    def base(self) -> EmbeddedBase:
        """The base of the embedded models."""
        return EmbeddedBase(self.cache_dir, self.embedded_base)

    @model_validator(mode="before")
    @classmethod
    def _generator_by_url(cls, values: Any) -> Any:
        generator = values.get("generator") if isinstance(values, dict) else None
        if not isinstance(generator, str) or not generator.startswith(("http://", "https://")):
            return values
        upstreams = {"generator": {"base_url": generator}, **values.get("upstreams", {})}
        return {**values, "generator": "none", "upstreams": upstreams}

    @model_validator(mode="after")
    def _one_upstream_a_model(self) -> Self:
        named = [model for upstream in self.upstreams.values() for model in upstream.models]
        if twice := sorted({model for model in named if named.count(model) > 1}):
            raise ValueError(f"two upstreams answer {twice[0]!r}; name each model once")
        if sum(not upstream.models for upstream in self.upstreams.values()) > 1:
            raise ValueError("two upstreams name no models; only one can answer all the others")
        return self

    @model_validator(mode="after")
    def _holds_one_body(self) -> Self:
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ValueError(
                f"max_bodies_bytes is {self.max_bodies_bytes} and has to hold at least one body of"
                f" max_body_bytes, {self.max_body_bytes}"
            )
        return self

    @field_validator("policy_dirs", mode="before")
    @classmethod
    def _split_like_path(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for part in value.split(os.pathsep) if part)
        return value

    @field_validator("faces", "download_hosts", "download_networks", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cache_dir", "calibration", mode="after")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None


def load_settings(
    config: Path | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of this process.

    Args:
        config: a YAML file of settings; `WARDGATE_CONFIG` names it otherwise.
        overrides: from the command line; None values are left out.
        environ: the environment to check for misspelt names; the process's own by default.

    Raises:
        SettingsError: an unknown name or a value of the wrong kind; says which and where.
    """
    environ = os.environ if environ is None else environ
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known | {CONFIG_VARIABLE}:
            raise SettingsError(
                f"the environment variable {name} is no setting; known: {', '.join(sorted(known))}"
            )
    if config is None and environ.get(CONFIG_VARIABLE):
        config = Path(environ[CONFIG_VARIABLE])
    from_file = _read_file(config) if config else {}
    from_command: dict[str, Any] = {
        name: value for name, value in (overrides or {}).items() if value is not None
    }

    class FromEverywhere(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, from_file)

    try:
        return FromEverywhere(**from_command)
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_context=False)[0]
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        where = _origin(name, from_command, environ, config if name in from_file else None)
        raise SettingsError(f"{where}: {problem['msg']}") from exc


def _origin(
    name: str, from_command: Mapping[str, object], environ: Mapping[str, str], config: Path | None
) -> str:
    if name in from_command:
        return f"--{name.replace('_', '-')}"
    variable = f"{PREFIX}{name.upper()}"
    if variable in environ:
        return f"the environment variable {variable}"
    return f"{config}: {name}" if config else name


def _read_file(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path}: cannot be read: {exc}") from exc
    except yaml.YAMLError as exc:
        raise SettingsError(f"{path}: is not valid YAML: {exc}") from exc
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: expected a mapping of settings")
    unknown = sorted(str(key) for key in data if key not in Settings.model_fields)
    if unknown:
        raise SettingsError(
            f"{path}: unknown setting {unknown[0]!r}; known: {', '.join(Settings.model_fields)}"
        )
    return data
