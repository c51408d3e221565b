"""The models' OpenAPI documents, in the shape in which fal publishes them.

Written for models chosen to differ: how large a picture is to be, and how long a clip, is
said in another way by nearly each of them. The rest has a general document, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.catalog import Model

Schema = dict[str, Any]

REF = "#/components/schemas/"


def text(description: str, **limits: Any) -> Schema:
    return {"type": "string", "description": description, **limits}


def whole(description: str, least: int, most: int, default: int) -> Schema:
    limits = {"minimum": least, "maximum": most, "default": default}
    return {"type": "integer", "description": description, **limits}


def number(description: str, least: float, most: float, default: float) -> Schema:
    limits = {"minimum": least, "maximum": most, "default": default}
    return {"type": "number", "description": description, **limits}


def flag(description: str, default: bool = False) -> Schema:
    return {"type": "boolean", "description": description, "default": default}


def choice(description: str, *values: str | int, default: str | int) -> Schema:
    kind = "integer" if isinstance(default, int) else "string"
    return {"type": kind, "enum": list(values), "description": description, "default": default}


def nullable(schema: Schema) -> Schema:
    """How pydantic writes an optional field down."""
    inside, outside = Schema(), Schema()
    for key, value in schema.items():
        place = outside if key in ("description", "default") else inside
        place[key] = value
    return {"anyOf": [inside, {"type": "null"}], **outside}


def reference(component: str) -> Schema:
    return {"$ref": REF + component}


def array(description: str, items: Schema) -> Schema:
    return {"type": "array", "items": items, "description": description}


@dataclass(frozen=True)
class Component:
    """An object type of a document."""

    properties: Mapping[str, Schema]
    required: tuple[str, ...] = ()

    def schema(self, title: str) -> Schema:
        schema: Schema = {
            "title": title,
            "type": "object",
            "properties": {
                name: {"title": name.replace("_", " ").title(), **field}
                for name, field in self.properties.items()
            },
            "x-fal-order-properties": list(self.properties),
        }
        return schema | ({"required": list(self.required)} if self.required else {})


@dataclass(frozen=True)
class Interface:
    """What one model takes and gives, with the nested types that both mention."""

    name: str
    takes: Component
    gives: Component
    nested: Mapping[str, Component] = field(default_factory=dict)

    @property
    def input_name(self) -> str:
        return f"{self.name}Input"

    @property
    def schemas(self) -> dict[str, Schema]:
        components = {
            self.input_name: self.takes,
            f"{self.name}Output": self.gives,
            **SHARED,
            **self.nested,
        }
        return {name: component.schema(name) for name, component in components.items()}


PROMPT = text("What to make.")
SEED = nullable({"type": "integer", "description": "The same seed makes the same result."})
IMAGE_URL = text("The picture to start from: a URL or a data URI.")
NEGATIVE_PROMPT = text("What to keep out.", default="")
NUM_IMAGES = whole("How many pictures.", 1, 4, 1)
SYNC_MODE = flag("Answer with data URIs in place of URLs.")
SAFETY_CHECKER = flag("Look the result over for unsafe content.", default=True)

PRESETS = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}


def image_size(default: str) -> Schema:
    presets = {"type": "string", "enum": list(PRESETS)}
    return {
        "anyOf": [reference("ImageSize"), presets],
        "description": "Width and height in pixels, or a preset.",
        "default": default,
    }


def output_format(*formats: str) -> Schema:
    return choice("The file type of the pictures.", *formats, default=formats[0])


SIDE: Schema = {"type": "integer", "exclusiveMinimum": 0, "maximum": 14142, "default": 512}
FILE_FIELDS = {
    "url": text("Where the file is."),
    "content_type": nullable(text("Its media type.")),
    "file_name": nullable(text("Its name.")),
    "file_size": nullable({"type": "integer", "description": "Its size in bytes."}),
}
PIXELS = {"width": nullable({"type": "integer"}), "height": nullable({"type": "integer"})}

SHARED = {
    "ImageSize": Component({"width": SIDE, "height": SIDE}),
    "File": Component(FILE_FIELDS, ("url",)),
    "Image": Component({**FILE_FIELDS, **PIXELS}, ("url",)),
    "QueueStatus": Component(
        {
            "status": choice(
                "Where it is.", "IN_QUEUE", "IN_PROGRESS", "COMPLETED", default="IN_QUEUE"
            ),
            "request_id": text("The request."),
            "response_url": text("Where the result will be."),
            "status_url": text("Where the status is."),
            "cancel_url": text("Where to cancel."),
            # fal's documents do say object here, though an array is what comes.
            "logs": {"type": "object", "additionalProperties": True},
        },
        ("status", "request_id"),
    ),
}

IMAGES = array("The pictures.", reference("Image"))
GIVES_IMAGES = Component({"images": IMAGES, "seed": {"type": "integer"}}, ("images",))
GIVES_FLUX = Component(
    {
        "images": IMAGES,
        "timings": {"type": "object", "additionalProperties": {"type": "number"}},
        "seed": {"type": "integer"},
        "has_nsfw_concepts": array("One flag per picture.", {"type": "boolean"}),
        "prompt": text("The prompt that was used."),
    },
    ("images", "timings", "seed", "has_nsfw_concepts", "prompt"),
)
VIDEO = {"video": {**reference("File"), "description": "The clip."}}
GIVES_VIDEO = Component(VIDEO, ("video",))


def _flux(name: str, steps: Schema) -> Interface:
    takes = {
        "prompt": PROMPT,
        "image_size": image_size("landscape_4_3"),
        "num_inference_steps": steps,
        "seed": SEED,
        "guidance_scale": number("How closely to follow the prompt.", 1, 20, 3.5),
        "sync_mode": SYNC_MODE,
        "num_images": NUM_IMAGES,
        "enable_safety_checker": SAFETY_CHECKER,
        "output_format": output_format("jpeg", "png"),
        "acceleration": choice("Speed for quality.", "none", "regular", "high", default="none"),
    }
    return Interface(name, Component(takes, ("prompt",)), GIVES_FLUX)


def _veo(name: str, frames: Mapping[str, Schema]) -> Interface:
    takes = {
        "prompt": text("What should happen.", maxLength=20000),
        **frames,
        "aspect_ratio": choice("The frame's shape.", "auto", "16:9", "9:16", default="auto"),
        "duration": choice("How long the clip is.", "4s", "6s", "8s", default="8s"),
        "negative_prompt": nullable(text("What to keep out.")),
        "resolution": choice("The frame's size.", "720p", "1080p", "4k", default="720p"),
        "generate_audio": flag("With sound.", default=True),
        "seed": SEED,
        "auto_fix": flag("Rewrite a prompt that the content policy stops."),
        "safety_tolerance": choice("1 is strict.", *"123456", default="4"),
    }
    return Interface(name, Component(takes, ("prompt", *frames)), GIVES_VIDEO)


_NANO_BANANA_RATIOS = "auto 21:9 16:9 3:2 4:3 5:4 1:1 4:5 3:4 2:3 9:16 4:1 1:4 8:1 1:8"

_NANO_BANANA_2 = Interface(
    "NanoBanana2TextToImage",
    Component(
        {
            "prompt": text("What to make.", minLength=3, maxLength=50000),
            "num_images": NUM_IMAGES,
            "seed": SEED,
            "aspect_ratio": nullable(
                choice("The picture's shape.", *_NANO_BANANA_RATIOS.split(), default="auto")
            ),
            "output_format": choice("The file type.", "jpeg", "png", "webp", default="png"),
            "safety_tolerance": choice("1 is strict.", *"123456", default="4"),
            "sync_mode": SYNC_MODE,
            "resolution": choice("The picture's size.", "0.5K", "1K", "2K", "4K", default="1K"),
            "limit_generations": flag("One picture per generation.", default=True),
            "enable_web_search": flag("Look things up first."),
        },
        ("prompt",),
    ),
    Component({"images": IMAGES, "description": text("About them.")}, ("images", "description")),
)

_NANO_BANANA_2_EDIT = Interface(
    "NanoBanana2Edit",
    Component(
        {
            **_NANO_BANANA_2.takes.properties,
            "image_urls": array("The pictures to change.", text("A URL or a data URI.")),
        },
        ("prompt", "image_urls"),
    ),
    _NANO_BANANA_2.gives,
)

_NANO_BANANA_EDIT = Interface(
    "NanoBananaEdit",
    Component(
        {
            "prompt": text("How to change the pictures.", minLength=3, maxLength=50000),
            "image_urls": array("The pictures to change.", text("A URL or a data URI.")),
            "num_images": NUM_IMAGES,
            "aspect_ratio": nullable(
                choice("The picture's shape.", *_NANO_BANANA_RATIOS.split()[:11], default="auto")
            ),
            "output_format": choice("The file type.", "jpeg", "png", "webp", default="png"),
            "sync_mode": SYNC_MODE,
        },
        ("prompt", "image_urls"),
    ),
    Component({"images": IMAGES, "description": text("About them.")}, ("images", "description")),
)


def _recraft(name: str) -> Interface:
    takes = {
        "prompt": text("What to make.", minLength=1, maxLength=10000),
        "image_size": image_size("square_hd"),
        "enable_safety_checker": SAFETY_CHECKER,
    }
    return Interface(name, Component(takes, ("prompt",)), Component({"images": IMAGES}))


_FOOOCUS = Interface(
    "Fooocus",
    Component(
        {
            "prompt": text("What to make.", default=""),
            "negative_prompt": NEGATIVE_PROMPT,
            "performance": choice(
                "Speed for quality.",
                "Speed",
                "Quality",
                "Extreme Speed",
                "Lightning",
                default="Extreme Speed",
            ),
            "guidance_scale": number("How closely to follow the prompt.", 1, 30, 4),
            "sharpness": number("How sharp.", 0, 30, 2),
            "aspect_ratio": text("Width and height, joined by an x.", default="1024x1024"),
            "num_images": NUM_IMAGES,
            "output_format": choice("The file type.", "png", "jpeg", "webp", default="jpeg"),
            "seed": SEED,
            "sync_mode": SYNC_MODE,
            "enable_safety_checker": SAFETY_CHECKER,
        }
    ),
    Component(
        {"images": IMAGES, "timings": {"type": "object"}, "has_nsfw_concepts": {"type": "array"}},
        ("images", "timings", "has_nsfw_concepts"),
    ),
)

_KLING_NEGATIVE_PROMPT = text(
    "What to keep out.", maxLength=2500, default="blur, distort, and low quality"
)
_CFG_SCALE = number("How closely to follow the prompt.", 0, 1, 0.5)


def _kling_2(name: str, **further: Schema) -> Interface:
    takes = {
        "prompt": text("What should happen.", maxLength=2500),
        "image_url": IMAGE_URL,
        "duration": choice("Seconds, as text.", "5", "10", default="5"),
        "negative_prompt": _KLING_NEGATIVE_PROMPT,
        "cfg_scale": _CFG_SCALE,
        **further,
    }
    return Interface(name, Component(takes, ("prompt", "image_url")), GIVES_VIDEO)


_KLING_TEXT_TO_VIDEO = Interface(
    "KlingVideoV25TurboProTextToVideo",
    Component(
        {
            "prompt": text("What should happen.", maxLength=2500),
            "duration": choice("Seconds, as text.", "5", "10", default="5"),
            "aspect_ratio": choice("The frame's shape.", "16:9", "9:16", "1:1", default="16:9"),
            "negative_prompt": _KLING_NEGATIVE_PROMPT,
            "cfg_scale": _CFG_SCALE,
        },
        ("prompt",),
    ),
    GIVES_VIDEO,
)

_KLING_3_PRO = Interface(
    "KlingVideoV3ProImageToVideo",
    Component(
        {
            "prompt": nullable(text("What should happen; or give multi_prompt.", maxLength=2500)),
            "multi_prompt": nullable(
                array("One prompt per shot.", reference("KlingV3MultiPromptElement"))
            ),
            "start_image_url": text("The first frame."),
            "end_image_url": nullable(text("The last frame.")),
            "duration": choice(
                "Seconds, as text.", *[str(seconds) for seconds in range(3, 16)], default="5"
            ),
            "generate_audio": flag("With sound.", default=True),
            "elements": nullable(array("Who is in it.", reference("KlingV3ComboElementInput"))),
            "shot_type": choice("Who cuts.", "customize", "intelligent", default="customize"),
            "negative_prompt": _KLING_NEGATIVE_PROMPT,
            "cfg_scale": _CFG_SCALE,
        },
        ("start_image_url",),
    ),
    GIVES_VIDEO,
    {
        "KlingV3ComboElementInput": Component(
            {"frontal_image_url": nullable(text("Seen from the front."))}
        ),
        "KlingV3MultiPromptElement": Component(
            {"prompt": text("The shot."), "duration": text("Its seconds.", default="5")},
            ("prompt",),
        ),
    },
)

_SORA_2 = Interface(
    "Sora2ImageToVideo",
    Component(
        {
            "prompt": text("What should happen.", minLength=1, maxLength=5000),
            "resolution": choice("The frame's size.", "auto", "720p", default="auto"),
            "aspect_ratio": choice("Its shape.", "auto", "9:16", "16:9", default="auto"),
            "duration": choice("Seconds.", 4, 8, 12, 16, 20, default=4),
            "image_url": IMAGE_URL,
            "delete_video": flag("Do not keep it at the vendor's.", default=True),
        },
        ("prompt", "image_url"),
    ),
    Component({**VIDEO, "video_id": text("The vendor's id.")}, ("video", "video_id")),
)

_WAN_22 = Interface(
    "WanV22A14bImageToVideo",
    Component(
        {
            "image_url": IMAGE_URL,
            "prompt": PROMPT,
            "num_frames": whole("How many frames.", 17, 161, 81),
            "frames_per_second": nullable(whole("How fast they follow.", 4, 60, 16)),
            "negative_prompt": NEGATIVE_PROMPT,
            "seed": SEED,
            "resolution": choice("The frame's size.", "480p", "580p", "720p", default="720p"),
            "aspect_ratio": choice("Its shape.", "auto", "16:9", "9:16", "1:1", default="auto"),
            "num_inference_steps": whole("How many steps.", 2, 40, 27),
            "enable_safety_checker": flag("Look the input over."),
            "guidance_scale": number("How closely to follow the prompt.", 1, 10, 3.5),
            "shift": number("Where the steps lie.", 1, 10, 5),
            "end_image_url": nullable(text("The last frame.")),
            "video_quality": choice(
                "How it is encoded.", "low", "medium", "high", "maximum", default="high"
            ),
        },
        ("prompt", "image_url"),
    ),
    Component({**VIDEO, "prompt": PROMPT, "seed": {"type": "integer"}}, ("video", "seed")),
)

_GUIDANCE_0_TO_5: Schema = {"type": "number", "minimum": 0, "maximum": 5}

_AURORA = Interface(
    "AuroraImageToVideo",
    Component(
        {
            "image_url": IMAGE_URL,
            "audio_url": text("What the person in the picture says."),
            "prompt": nullable(text("How the clip should look.")),
            "guidance_scale": nullable({**_GUIDANCE_0_TO_5, "default": 1}),
            "audio_guidance_scale": nullable({**_GUIDANCE_0_TO_5, "default": 2}),
            "resolution": choice("The frame's size.", "480p", "720p", default="720p"),
        },
        ("image_url", "audio_url"),
    ),
    GIVES_VIDEO,
)

_FABRIC = Interface(
    "FabricOneLipsync",
    Component(
        {
            "image_url": IMAGE_URL,
            "audio_url": text("What the person in the picture says."),
            "resolution": choice("The frame's size.", "720p", "480p", default="720p"),
        },
        ("image_url", "audio_url", "resolution"),
    ),
    GIVES_VIDEO,
)

_KLING_O3 = Interface(
    "O3StandardImageToVideo",
    Component(
        {
            "prompt": nullable(text("What should happen.", maxLength=2500)),
            "image_url": text("The first frame."),
            "end_image_url": nullable(text("The last frame.")),
            "duration": choice(
                "Seconds, as text.", *[str(seconds) for seconds in range(3, 16)], default="5"
            ),
            "generate_audio": flag("With sound."),
        },
        ("image_url",),
    ),
    GIVES_VIDEO,
)

_MINIMAX = Interface(
    "MinimaxVideoImageToVideo",
    Component(
        {
            "prompt": PROMPT,
            "image_url": IMAGE_URL,
            "prompt_optimizer": flag("Let the model rewrite the prompt.", default=True),
        },
        ("prompt", "image_url"),
    ),
    GIVES_VIDEO,
)

_RUNWAY = Interface(
    "RunwayGen3TurboImageToVideo",
    Component(
        {
            "prompt": PROMPT,
            "image_url": IMAGE_URL,
            # Nobody recorded which values it takes. [?]
            "duration": text("Seconds, as text."),
        },
        ("prompt", "image_url"),
    ),
    GIVES_VIDEO,
)

INTERFACES = {
    "fal-ai/flux/dev": _flux("FluxDev", whole("How many steps.", 1, 50, 28)),
    "fal-ai/flux/schnell": _flux("FluxSchnell", whole("How many steps.", 1, 12, 4)),
    "fal-ai/nano-banana-2": _NANO_BANANA_2,
    "fal-ai/nano-banana-2/edit": _NANO_BANANA_2_EDIT,
    "fal-ai/nano-banana/edit": _NANO_BANANA_EDIT,
    "fal-ai/veo3.1": _veo("Veo31TextToVideo", {}),
    "fal-ai/kling-video/o3/standard/image-to-video": _KLING_O3,
    "veed/fabric-1.0": _FABRIC,
    "fal-ai/kling-video/v2.5-turbo/pro/text-to-video": _KLING_TEXT_TO_VIDEO,
    "fal-ai/recraft/v4/pro/text-to-image": _recraft("RecraftV4ProTextToImage"),
    "fal-ai/recraft/v4/pro/text-to-vector": _recraft("RecraftV4VectorProTextToImage"),
    "fal-ai/fooocus": _FOOOCUS,
    "fal-ai/kling-video/v2/master/image-to-video": _kling_2("KlingVideoV2MasterImageToVideo"),
    "fal-ai/kling-video/v2.5-turbo/pro/image-to-video": _kling_2(
        "KlingVideoV25TurboProImageToVideo", tail_image_url=nullable(text("The last frame."))
    ),
    "fal-ai/kling-video/v3/pro/image-to-video": _KLING_3_PRO,
    "fal-ai/veo3.1/image-to-video": _veo("Veo31ImageToVideo", {"image_url": IMAGE_URL}),
    "fal-ai/veo3.1/first-last-frame-to-video": _veo(
        "Veo31FirstLastFrameToVideo",
        {"first_frame_url": text("The first frame."), "last_frame_url": text("The last frame.")},
    ),
    "fal-ai/sora-2/image-to-video": _SORA_2,
    "fal-ai/wan/v2.2-a14b/image-to-video": _WAN_22,
    "fal-ai/creatify/aurora": _AURORA,
    "fal-ai/minimax-video/image-to-video": _MINIMAX,
    "fal-ai/runway-gen3/turbo/image-to-video": _RUNWAY,
}

_GENERAL_TEXT_TO_IMAGE = Interface(
    "TextToImage",
    Component(
        {
            "prompt": PROMPT,
            "image_size": image_size("landscape_4_3"),
            "num_images": NUM_IMAGES,
            "seed": SEED,
            "sync_mode": SYNC_MODE,
        },
        ("prompt",),
    ),
    GIVES_IMAGES,
    # The input of another endpoint stands beside it, as the nested inputs of real models do:
    # no name tells which input is this endpoint's, the POST path does.
    {"ImageToImageInput": Component({"image_url": IMAGE_URL}, ("image_url",))},
)
_GENERAL_IMAGE_TO_VIDEO = Interface(
    "ImageToVideo",
    Component({"prompt": PROMPT, "image_url": IMAGE_URL, "seed": SEED}, ("image_url",)),
    GIVES_VIDEO,
)
_GENERAL = {"text-to-image": _GENERAL_TEXT_TO_IMAGE, "image-to-video": _GENERAL_IMAGE_TO_VIDEO}


def interface_of(model: Model) -> Interface | None:
    """What the model is known to take; None where the sandbox would have to guess."""
    if model.endpoint_id in INTERFACES:
        return INTERFACES[model.endpoint_id]
    return _GENERAL.get(model.category) if model.invented else None


def document_of(model: Model) -> Schema | None:
    """The OpenAPI document of a model, as its queue's is published."""
    interface = interface_of(model)
    if interface is None:
        return None
    return {
        "openapi": "3.0.4",
        "info": {
            "title": f"Queue OpenAPI for {model.endpoint_id}",
            "version": "1.0.0",
            "description": f"The OpenAPI schema for the {model.endpoint_id} queue.",
            "x-fal-metadata": _fal_metadata(model),
        },
        "components": {"schemas": interface.schemas},
        "servers": [{"url": "https://queue.fal.run"}],
        "paths": _paths(model.endpoint_id, interface),
    }


def _fal_metadata(model: Model) -> dict[str, str]:
    page = f"https://fal.ai/models/{model.endpoint_id}"
    return {
        "endpointId": model.endpoint_id,
        "category": model.category,
        "playgroundUrl": page,
        "documentationUrl": f"{page}/api",
    }


def _paths(endpoint_id: str, interface: Interface) -> Schema:
    """The paths under the full id, as fal prints them; it serves them under the app's."""
    request = f"/{endpoint_id}/requests/{{request_id}}"
    takes = {"application/json": {"schema": reference(interface.input_name)}}
    status = _replies("QueueStatus")
    return {
        f"{request}/status": {"get": status},
        f"{request}/cancel": {"put": status},
        f"/{endpoint_id}": {
            "post": {"requestBody": {"required": True, "content": takes}, **status}
        },
        request: {"get": _replies(f"{interface.name}Output")},
    }


def _replies(component: str) -> Schema:
    content = {"application/json": {"schema": reference(component)}}
    return {"responses": {"200": {"description": "The reply.", "content": content}}}
